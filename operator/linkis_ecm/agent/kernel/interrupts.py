"""What an interrupt does inside the kernel: it ends the code that runs, and nothing else. Runs in the kernel.

An interrupt is SIGINT. Its Python handler runs in the main thread, between two bytecodes; what it does depends on what
the main thread is at. Where no bytecode runs because a C function holds the main thread, the control thread helps
(`Interrupts.help_along`). Must not end the kernel: a KeyboardInterrupt that leaves the user's code would.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import enum
import functools
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ipykernel import iostream, zmqshell
from ipykernel.ipkernel import IPythonKernel
from IPython.core import interactiveshell

from linkis_ecm.agent.formats.names import INTERRUPT_MESSAGE
from linkis_ecm.agent.kernel.children import ending_script, run_in_terminal
from linkis_ecm.agent.kernel.loops import allow_others
from linkis_ecm.agent.kernel.output import streams
from linkis_ecm.agent.kernel.tracebacks import is_own

# Code that handles its interrupt (`except KeyboardInterrupt`, `finally`) is left alone for so long by the interrupts
# that repeat the first one: it may be saving its work.
CLEAN_UP_SECONDS = 2.0
# Sent by the kernel to its own main thread where the code has put another handler, or none, in SIGINT's place.
OWN_SIGNAL = signal.SIGRTMAX - 1

# Waits of the standard library during which a clean-up may hang: `with ThreadPoolExecutor()` waits for its threads.
_WAITS = (
    threading.__file__, os.path.dirname(concurrent.futures.__file__) + os.sep,
    os.path.join(os.path.dirname(threading.__file__), "multiprocessing") + os.sep,
)  # fmt: skip
# Waits in which they do not: each flush is one.
_STREAMS = (iostream.__file__, streams.__file__)
_SHELL = (interactiveshell.__file__, zmqshell.__file__, os.path.dirname(__file__) + os.sep)
_SCRIPTS = "IPython.core.magics.script"
_RUN_CODE = interactiveshell.InteractiveShell.run_code.__code__


class Interrupts:
    """The state of the interrupts of one kernel."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.interrupted = False  # whether the code that runs was
        self.raised = 0  # how often a signal has ended something
        self._began = self._raised_at = clock()
        self._request = ""  # the message id of the one that runs
        self._meant = ""  # the one that OWN_SIGNAL was sent for
        self._helping = threading.Lock()  # while it is held, the request that runs does not end
        # What a signal does to the code that runs: of plain code, or of code that awaits.
        self._react: Callable[[FrameType | None], None] = self._raise

    def install(self) -> None:
        """Handle OWN_SIGNAL; SIGINT is handled while code runs (`EngineKernel`)."""
        signal.signal(OWN_SIGNAL, self.on_signal)

    @contextlib.contextmanager
    def running(self, request: str) -> Iterator[None]:
        """While the code of `request` runs. Outside of it a signal does nothing: there is no code to interrupt."""
        self._began = self._clock()
        self.interrupted = False
        self._request = request
        try:
            yield
        finally:
            with self._helping:
                self._request = ""

    def runs(self, request: str) -> bool:
        """Whether the code of `request` runs."""
        return bool(request) and self._request == request

    @contextlib.contextmanager
    def reacting(self, react: Callable[[FrameType | None], None]) -> Iterator[None]:
        """While it lasts, a signal calls `react` with the frame that the main thread is at."""
        before, self._react = self._react, react
        try:
            yield
        finally:
            self._react = before

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGINT and of OWN_SIGNAL."""
        if self._request and (number != OWN_SIGNAL or self._meant == self._request):
            self.interrupted = True
            self._react(frame)

    def _raise(self, frame: FrameType | None) -> None:
        """Ctrl-C."""
        self.raise_in(frame, KeyboardInterrupt)

    def raise_in(self, frame: FrameType | None, kind: type[BaseException]) -> None:
        """Raise `kind` in the main thread, but for code that handles an interrupt already."""
        where, again = _where(frame), self._raised_at > self._began
        if where in (Where.AFTER_CODE, Where.DESTRUCTOR) or (again and where is Where.ELSEWHERE):
            return  # the next one is for what follows, if anything does
        if again:
            handling = isinstance(sys.exc_info()[1], (KeyboardInterrupt, asyncio.CancelledError))
            if handling and not _hangs(frame) and self._clock() < self._raised_at + CLEAN_UP_SECONDS:
                return
        self._raised_at = self._clock()
        self.raised += 1
        raise kind

    def cell_cancelled(self) -> None:
        """The cell's await was cancelled, which counts as raised."""
        self.raised += 1

    def reraising(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, with the interrupt raised again that it has swallowed.

        Also where it has come as another error: a query's, which duckdb puts in the place of KeyboardInterrupt.
        """

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            before = self.raised, self.interrupted
            result = function(*args, **kwargs)
            if (self.raised, self.interrupted) != before:
                raise KeyboardInterrupt
            return result

        return call

    def help_along(self, stage: int, request: str) -> None:
        """In the control thread, after a SIGINT of the agent to the code of `request`: end what holds the main thread
        in a C function. Such a message may come late, when other code runs."""
        if not self.runs(request):
            return
        connections = _connections()
        # To find them takes a while, in which that code may have ended: a query that runs now is another task's.
        with self._helping:
            if not self.runs(request):
                return
            self.interrupted = True
            for connection in connections:
                with contextlib.suppress(Exception):  # closed, or of another thread's making
                    connection.interrupt()
            ident = threading.main_thread().ident
            if stage > 1 and ident is not None:
                self._meant = request
                signal.pthread_kill(ident, OWN_SIGNAL)


def _connections() -> list[Any]:
    """Databases that run inside the process do not look at signals; their connections have an `interrupt`."""
    duckdb, sqlite = sys.modules.get("duckdb"), sys.modules.get("sqlite3")
    kinds = tuple(
        kind
        for kind in (getattr(duckdb, "DuckDBPyConnection", None), getattr(sqlite, "Connection", None))
        if isinstance(kind, type)
    )
    if not kinds:
        return []
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), kinds)]
    with contextlib.suppress(Exception):
        found.append(duckdb.default_connection())  # type: ignore[union-attr]
    return found


class NoShellThread:
    """In the place of ipykernel's thread that reads the shell channel for its subshells. The agent asks for none, and
    the thread costs each task four wake-ups: the main thread reads the channel itself, as in ipykernel 6."""

    parent_thread = threading.main_thread()

    def __bool__(self) -> bool:
        return False


class EngineKernel(IPythonKernel):  # type: ignore[misc]
    """ipykernel's kernel, whose code can be interrupted wherever it is."""

    # It asks for a thread that is not None; NoShellThread is none.
    _supports_kernel_subshells = False

    def __init__(self, **kwargs: Any) -> None:
        self.interrupts = Interrupts()
        # Called with the loop, once it is the kernel's.
        self.at_start: Callable[[asyncio.AbstractEventLoop], None] = lambda _loop: None
        super().__init__(**kwargs)
        # ipykernel's, before each reply, so that outputs are there first. The agent waits for the kernel's idle, which
        # comes behind them.
        self._execute_sleep = 0.0
        self.interrupts.install()
        self.control_handlers[INTERRUPT_MESSAGE] = self._on_interrupt_message
        guard = self.interrupts.reraising
        # IPython's own functions print "^C" and go on with the next line.
        zmqshell.system = run_in_terminal
        interactiveshell.getoutput = guard(interactiveshell.getoutput)
        find = self.shell._find_with_lazy_load

        def find_magic(kind: str, name: str) -> Any:
            function = find(kind, name)
            if function and getattr(function, "__module__", "") == _SCRIPTS:
                function = ending_script(function, self.shell, lambda: self.interrupts.raised)
            return function and guard(function)

        self.shell._find_with_lazy_load = find_magic
        show = self.shell.showtraceback

        def show_traceback(*args: Any, **kwargs: Any) -> None:
            error = sys.exc_info()[1]
            if error is not None and self.interrupts.interrupted and not args:
                self.shell._showtraceback(type(error), error, _plain_traceback(error))
            else:
                show(*args, **kwargs)

        self.shell.showtraceback = show_traceback

    def start(self) -> None:
        """Serve; from now on the loop is the one that code finds running."""
        super().start()
        allow_others(self.io_loop.asyncio_loop)
        self.at_start(self.io_loop.asyncio_loop)

    def _publish_status(self, status: str, channel: str, parent: Any = None) -> None:
        """Not that it is busy: execute_input says that code begins, and each message costs a short task a tenth."""
        if status != "busy":
            super()._publish_status(status, channel, parent)

    async def _on_interrupt_message(self, _stream: Any, _ident: Any, parent: dict[str, Any]) -> None:
        content = parent["content"]
        self.interrupts.help_along(int(content["stage"]), str(content["request"]))

    def set_parent(self, ident: Any, parent: dict[str, Any], channel: str = "shell") -> None:
        """Also of the streams that code has put others before: those write into these."""
        super().set_parent(ident, parent, channel)
        if channel == "shell":
            for stream in (self._stdout, self._stderr):
                if stream not in (sys.stdout, sys.stderr):
                    stream.set_parent(parent)

    def pre_handler_hook(self) -> None:
        """Before any request on the shell channel; ipykernel puts Python's own handler here."""
        self.saved_sigint_handler = signal.signal(signal.SIGINT, self.interrupts.on_signal)

    async def do_execute(self, code: str, silent: bool, *args: Any, **kwargs: Any) -> Any:
        """Run code. An interrupt that hits IPython's own lines ends the code as one that hits the user's."""
        try:
            with self.interrupts.running(self.get_parent("shell")["header"]["msg_id"]):
                return await super().do_execute(code, silent, *args, **kwargs)
        except (KeyboardInterrupt, asyncio.CancelledError):
            return {
                "status": "error", "ename": "KeyboardInterrupt", "evalue": "", "traceback": [],
                "execution_count": self.shell.execution_count - 1, "user_expressions": {}, "payload": [],
            }  # fmt: skip

    async def do_shutdown(self, restart: bool) -> Any:
        """As ipykernel's, whose lack of async is a warning: an error at the end of code that makes errors of them."""
        return super().do_shutdown(restart)

    @contextlib.contextmanager
    def _cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """Around a cell that awaits: an interrupt cancels the await, or ends what runs between two of them."""
        loop = asyncio.get_running_loop()
        kernels_own = asyncio.current_task()

        def cancel() -> None:
            if not future.done():
                future.cancel()

        def react(frame: FrameType | None) -> None:
            task = asyncio.current_task(loop)
            self.interrupts.cell_cancelled()
            # A signal alone does not wake the loop: Python's select goes on waiting after the handler.
            loop.call_soon_threadsafe(cancel)
            if task is None or task is kernels_own:
                return
            if task is not future:
                # A KeyboardInterrupt that leaves another task ends the loop, and the kernel with it.
                self.interrupts.raise_in(frame, asyncio.CancelledError)
            elif _where(frame) is Where.IN_CODE:
                self.interrupts.raise_in(frame, KeyboardInterrupt)

        with self.interrupts.reacting(react):
            yield


def _hangs(frame: FrameType | None) -> bool:
    """Whether a clean-up waits for a thread or a process, which may be for ever."""
    found = False
    while frame is not None and frame.f_code.co_filename.startswith(_WAITS):
        found, frame = True, frame.f_back
    return found and frame is not None and frame.f_code.co_filename not in _STREAMS


class Where(enum.Enum):
    """What the main thread is at."""

    IN_CODE = enum.auto()  # the user's, in which IPython catches whatever rises
    AFTER_CODE = enum.auto()
    DESTRUCTOR = enum.auto()  # Python drops what rises there
    ELSEWHERE = enum.auto()  # before the code, such as in its compilation, or long after it


def _where(frame: FrameType | None) -> Where:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return Where.DESTRUCTOR
        if frame.f_code is _RUN_CODE:
            return Where.AFTER_CODE
        caller = frame.f_back
        if caller is not None and caller.f_code is _RUN_CODE and not frame.f_code.co_filename.startswith(_SHELL):
            return Where.IN_CODE
        frame = caller
    return Where.ELSEWHERE


def _plain_traceback(error: BaseException) -> list[str]:
    """How interrupted code has ended, without the lines of IPython around it and of the handler at its end.

    IPython's own form reads and parses every file of the stack, which may take longer than the interrupt.
    """
    frames = traceback.extract_tb(error.__traceback__)
    codes = [number for number, frame in enumerate(frames) if frame.name == _RUN_CODE.co_name]
    behind = frames[max(codes, default=-1) + 1 :]
    shown = [frame for frame in behind if not is_own(frame.filename)] or behind
    return [
        "Traceback (most recent call last):", *(line.rstrip() for line in traceback.format_list(shown)),
        *(line.rstrip() for line in traceback.format_exception_only(type(error), error)),
    ]  # fmt: skip
