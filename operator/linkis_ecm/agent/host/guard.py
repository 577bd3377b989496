"""Closes the agent's process to the user's code, which runs under the same user id (docs/design/identity.md).

Called before the kernel is started: its code may run before the agent has done anything else. ctypes costs 2 ms, which
the agent's logs need anyway. Must not import anything of the agent.
"""

from __future__ import annotations

import ctypes

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


def guard_process() -> None:
    """Close this process's memory and environment in /proc; adopt orphans, to reap them. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) failed: the engine's key would be readable")
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
