"""Why a pod does not start, is in trouble or has ended, and why an engine starts cold: closed sets of reasons. Pure."""
