"""Warm pools: pods whose kernel runs before anybody asks (docs/design/warm.md). Pure: no I/O, no clock of its own."""
