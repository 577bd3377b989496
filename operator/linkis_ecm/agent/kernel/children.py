"""Commands of the user's code: `os.system`, `!command` and `%%script`, which an interrupt ends. Runs in the kernel.

Must not change what a command does, or what its caller gets back.
"""

from __future__ import annotations

import asyncio
import codecs
import concurrent.futures
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
from typing import Any

# How long an interrupted command may take to end by the SIGINT that it got itself, before it is killed. The same that
# subprocess gives its own.
INTERRUPTED_SECONDS = 0.25
# Rows and columns, as pexpect has them, which IPython uses.
_WINDOW = (24, 80)
# IPython's coroutine that waits for the program of a `%%script`.
_WAITS_FOR_SCRIPT = "_stream_communicate"


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

    It has no input: nobody writes into the terminal, and a command that reads would wait for ever.
    IPython's own decodes each piece by itself, which tears characters, and prints on where it was interrupted.
    """
    ours, its = os.openpty()
    try:
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", *_WINDOW, 0, 0))
        process = subprocess.Popen(  # noqa: S603 - the user's own command
            [os.environ.get("SHELL") or "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=its,
            stderr=its,
            start_new_session=True,
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


def ending_script(function: Callable[..., Any], shell: Any, interrupts: Callable[[], int]) -> Callable[..., Any]:
    """`function`, a magic that runs a program (`%%bash`), whose program ends where it is interrupted.

    IPython's own waits for 0.1 s after SIGINT, leaves the program running and fails in an error of its own.
    `interrupts` says how many there were.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        before = interrupts()
        try:
            return function(*args, **kwargs)
        except subprocess.CalledProcessError:
            if interrupts() == before:
                raise
            raise KeyboardInterrupt from None
        finally:
            if interrupts() != before:
                loop = shell.magics_manager.registry["ScriptMagics"].event_loop
                for process in _running_scripts(loop):
                    _end_script(process, loop)

    return call


def _running_scripts(loop: Any) -> list[Any]:
    """The programs that IPython waits for: those of --bg are not among them."""
    frames = [getattr(task.get_coro(), "cr_frame", None) for task in (asyncio.all_tasks(loop) if loop else ())]
    found = [frame.f_locals.get("process") for frame in frames if frame and frame.f_code.co_name == _WAITS_FOR_SCRIPT]
    return [process for process in found if process is not None and process.returncode is None]


def _end_script(process: Any, loop: Any) -> None:
    """It has had SIGINT: SIGTERM follows, then SIGKILL, whatever interrupts that."""
    try:
        for number in (None, signal.SIGTERM):
            if number is not None:
                process.send_signal(number)
            with contextlib.suppress(TimeoutError, concurrent.futures.TimeoutError):
                ended = asyncio.run_coroutine_threadsafe(process.wait(), loop)
                ended.result(INTERRUPTED_SECONDS)
                return
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
