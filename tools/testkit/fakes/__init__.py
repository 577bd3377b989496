"""Stand-ins for what is outside: the Kubernetes API, a kubelet. Each keeps the rules of the real thing, or says so."""
