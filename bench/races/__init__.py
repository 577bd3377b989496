"""A race for the members of a warm pool: `python -m bench.races`."""
