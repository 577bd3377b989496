"""Tests, demo and tools that need a real cluster."""
