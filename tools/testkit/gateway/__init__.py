"""A gateway for tests, what stands behind it, and who calls it. Must not know a real cluster."""
