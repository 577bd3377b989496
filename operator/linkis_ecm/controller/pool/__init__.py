"""Warm pools: pods that run before anybody asks, and the claims by which engines take them (docs/design/warm.md)."""
