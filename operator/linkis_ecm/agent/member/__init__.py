"""An agent that waits in a warm pool, and how it becomes the agent of an engine (docs/design/warm.md)."""
