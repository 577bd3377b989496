"""What is kept of an engine after its pod is gone: log files and the post-mortem, by engine and attempt."""
