"""The operator against a fake API server, in virtual time."""
