"""The operator: caches what the API server says, asks `engine.decide`, and does what it answers."""
