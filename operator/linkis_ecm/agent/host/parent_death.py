"""Ends a kernel's process with its agent's, however that ends: also by SIGKILL, outside of a pod.

The kernel of our own calls `end_with`. For any other program this file is run as a script in its place, which calls it
and becomes the program: `parent_death.py PARENT PROGRAM ARGV0 [ARGUMENT...]`. A script has no site-packages, so this
file must import nothing of ours.
"""

from __future__ import annotations

import os
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SIGKILL = 9


def end_with(parent: int) -> None:
    """From now on Linux kills this process once `parent`, the pid of its parent, has ended; it ends at once where that
    was before.

    Linux looks at the thread that started this process, not at its process: the agent's main thread starts kernels.
    What this process starts itself is not ended.
    """
    import ctypes  # noqa: PLC0415 - the agent imports this module only for its path

    zero = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(_SIGKILL), zero, zero, zero)
    if os.getppid() != parent:
        os._exit(1)


def _main() -> None:
    import signal  # noqa: PLC0415

    parent, program, *argv = sys.argv[1:]
    end_with(int(parent))
    # As it was given: an interpreter may have set LC_CTYPE in its own, and ignores SIGPIPE.
    with open("/proc/self/environ", "rb") as file:
        pairs = (variable.partition(b"=") for variable in file.read().split(b"\0") if variable)
        environment = {name: value for name, _, value in pairs}
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execve(program, argv, environment)  # noqa: S606 - the kernelspec's program
    except OSError as error:
        sys.exit(f"{program} cannot be started: {error.strerror}")


if __name__ == "__main__":
    _main()
