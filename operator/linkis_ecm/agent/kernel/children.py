"""Commands of the user's code: `os.system` and `!command`, which an interrupt ends. Runs in the kernel.

Must not change what a command does, or what its caller gets back.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import functools
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable

# How long an interrupted command may take to end by the SIGINT that it got itself, before it is killed. The same that
# subprocess gives its own.
INTERRUPTED_SECONDS = 0.25
# Rows and columns, as pexpect has them, which IPython uses.
_WINDOW = (24, 80)


def replace_system() -> None:
    """Make os.system interruptible: C's own ignores SIGINT while the command runs, and Python goes on behind it."""
    functools.update_wrapper(system, os.system)
    os.system = system


def system(command: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> int:
    """Run `command` by /bin/sh; its wait status. Raises KeyboardInterrupt where it was interrupted."""
    shell = os.fspath(command)
    argv: list[str | bytes] = ["sh", "-c", *(("--",) if shell[:1] in ("-", b"-", "+", b"+") else ()), shell]
    pid = os.posix_spawn("/bin/sh", argv, os.environ, setsigdef=(signal.SIGINT, signal.SIGQUIT))
    try:
        return os.waitpid(pid, 0)[1]
    except BaseException:
        _end(pid)
        raise


def run_in_terminal(command: str) -> int:
    """What IPython does for `!command`: run it in a terminal and print what it prints; its exit code, or minus the
    signal's number that ended it.

    IPython's own decodes each piece by itself, which tears characters, and prints on where it was interrupted.
    """
    ours, its = os.openpty()
    try:
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", *_WINDOW, 0, 0))
        process = subprocess.Popen(  # noqa: S603 - the user's own command
            [os.environ.get("SHELL") or "sh", "-c", command], stdin=its, stdout=its, stderr=its, start_new_session=True
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(its)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    try:
        try:
            while data := _read_terminal(ours):
                sys.stdout.write(decoder.decode(data))
            sys.stdout.write(decoder.decode(b"", True))
            sys.stdout.flush()
            code = process.wait()
        except BaseException:
            _end_group(process)
            raise
    finally:
        os.close(ours)
    return 128 - code if code > 128 else code


def _read_terminal(descriptor: int) -> bytes:
    """Empty when nobody has its other end open any more."""
    try:
        return os.read(descriptor, 64 << 10)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number, seconds in ((signal.SIGINT, INTERRUPTED_SECONDS), (signal.SIGHUP, 0.0), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            if number != signal.SIGINT:
                return


def _end(pid: int, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
    deadline = clock() + INTERRUPTED_SECONDS
    while clock() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        sleep(INTERRUPTED_SECONDS / 25)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
