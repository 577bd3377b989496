"""The engine's log folder: what is written to `stdout` and `stderr`, and how every log there is read back.

Each byte goes once to the file and once to the container's stream of the same name. A file write is a copy into the
page cache and is made at once; the container's stream is a pipe to the runtime that may stand still, so a thread with
a bounded backlog feeds it. The files drop their beginnings before the volume is full; logs that others write there are
only read. Must not keep what it wrote but for the last lines of stderr.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

from linkis_ecm.agent.formats.log_pages import WHOLE, Start
from linkis_ecm.agent.formats.names import LOG_NAMES
from linkis_ecm.agent.formats.rewriting import newest_states
from linkis_ecm.agent.logs.bounded_file import STEP, BoundedFile, write_all

TAIL_BYTES = 8 << 10
MIRROR_BYTES = 4 << 20
# How Python's report of a crash in C begins (kernel.main turns it on), and what of its stack is the kernel's own.
_CRASH = "Fatal Python error:"
_KERNELS_OWN = (
    "/IPython/", "/ipykernel/", "/tornado/", "/asyncio/", "/linkis_ecm/agent/", 'File "<string>"', "Extension modules:",
)  # fmt: skip
# Parts between holes of one file: each is a call or two when the file is sent.
PARTS_MAX = 1000
# Files of the folder that are looked at for what they take.
_FILES_MAX = 1000


class OverwrittenError(Exception):
    """What was to be read has been dropped meanwhile."""


class Mirror:
    """Copies bytes to a descriptor that may block, in a thread; what exceeds the backlog is dropped and counted.

    A line that a pipe has room for, or that goes to a file, is written at once: to wake the thread takes ten times as
    long, and it then takes the interpreter from whoever runs a task.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._room: select.poll | None = None
        with suppress(OSError):  # no container's stream at all
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISREG(mode):
                self._room = select.poll()
                self._room.register(descriptor, select.POLLOUT)
        self._backlog: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._closed = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"mirror-{descriptor}", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Take `data` over, or drop it where the stream has stood still for MIRROR_BYTES."""
        with self._wake:
            if self._write_at_once(data):
                return
            if self._bytes + len(data) > MIRROR_BYTES:
                self._dropped += len(data)
                return
            self._backlog.append(data)
            self._bytes += len(data)
            self._wake.notify()

    def _write_at_once(self, data: bytes) -> bool:
        """Whether `data` was written without a wait, and nothing is left for the thread.

        A pipe that can be written to takes PIPE_BUF bytes whole (pipe(7)): who else writes to it could use up the room
        in between, but nobody does, for the kernel has pipes of its own.
        """
        if self._room is None or self._bytes or self._dropped or len(data) > select.PIPE_BUF:
            return False
        events = self._room.poll(0)
        if not events or events[0][1] != select.POLLOUT:
            return False
        with suppress(OSError):  # as in the thread
            os.write(self._descriptor, data)
        return True

    def close(self, timeout: float) -> None:
        """Wait until everything is written, but no longer than `timeout` seconds."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._backlog or self._dropped or self._closed):
                    self._wake.wait()
                if not (self._backlog or self._dropped):
                    return
                data = b"".join(self._backlog)
                self._backlog.clear()
                dropped, self._dropped = self._dropped, 0
            if dropped:
                data += b"\n[%d bytes left out here: the stream stood still; the log file has them]\n" % dropped
            with suppress(OSError):  # nobody reads the container's stream: the file has it all
                write_all(self._descriptor, data)
            with self._wake:
                self._bytes = sum(map(len, self._backlog))


