"""The kernel's sys.stdout and sys.stderr: texts in the order in which they were written. Runs in the kernel.

Both streams fill one buffer, which is sent when it is flushed and a moment after it was written. What child processes
and C libraries print goes by the process's own descriptors 1 and 2, which are pipes to the agent; marks say how the two
are ordered (`formats.marks`). Must not write to those descriptors but for marks, nor grow with what is printed at once.
"""

from __future__ import annotations

import _posixsubprocess
import codecs
import contextlib
import ctypes
import fcntl
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ipykernel.iostream import OutStream

from linkis_ecm.agent.formats.marks import MARK_MESSAGE, STREAMS_MESSAGE, mark, secret_of, unread

# Characters of one message. Agent and kernel share the container's memory, and a message exists there several times.
STREAM_CHARS = 1 << 20
# Descriptors of the pipes for the kernel's own use begin here: user code counts on none of them.
_FIRST_DESCRIPTOR = 100
# Seconds from the announcement of a child process to its start, at most: until then none is seen.
_STARTS_WITHIN = 1.0
# Seconds in which the texts of one print come, such as its words and its line's end.
_TOGETHER = 0.001
_LINE_BUFFERED = 1  # _IOLBF, in glibc and in musl
_NEVER = float("inf")
_NAMES = ("stdout", "stderr")


class RawPipes:
    """Descriptors 1 and 2 as they are at the start: what is unread in them, and marks."""

    def __init__(self, key: str) -> None:
        # Copies: the user's code may close or redirect its own.
        self.descriptors = tuple(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR) for number in (1, 2))
        self._secret = secret_of(key)
        self._number = 0

    def unread(self, name: str = "") -> bool:
        """Whether the agent has something to read still, of both or of the stream `name`."""
        wanted = self.descriptors if not name else (self.descriptors[_NAMES.index(name)],)
        return any(unread(descriptor) for descriptor in wanted)

    def mark(self) -> int:
        """Write a mark into both; its number."""
        self._number += 1
        for descriptor in self.descriptors:
            os.write(descriptor, mark(self._secret, self._number))
        return self._number


