"""All benchmarks of the hot paths in one run: one after another, each in its own process and time, kept as JSON.

Must not measure by itself.
"""