def last_words(lines: list[str], count: int) -> list[str]:
    """The last `count` lines; of a crash a few before it, and the first ones of its report, which say where it was."""
    begin = next((at for at in range(len(lines) - 1, -1, -1) if lines[at].startswith(_CRASH)), None)
    if begin is None:
        return lines[-count:]
    before = lines[:begin][-(count // 4) :]
    report = [line for line in lines[begin:] if line and not any(part in line for part in _KERNELS_OWN)]
    return [*before, *report[: count - len(before)]]


class LogFiles:
    """The two files that the agent writes, and the logs of the folder."""

    def __init__(self, directory: str, *, file_bytes: int, total_bytes: int) -> None:
        self.directory = directory
        self._total = total_bytes
        self._files = {name: BoundedFile(f"{directory}/{name}", keep=file_bytes) for name in ("stdout", "stderr")}
        self._mirrors = {"stdout": Mirror(1), "stderr": Mirror(2)}
        self._at_line_start = {"stdout": True, "stderr": True}
        self._tail = b""
        # Bytes that the kernel has written to stderr.
        self.stderr_bytes = 0

    def write(self, name: str, data: bytes) -> None:
        """Append what the kernel wrote to its stream `name`. A full disk loses log lines, never the engine."""
        if not data:
            return
        # Of a line that rewrites itself, one state of each piece: a progress bar would fill the disk.
        data = newest_states(data)
        self._append(name, data)
        if name == "stderr":
            self._tail = (self._tail + data)[-TAIL_BYTES:]
            self.stderr_bytes += len(data)

    def _append(self, name: str, data: bytes) -> None:
        with suppress(OSError):
            if self._files[name].append(data):
                self._shorten_logs()
        self._mirrors[name].write(data)
        self._at_line_start[name] = data.endswith(b"\n")

    def _shorten_logs(self) -> None:
        """Where the folder's files together are over their bound, the longer of our two gives way."""
        with os.scandir(self.directory) as entries:
            used = sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in islice(entries, _FILES_MAX))
        if used > self._total:
            longer = max(self._files.values(), key=lambda file: file.kept)
            longer.shorten(max(2 * STEP, longer.kept - (used - self._total)))

    def open(self, name: str) -> OpenLog | None:
        """Log `name` as it is now, None where there is none; the caller closes it."""
        descriptor = open_log(self.directory, name)
        return None if descriptor is None else OpenLog(descriptor, self._files.get(name))

    def event(self, level: str, text: str) -> None:
        """Write a line about the engine's own life to stdout, in the pattern of Linkis's log4j."""
        now = datetime.fromtimestamp(time.time(), UTC)
        line = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03d} [{level:<5}] {text}\n"
        self._append_lines("stdout", line)

    def add_to_stderr(self, text: str) -> None:
        """Write lines of the agent's own to stderr, such as a traceback. They are not the kernel's last words."""
        self._append_lines("stderr", text + "\n")

    def _append_lines(self, name: str, text: str) -> None:
        self._append(name, (text if self._at_line_start[name] else "\n" + text).encode(errors="replace"))

    def stderr_tail(self) -> str:
        """The last TAIL_BYTES that the kernel wrote to stderr."""
        return self._tail.decode(errors="replace")

    def last_stderr_lines(self, count: int, since: int = 0) -> list[str]:
        """The end of what stderr got after its first `since` bytes, for telling what a kernel said before it died."""
        new = self.stderr_bytes - since
        lines = self._tail[-new:].decode(errors="replace").splitlines() if new > 0 else []
        return last_words(lines, count)

    def close(self, timeout: float) -> None:
        """Let the container's streams catch up."""
        for mirror in self._mirrors.values():
            mirror.close(timeout)