class Buffer:
    """What both streams were given and have not sent; `send` sends a message of this type and content."""

    def __init__(self, pipes: RawPipes, pub_thread: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.pipes = pipes
        self.children = False  # whether there may be some that print
        self.ended = False  # nothing is sent any more: the interpreter ends
        self._started = 0.0  # when the last one was
        self._sent = -_NEVER  # when a text was sent last
        self._lock = threading.RLock()
        self._thread = pub_thread
        self._parts: list[tuple[dict[str, Any], str, list[str]]] = []
        self._planned = _NEVER  # when the flush comes that was planned
        self._sending = False
        self._unsent = 0  # messages that wait for the thread that sends
        # Whether the agent gets what was sent even if the process ends now (`journal`).
        self.keeps_all: Callable[[], bool] = lambda: True
        self.send: Callable[[str, dict[str, Any], dict[str, Any]], None] = lambda *_: None

    def add(self, name: str, parent: dict[str, Any], text: str, within: float) -> None:
        """Take `text`, to be sent within so many seconds."""
        with self._lock:
            last = self._parts[-1] if self._parts else None
            if last is not None and last[1] == name and last[0] is parent:
                last[2].append(text)
            else:
                self._parts.append((parent, name, [text]))
            at = self._clock() + within
            if self._planned <= (at + _TOGETHER if within else at):
                return
            self._planned = at
        if within:
            self._thread.schedule(lambda: self._thread.io_loop.call_later(within, self._flush_planned))
        else:
            self._thread.schedule(self._flush_planned)

    def next_flush(self, interval: float) -> float:
        """In how many seconds what is written now is sent: at once after a pause, and else each `interval`."""
        return max(_TOGETHER, self._sent + interval - self._clock())

    def flush(self, timeout: float, *, before_child: bool = False, name: str = "") -> None:
        """Send everything and return when the agent gets it whatever ends this process next; with a mark where a child
        process starts next.

        `name` is the stream that is flushed, where it is one: whoever sends something behind it flushes both.
        """
        if not (self._parts or self._sending or self._unsent or before_child or self.pipes.unread(name)):
            return
        if not self._thread.thread.is_alive() or self._thread.thread is threading.current_thread():
            self.flush_now()
            return
        done = threading.Event()
        self._thread.schedule(self.flush_now)
        if before_child:
            self._thread.schedule(self.send_mark)
        # Only then has it sent what flush_now() gave it: code that never lets go of the interpreter may follow.
        self._thread.schedule(lambda: self._thread.schedule(done.set))
        end = self._clock() + timeout
        if not done.wait(timeout) or not self._wait_until_kept(end):
            print("a flush took too long", file=sys.__stderr__)

    def _wait_until_kept(self, end: float) -> bool:
        """Return when all that was sent is kept: True, or False where it is not by `end`, on the clock.

        As a full pipe makes its writer wait, so does a full journal. Nothing wakes this process when the agent has
        read.
        """
        while not self.keeps_all():
            if self._clock() > end:
                return False
            time.sleep(_TOGETHER)
        return True

    def begin_send(self) -> None:
        """A message was given to the thread that sends."""
        self._unsent += 1

    def end_send(self) -> None:
        """That thread has sent it."""
        self._unsent -= 1

    def child_starts(self, timeout: float) -> None:
        """The next thing that this thread does is to start a child process."""
        self.flush(timeout, before_child=True)
        self._started = self._clock()
        self.children = True

    def flush_now(self) -> None:
        """Send everything; in the thread that sends."""
        self._sending = True
        try:
            with self._lock:
                parts, self._parts = self._parts, []
                self._planned = _NEVER
            if self.pipes.unread():
                self.send_mark()
            if self.children and self._clock() > self._started + _STARTS_WITHIN:
                self.children = _has_children()
            if parts:
                self._sent = self._clock()
            for parent, content in _messages(parts):
                kind = STREAMS_MESSAGE if "parts" in content else "stream"
                self.send(kind, content, parent)
        finally:
            self._sending = False

    def _flush_planned(self) -> None:
        if self._parts:
            self.flush_now()

    def send_mark(self) -> None:
        """What is in the pipes by now comes before what is sent from now on."""
        self.send(MARK_MESSAGE, {"number": self.pipes.mark()}, {})

    def end(self, timeout: float = 10.0) -> None:
        """Send everything for the last time. What is printed from now on goes by the pipes."""
        self.flush(timeout, before_child=True)
        self.ended = True

    def forget(self) -> None:
        """In a forked child: what its parent had not sent is its parent's."""
        self._lock = threading.RLock()
        self._parts = []
        self._planned = _NEVER


class EngineOutStream(OutStream):  # type: ignore[misc]
    """One of the two streams; what a file of text has in plain Python is here, too."""

    errors = "replace"
    line_buffering = True
    write_through = False
    newlines = None
    mode = "w"

    def __init__(self, session: Any, pub_thread: Any, name: str, **kwargs: Any) -> None:
        super().__init__(session, pub_thread, name, **kwargs)
        if not hasattr(pub_thread, "linkis_buffer"):
            pub_thread.linkis_buffer = Buffer(RawPipes(session.key.decode()), pub_thread)
            pub_thread.linkis_buffer.send = self._send
        self.shared: Buffer = pub_thread.linkis_buffer
        self.buffer = _Bytes(self)
        self._unwritten = ""  # of what goes by the pipe: the line that has not ended

    def fileno(self) -> int:
        """Of the process's own stream, which the agent reads too."""
        return 1 + _NAMES.index(self.name)

    def reconfigure(self, *, line_buffering: bool | None = None, write_through: bool | None = None, **_: Any) -> None:
        """As a text file's; the encoding stays UTF-8, which is what the agent reads."""
        if write_through is not None:
            self.write_through = write_through

    def write(self, string: str) -> int:
        """Take `string` over; it is sent soon. Raises TypeError, ValueError as a text file does."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if self.pub_thread is None:
            raise ValueError("I/O operation on closed file")
        if string and self._by_pipe():
            self._write_by_pipe(string)
        elif string:
            soon = self.write_through or (self.shared.children and "\n" in string)
            within = 0.0 if soon else self.shared.next_flush(self.flush_interval)
            self.shared.add(self.name, self.parent_header, string, within)
        return len(string)

    def flush(self) -> None:
        """Hand everything of both streams to the thread that sends, in the order in which it was written."""
        if self.pub_thread is None:
            return
        if self._by_pipe():
            self._write_by_pipe("", whole=True)
        else:
            self.shared.flush(self.flush_timeout, name=self.name)

    def _flush(self) -> None:
        """ipykernel's own way to send."""
        self.shared.flush_now()

    def _send(self, kind: str, content: dict[str, Any], parent: dict[str, Any]) -> None:
        # As ipykernel does it: the thread that sends is safe after a fork.
        self.session.pid = os.getpid()
        message = self.session.msg(kind, content, parent=parent)
        self.session.send(_Counted(self.pub_thread, self.shared), message, ident=self.topic)

    def _by_pipe(self) -> bool:
        """In a forked child, and where the interpreter ends and sends nothing any more."""
        return bool(os.getpid() != self._master_pid) or self.shared.ended

    def _write_by_pipe(self, string: str, *, whole: bool = False) -> None:
        """Write lines to the pipe, as any other process does: in order with those, and at once."""
        text = self._unwritten + string
        end = len(text) if whole or len(text) > 4096 else text.rfind("\n") + 1
        self._unwritten = text[end:]
        data = memoryview(text[:end].encode(errors="replace"))
        # A child's own may be a terminal or a file by now: pty.fork(), a daemon.
        descriptor = (
            self.fileno() if os.getpid() != self._master_pid else self.shared.pipes.descriptors[self.fileno() - 1]
        )
        while data:
            data = data[os.write(descriptor, data) :]


class _Counted:
    """The thread that sends; the buffer knows what has yet to be sent."""

    def __init__(self, thread: Any, buffer: Buffer) -> None:
        self._thread = thread
        self._buffer = buffer

    def send_multipart(self, *args: Any, **options: Any) -> None:
        def send() -> None:
            try:
                self._thread._really_send(*args, **options)
            finally:
                self._buffer.end_send()

        self._buffer.begin_send()
        self._thread.schedule(send)


class _Bytes(io.BufferedIOBase):
    """`sys.stdout.buffer`: bytes of UTF-8."""

    def __init__(self, stream: EngineOutStream) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.raw = self
        self.name = f"<{stream.name}>"
        self.mode = "wb"

    def write(self, data: Any) -> int:
        """Take bytes over."""
        view = memoryview(data).cast("B") if not isinstance(data, (bytes, bytearray)) else data
        self._stream.write(self._decoder.decode(bytes(view)))
        return len(view)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Never: a wrapper that is thrown away closes what it wraps."""


def write_lines_at_once() -> None:
    """What is printed past sys.stdout, by Python's first one and by C's, is in the pipe with its line's end.

    Both keep kilobytes back where they write into a pipe.
    """
    for stream in (sys.__stdout__, sys.__stderr__):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    library = ctypes.CDLL(None)
    with contextlib.suppress(ValueError):  # a C library that has no such symbol
        library.setvbuf(ctypes.c_void_p.in_dll(library, "stdout"), None, _LINE_BUFFERED, ctypes.c_size_t(0))


def flush_before_children(buffer: Buffer, timeout: float = 10.0) -> None:
    """Before each start of a child process, send what was printed, for the child prints behind it."""

    def before() -> None:
        if os.getpid() == owner:
            buffer.child_starts(timeout)

    def first(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            before()
            return function(*args, **kwargs)

        return call

    owner = os.getpid()
    os.register_at_fork(before=before, after_in_child=buffer.forget)
    _posixsubprocess.fork_exec = first(_posixsubprocess.fork_exec)
    if hasattr(subprocess, "_fork_exec"):
        subprocess._fork_exec = _posixsubprocess.fork_exec
    os.posix_spawn = first(os.posix_spawn)
    os.posix_spawnp = first(os.posix_spawnp)


def _messages(parts: list[tuple[dict[str, Any], str, list[str]]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(parent, content) of the messages that say it: runs of one parent, cut at STREAM_CHARS."""
    made: list[tuple[dict[str, Any], list[tuple[str, str]]]] = []
    size = STREAM_CHARS
    for parent, name, texts in parts:
        text = "".join(texts)
        while text:
            if size >= STREAM_CHARS or made[-1][0] is not parent:
                made.append((parent, []))
                size = 0
            piece, text = text[: STREAM_CHARS - size], text[STREAM_CHARS - size :]
            made[-1][1].append((name, piece))
            size += len(piece)
    return [
        (parent, {"name": run[0][0], "text": run[0][1]} if len(run) == 1 else {"parts": run}) for parent, run in made
    ]


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except OSError:
        return True
    return True
