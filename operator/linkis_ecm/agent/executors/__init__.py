"""The agent's side of what runs code: the Executor protocol, its registry and its implementations. Must not import
the kernel's room: that one runs in another process."""
