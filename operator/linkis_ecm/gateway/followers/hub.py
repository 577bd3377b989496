"""One reader of a task's events for all who follow it: what it reads is written to each of them at once.

A member gets whole batches, as the agent told them: behind each it can go on by itself from the batch's id. Nobody is
waited for. Who does not take a batch at once is no member from then on. Must not open connections, nor know HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum

from linkis_ecm.agent.formats.cursors import Cursor
from linkis_ecm.gateway.answers import Receiver
from linkis_ecm.gateway.followers.lines import Events

# A batch above this is read by each follower for itself, at its own pace and within the byte budget.
BATCH_BYTES = 64 << 10
# Seconds between two batches for each member: a crowd of 200 is told what is new each 0.8 s, and one of 10 as often as
# the agent tells it. So members together get 250 sends a second at most, whatever their number: 16 µs each, nearly half
# of them the system's, and the reader they share costs the gateway as much. After a pause all are told at once.
PAUSE = 0.004
# Batches that wait for a member that is still told what came before, in bytes.
WAITING_BYTES = 64 << 10


class Left(Enum):
    """Why a member gets no more: the task has ended, its receiver did not take a batch, a batch was too big to be
    shared, or the hub's own connection ended."""

    ENDED = "ended"
    SLOW = "slow"
    BIG = "big"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that belong together. `framed`: as one chunk of HTTP's chunked coding."""

    data: bytes
    framed: bytes
    # Its last event's id.
    cursor: Cursor
    is_end: bool

    @classmethod
    def of(cls, data: bytes, cursor: Cursor, *, is_end: bool) -> Batch:
        return cls(data, b"%x\r\n%b\r\n" % (len(data), data), cursor, is_end)


@dataclass(eq=False, slots=True)
class Member:
    """A follower that shares the hub's events behind `begin`. It is an `answers.SharedPart`."""

    begin: Cursor
    # The task's status at `begin`, as an event.
    status: bytes
    # Its last batch's id.
    cursor: Cursor
    _hub: Hub
    _left: asyncio.Future[Left]
    _receiver: Receiver | None = None
    _waiting: list[Batch] = field(default_factory=list)
    _waiting_bytes: int = 0

    @property
    def left(self) -> Left | None:
        """Why it gets no more; None while it is a member."""
        return self._left.result() if self._left.done() else None

    async def receive(self, receiver: Receiver) -> None:
        """Give the receiver what came since it joined, and then each batch as it comes, until it is no member."""
        waiting, self._waiting = self._waiting, []
        for batch in waiting:
            if not self._push(batch, receiver):
                return
        self._receiver = receiver
        try:
            await self._left
        finally:
            self.leave()

    def leave(self, why: Left = Left.CLOSED) -> None:
        """Be no member any more. May be called again."""
        self._receiver = None
        self._hub.members.discard(self)
        if not self._left.done():
            self._left.set_result(why)

    def give(self, batch: Batch) -> None:
        """One more batch."""
        if self._receiver is not None:
            self._push(batch, self._receiver)
        elif self._waiting_bytes + len(batch.data) > WAITING_BYTES:
            self.leave(Left.SLOW)
        else:
            self._waiting.append(batch)
            self._waiting_bytes += len(batch.data)

    def _push(self, batch: Batch, receiver: Receiver) -> bool:
        if not receiver.push(batch.data, batch.framed):
            self.leave(Left.SLOW)
            return False
        self.cursor = batch.cursor
        if batch.is_end:
            self.leave(Left.ENDED)
        return True


class Hub:
    """The members of one task. `begin` is where the events that it is given begin, `status` the task's status then."""

    def __init__(self, begin: Cursor, status: bytes, *, pause: float = PAUSE) -> None:
        self.members: set[Member] = set()
        self.cursor = begin
        self.closed = False
        self._status = status
        # A batch is being read: who joins now would miss its beginning.
        self._within = False
        self._moved = asyncio.Event()
        self._pause = pause
        # Whole batches that the members are told together, as soon as their pause is over.
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._pause_ends = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def join(self, cursor: Cursor, seconds: float) -> Member | None:
        """A member as soon as the hub is at `cursor` or behind it; None where that takes longer than `seconds`, or the
        hub ends."""
        try:
            async with asyncio.timeout(seconds):
                while not self.closed and (self._within or not self.cursor.reaches(cursor)):
                    await self._moved.wait()
        except TimeoutError:
            return None
        return None if self.closed else self.join_now()

    def join_now(self) -> Member:
        """A member from where the hub is, which must not be within a batch."""
        self._flush()
        left: asyncio.Future[Left] = asyncio.get_running_loop().create_future()
        member = Member(self.cursor, self._status, self.cursor, self, left)
        self.members.add(member)
        return member

    async def read(self, found: AsyncIterator[Events], *, is_wanted: Callable[[], bool]) -> bytes | None:
        """Give the members what comes, until the task ends, and then the agent's line of its end; None where nobody
        wants more, or the source ends early. Raises what `found` raises."""
        parts: list[bytes] = []
        size = 0
        async for events in found:
            if not is_wanted():
                return None
            self._status = events.status or self._status
            size += len(events.data)
            if size <= BATCH_BYTES:
                parts.append(events.data)
            else:
                parts.clear()
            whole = events.cursor is not None or (events.is_remark and not self._within)
            if size > BATCH_BYTES:
                self._drop(Left.BIG)
                self.cursor = events.cursor or self.cursor
            elif whole:
                self._offer(b"".join(parts), events.cursor or self.cursor, is_end=events.end is not None)
            self._within = not whole
            if whole:
                parts.clear()
                size = 0
                self._moved.set()
                self._moved = asyncio.Event()
            if events.end is not None:
                return events.end
            del events
        return None

    def close(self) -> None:
        """No more comes. May be called again."""
        self.closed = True
        self._drop(Left.CLOSED)
        self._moved.set()

    def _offer(self, data: bytes, cursor: Cursor, *, is_end: bool) -> None:
        """A whole batch, for the members: at once, or with the next ones at the end of their pause."""
        if self._pending_bytes + len(data) > BATCH_BYTES:
            self._flush()
        self._pending.append(data)
        self._pending_bytes += len(data)
        self.cursor = cursor
        loop = asyncio.get_running_loop()
        if is_end or loop.time() >= self._pause_ends:
            self._flush(is_end=is_end)
        elif self._timer is None:
            self._timer = loop.call_at(self._pause_ends, self._flush)

    def _flush(self, *, is_end: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        batch = Batch.of(b"".join(self._pending), self.cursor, is_end=is_end)
        self._pending.clear()
        self._pending_bytes = 0
        self._pause_ends = asyncio.get_running_loop().time() + self._pause * len(self.members)
        for member in tuple(self.members):
            member.give(batch)

    def _drop(self, why: Left) -> None:
        self._flush()
        for member in tuple(self.members):
            member.leave(why)
