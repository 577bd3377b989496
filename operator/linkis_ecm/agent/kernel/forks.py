"""What becomes of a child that the user's code forks: it ends where the code ends, as a script's child does. Runs in
the kernel.

Without this the child would return into the kernel's own loop and be a second kernel on the same sockets. Must not
touch children that end themselves: multiprocessing's, ProcessPoolExecutor's and subprocess's never return there.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from IPython.core.interactiveshell import InteractiveShell

from linkis_ecm.agent.kernel.exits import exit_code

_RUN_CODE = InteractiveShell.run_code.__code__
_WRITERS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


def end_children_with_code(shell: Any, session: Any) -> None:
    """End each forked child of this process at the end of the code that `shell` runs; it sends nothing by `session`."""
    kernel = os.getpid()
    depth = 0  # of cells: code may run another one by get_ipython()
    run_nodes = shell.run_ast_nodes

    async def run_nodes_to_end(*args: Any, **options: Any) -> Any:
        nonlocal depth
        depth += 1
        code = 1  # where an error leaves IPython itself
        try:
            failed = await run_nodes(*args, **options)
            code = 0
            return failed
        finally:
            depth -= 1
            if depth == 0 and os.getpid() != kernel:
                _end(code)

    def show(*args: Any, **_options: Any) -> None:
        """In a child: write the traceback to its stderr, as Python does, and end it where its code has ended."""
        error = sys.exc_info()[1]
        if error is None or args:
            return
        if not isinstance(error, SystemExit):
            _write(_traceback(error))
        elif error.code is not None and not isinstance(error.code, int):
            _write(error.code)
        if depth > 1:
            return
        if isinstance(error, KeyboardInterrupt):
            _end_by_interrupt()
        _end(exit_code(error) if isinstance(error, SystemExit) else 1)

    def in_child() -> None:
        shell.set_custom_exc((), None)
        shell.showtraceback = show
        session.send = _send_nothing

    shell.run_ast_nodes = run_nodes_to_end
    os.register_at_fork(after_in_child=in_child)


def _send_nothing(*_args: Any, **_options: Any) -> None:
    """The kernel's sockets are the parent's."""


def _traceback(error: BaseException) -> str:
    """As Python writes it, without the frames below the code's own."""
    trace = shown = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is _RUN_CODE:
            shown = trace.tb_next
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, shown)).rstrip("\n")


def _write(text: object) -> None:
    with contextlib.suppress(Exception):
        print(text, file=sys.stderr)  # noqa: T201 - as Python does


def _flush() -> None:
    """What Python's own end of a process writes: the streams, and files that are open still."""
    streams: list[Any] = [sys.stdout, sys.stderr]
    streams += [thing for thing in gc.get_objects() if issubclass(type(thing), _WRITERS)]
    # A text's own buffer is emptied into the bytes' below it.
    for stream in sorted(streams, key=lambda one: not isinstance(one, io.TextIOWrapper)):
        with contextlib.suppress(Exception):
            stream.flush()


def _end(code: int, leave: Callable[[int], NoReturn] = os._exit) -> NoReturn:
    try:
        _flush()
    finally:
        leave(code)


def _end_by_interrupt() -> NoReturn:
    """As Python ends by a KeyboardInterrupt: its parent sees the signal."""
    _flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    os._exit(130)
