"""A kernel's two raw pipes: bytes in their order against the kernel's messages, and characters that are never torn.

Where the pipes are not empty, the kernel sends a mark (`formats.marks`) ahead of its next message. Messages from before
come without one, and later than the bytes where the kernel's socket is slow: so bytes wait for the messages that had
been sent when the bytes were seen, by their numbers (`formats.journal`). Must not know the kernel's protocol: it is
told the numbers, and hands on bytes and texts.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import select
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from linkis_ecm.agent.formats.marks import LENGTH, number_of, unread

READ_BYTES = 256 << 10
# A pipe that has something to read is read so much later: who prints line by line wakes the agent 200 times a second at
# most. The pipe holds 1 MiB meanwhile. What a kernel without numbers has sent before is mostly here by then, too.
DELAY = 0.005
# How long bytes wait for a number, from the last message on: it is on its way, but in a kernel that was stopped.
HELD_SECONDS = 1.0
# And while messages come that are other ones: big displays on their way take seconds.
HELD_LONGEST = 10.0
# And how many. A child may write 50 MB/s, and the user's process may name a number that never comes.
HELD_BYTES = 16 << 20
# What one item counts in that beside its bytes: 16,000 marks without bytes are passed on in some 10 ms.
_ITEM_BYTES = 1 << 10
# Reads of one pipe in one go; a pipe holds four times READ_BYTES.
_READS = 8


@dataclass(slots=True, eq=False)
class _Item:
    """Bytes that come behind the kernel's message with that number; without bytes, the mark with that number."""

    data: bytes
    number: int
    since: float


class _Pipe:
    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.behind = 0  # the message that the kernel had sent last when what is read now was in the pipe
        self.ended = False
        self.rest = b""  # what may be the beginning of a mark
        self.queue: deque[_Item] = deque()
        self.marks: set[int] = set()  # the numbers of those in the queue
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")


