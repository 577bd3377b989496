"""What the agent asks Linux for: protection of its process, the kernel's end with it, and what the engine uses.

Must not know code, tasks or the operator.
"""
