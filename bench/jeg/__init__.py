"""Jupyter Enterprise Gateway beside ours: `python -m bench.jeg`."""