class RawPipes:
    """`on_bytes` gets a stream's name, its bytes, and their text; `secret` is what marks begin with, if there are;
    `sent` tells the number of the kernel's last message."""

    def __init__(
        self,
        descriptors: dict[str, int],
        on_bytes: Callable[[str, bytes, str], None],
        secret: bytes = b"",
        sent: Callable[[], int] = lambda: 0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_bytes = on_bytes
        self._secret = secret
        self._sent = sent
        self._handled = 0
        self._progress = 0.0  # when that number has grown last
        self._given_up = 0  # a message that was waited for in vain
        self._queued = 0  # what is in all queues, in bytes
        self._pipes = {name: _Pipe(descriptor) for name, descriptor in descriptors.items()}
        self._marked = 0
        self._held: asyncio.TimerHandle | None = None
        for name, pipe in self._pipes.items():
            self._loop.add_reader(pipe.descriptor, self._on_readable, name)

    def handled(self, number: int) -> None:
        """The kernel's messages up to this one were handled."""
        if number > self._handled:
            self._handled, self._progress = number, self._loop.time()
        if self._held is not None:
            self._pass_on()

    def marked(self, number: int) -> None:
        """The message with this mark's number has come: what stands before the mark in the pipes comes first."""
        if not self._secret:
            return
        for name, pipe in tuple(self._pipes.items()):
            self._read(name, until=number)
            for item in pipe.queue if number in pipe.marks else ():
                if not item.data and item.number >= number:
                    break
                if item.data:
                    item.number = 0  # it waits for nothing that was sent behind the mark
        self._pass_on()
        self._marked = max(self._marked, number)
        self._pass_on()

    def hold(self, seconds: float) -> None:
        """For so long what waits is not given up: the kernel has ended, and its last messages are read next."""
        self._progress = self._loop.time() + seconds

    def drain(self) -> None:
        """Hand on all that the pipes hold by now, at the end of a task: what comes later is another one's.

        So half a character is shown as U+FFFD, and what could be a mark's beginning is none.
        """
        for name, pipe in tuple(self._pipes.items()):
            # No more than that: a child may write as fast as it is read.
            left = unread(pipe.descriptor)
            while left > 0 and (count := self._read(name, reads=1, most=left)):
                left -= count
        self._release()
        for name in tuple(self._pipes):
            self._end_text(name)

    def close(self) -> None:
        """Hand on what waits, and read nothing more."""
        self._release()
        if self._held is not None:
            self._held.cancel()
        for name in tuple(self._pipes):
            self._close(name)

    def _on_readable(self, name: str) -> None:
        self._loop.remove_reader(self._pipes[name].descriptor)
        self._loop.call_later(DELAY, self._read_later, name)

    def _read_later(self, name: str) -> None:
        if name not in self._pipes:
            return
        self._read(name, reads=1)
        self._pass_on()
        if name in self._pipes and not self._pipes[name].ended:
            self._loop.add_reader(self._pipes[name].descriptor, self._on_readable, name)

    def _read(self, name: str, *, until: int = 0, reads: int = _READS, most: int = READ_BYTES) -> int:
        """Queue what one pipe holds, up to a mark if one is named, in reads of `most` bytes; the number of bytes."""
        total = 0
        for _ in range(reads):
            pipe = self._pipes.get(name)
            if pipe is None or pipe.ended or (until and until in pipe.marks):
                return total
            # Bytes that are written behind the question for the number are read later: theirs may be another one.
            ready = unread(pipe.descriptor)
            if not ready and not _has_ended(pipe.descriptor):
                return total
            pipe.behind = self._sent()
            try:
                data = os.read(pipe.descriptor, min(ready, READ_BYTES, most) or 1)
            except BlockingIOError:
                return total
            if not data:
                pipe.ended = True
                self._loop.remove_reader(pipe.descriptor)
                self._pass_on()
                return total
            total += len(data)
            self._queue(pipe, data, is_cut=len(data) < ready)
            if self._queued > HELD_BYTES:
                self._release()
        return total

    def _queue(self, pipe: _Pipe, data: bytes, *, is_cut: bool) -> None:
        """Queue bytes and marks. A mark is written in one go: one that is not whole was cut here, or is none."""
        if not self._secret:
            self._append(pipe, data)
            return
        data, pipe.rest = pipe.rest + data, b""
        at = 0
        while (found := data.find(self._secret, at)) >= 0 and len(data) >= found + LENGTH:
            if found > at:
                self._append(pipe, data[at:found])
            at = found + LENGTH
            self._append(pipe, b"", number_of(data[found:at]))
        end = len(data)
        if is_cut and found >= 0:
            end = found
        elif is_cut:
            part = next((size for size in range(len(self._secret) - 1, 0, -1) if data.endswith(self._secret[:size])), 0)
            end = max(at, end - part)
        pipe.rest = data[end:]
        if end > at:
            self._append(pipe, data[at:end])

    def _append(self, pipe: _Pipe, data: bytes, mark: int = 0) -> None:
        """Queue bytes, or a mark."""
        if not data:
            pipe.marks.add(mark)
        number = mark if not data else 0 if pipe.behind == self._given_up else pipe.behind
        pipe.queue.append(_Item(data, number, self._loop.time()))
        self._queued += len(data) + _ITEM_BYTES

    def _pass_on(self) -> None:
        """Hand on what does not wait for a number."""
        for name, pipe in tuple(self._pipes.items()):
            while pipe.queue:
                head = pipe.queue[0]
                if head.number > (self._handled if head.data else self._marked):
                    break
                pipe.queue.popleft()
                self._queued -= len(head.data) + _ITEM_BYTES
                if head.data:
                    self._on_bytes(name, head.data, pipe.decoder.decode(head.data))
                else:
                    pipe.marks.discard(head.number)
            if pipe.ended and not pipe.queue:
                self._close(name)
        oldest = min((pipe.queue[0].since for pipe in self._pipes.values() if pipe.queue), default=None)
        if oldest is not None and self._held is None:
            self._held = self._loop.call_at(self._waits_until(oldest), self._time_out)
        elif oldest is None and self._held is not None:
            self._held.cancel()
            self._held = None

    def _waits_until(self, since: float) -> float:
        """How long what has waited since then waits at most."""
        return min(max(since, self._progress) + HELD_SECONDS, since + HELD_LONGEST)

    def _time_out(self) -> None:
        """Wait no longer for what the oldest bytes wait for; what came later has its own time."""
        self._held = None
        now, missing = self._loop.time(), [self._given_up]
        for pipe in self._pipes.values():
            count = next((n for n, one in enumerate(pipe.queue) if self._waits_until(one.since) > now), len(pipe.queue))
            missing += [one.number for one in islice(pipe.queue, count) if one.data and one.number > self._handled]
            self._give_up(pipe, count)
        self._given_up = max(missing)
        self._pass_on()

    def _release(self) -> None:
        """Hand on what waits, whatever has not come."""
        for pipe in self._pipes.values():
            self._give_up(pipe, len(pipe.queue))
        self._pass_on()

    def _give_up(self, pipe: _Pipe, count: int) -> None:
        """The first items of a queue wait for nothing."""
        for item in islice(pipe.queue, count):
            if item.data:
                item.number = 0
            else:
                self._marked = max(self._marked, item.number)

    def _close(self, name: str) -> None:
        self._end_text(name)
        pipe = self._pipes.pop(name)
        self._loop.remove_reader(pipe.descriptor)
        os.close(pipe.descriptor)

    def _end_text(self, name: str) -> None:
        """Hand on what waits for its other half."""
        pipe = self._pipes[name]
        rest, pipe.rest = pipe.rest, b""
        text = pipe.decoder.decode(rest, True)
        if rest or text:
            self._on_bytes(name, rest, text)


def _has_ended(descriptor: int) -> bool:
    """Whether a pipe is empty, and nobody has its other end any more."""
    looks = select.poll()
    looks.register(descriptor, select.POLLIN)
    events = [event for _, event in looks.poll(0)]
    return bool(events) and not events[0] & select.POLLIN
