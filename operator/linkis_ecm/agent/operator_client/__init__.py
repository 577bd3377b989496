"""The agent's calls to the operator: reports, a job's code, logs and results for the archive."""
