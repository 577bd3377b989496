"""The benchmark of scale: `python -m bench.scale`."""
