"""Who is calling: Linkis's tokens, OpenID Connect, Kubernetes. Must not know what is called."""
