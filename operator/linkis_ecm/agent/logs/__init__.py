"""The engine's log folder: bounded files and what is written to them. Must not know HTTP."""