class OpenLog:
    """A log that is being read: `size` bytes when it was opened, of which those before `start` are not there any more.

    Offsets count from the log's true beginning, as if its holes were not there: user code that sets a file's length to
    a terabyte has written nothing, and no reader is sent a terabyte of zeros.
    """

    def __init__(self, descriptor: int, written: BoundedFile | None) -> None:
        self.descriptor = descriptor
        found = os.fstat(descriptor)
        self.inode, self.size = found.st_ino, found.st_size
        # Not where the user's code has put another file there, or has cut ours.
        mine = written is not None and written.inode == self.inode and written.start.begin <= self.size
        self._written = written if mine else None
        self.start: Start = self._written.start if self._written is not None else WHOLE
        # Parts between holes: where each is shown, where it is in the file, how long it is.
        self._parts: list[tuple[int, int, int]] = []
        self._extend(self.size)
        self.size = self._end

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes there: NULs for what is gone, then the sentence, then the log. Raises Overtaken."""
        start = self.start
        if offset >= start.begin:
            return b"".join(self._pread(*part) for part in self._found(offset, length))
        end = offset + length
        said = start.head[max(0, offset - start.first) : max(0, end - start.first)]
        gone = b"\0" * max(0, min(end, start.first) - offset)
        rest = end - start.begin
        return gone + said + (self.read_at(start.begin, rest) if rest > 0 else b"")

    def parts(self, offset: int, length: int) -> list[tuple[int, int]]:
        """(where in the file, length) of the bytes shown there, `offset` not before `start.begin`."""
        found = []
        for shown, at, size in self._parts:
            skip = max(0, offset - shown)
            take = min(size, offset + length - shown) - skip
            if take > 0:
                found.append((at + skip, take))
        return found

    @property
    def _end(self) -> int:
        """Where the last known part ends, as shown."""
        shown, _, length = self._parts[-1] if self._parts else (self.start.begin, 0, 0)
        return shown + length

    @property
    def was_cut(self) -> bool:
        """Whether the file is shorter than what of it is known: the user's code has set its length."""
        known = self._parts[-1][1] + self._parts[-1][2] if self._parts else self.start.begin
        return os.fstat(self.descriptor).st_size < known

    def _found(self, offset: int, length: int) -> list[tuple[int, int]]:
        """The same; of a file that has grown, with what is new."""
        if offset + length > self._end:
            self._extend(os.fstat(self.descriptor).st_size)
        return self.parts(offset, length)

    def _pread(self, at: int, length: int) -> bytes:
        data = os.pread(self.descriptor, length, at)
        if not self.intact(at):
            raise OverwrittenError
        return data

    def _extend(self, size: int) -> None:
        """Look for parts behind the last known one, in a file of `size` bytes."""
        known, end = len(self._parts), self._end
        offset = self._parts[-1][1] + self._parts[-1][2] if known else self.start.begin
        for begin, length in _data(self.descriptor, offset, size, PARTS_MAX - known + 1):
            if self._parts and begin == offset:
                shown, at, before = self._parts[-1]
                self._parts[-1] = shown, at, before + length
            elif len(self._parts) < PARTS_MAX:
                self._parts.append((end, begin, length))
            end = self._end
            offset = begin + length

    def intact(self, offset: int) -> bool:
        """Whether the file's bytes from `offset` on are still there."""
        return self._written is None or self._written.start.at <= offset

    def kept_parts(self) -> list[tuple[int, int]]:
        """(where in the file, length) of what is on the disk of the bytes from `start.begin` on, in order, PARTS_MAX
        at most."""
        return [(at, length) for _, at, length in self._parts]

    def close(self) -> None:
        os.close(self.descriptor)


def _data(descriptor: int, offset: int, size: int, most: int) -> Iterator[tuple[int, int]]:
    """(where, length) of what is on the disk of a file's bytes from `offset` to `size`, in order, `most` of them."""
    for _ in range(most):
        if offset >= size:
            return
        try:
            begin = os.lseek(descriptor, offset, os.SEEK_DATA)
            end = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no data behind the offset
                raise
            return
        if begin >= end:
            return
        yield begin, end - begin
        offset = end


def open_log(directory: str, name: str) -> int | None:
    """A descriptor of log `name`, None where there is none."""
    return open_file(f"{directory}/{name}") if name in LOG_NAMES else None


def open_file(path: str) -> int | None:
    """A descriptor of a file of the folder, None where there is none.

    The folder is the user's code's to write in: a symbolic link or a FIFO that it put there is not a file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return descriptor
