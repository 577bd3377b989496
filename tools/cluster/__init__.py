"""The real cluster that tests, demo and benchmark run on: the current one, kind, or a node built from source.

Knows nothing about the product; `tools` is what the rest of the repository imports.
"""
