"""Processes that end with the one that started them, however that ends: Linux kills them, also after a SIGKILL.

Must not know what they are.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def ends_with_parent(number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """What a child runs before its program: it gets that signal when the thread that started it has ended."""
    parent = os.getpid()

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def start(
    command: Sequence[str], *, signal_at_end: signal.Signals = signal.SIGKILL, **how: Any
) -> subprocess.Popen[Any]:
    """As `subprocess.Popen`; the process gets `signal_at_end` when this one ends, however that ends.

    Call it from the main thread: Linux looks at the thread that started a process.
    """
    # What runs before the program takes no lock, so that other threads of this process do no harm.
    return subprocess.Popen(list(command), preexec_fn=ends_with_parent(signal_at_end), **how)  # noqa: PLW1509
