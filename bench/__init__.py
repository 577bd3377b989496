"""Benchmarks on the real cluster, printed as ratios of one run."""
