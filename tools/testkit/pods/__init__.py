"""Pods for tests without a cluster: those that the operator builds, and what an API server makes of them."""
