"""What the operator writes and reads of an engine's pod at the API server. Must not decide."""
