"""The pod of an engine as plain data: what its container runs, its volumes, the whole pod. Pure."""
