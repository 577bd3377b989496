"""Makes server-sent events of an agent's lines, with bounded memory. Must not know tasks or engines.

The agent is its user's, and so may be the client that does not read: a line of up to 64 KiB is held as it comes, a
longer one only within the byte budget, one over MAX_EVENT_BYTES is thrown away as it comes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from linkis_ecm.agent.formats.cursors import Cursor
from linkis_ecm.gateway.followers.pace import BLANKS_PER_LINE, PIECE_LINES, LinePace
from linkis_ecm.gateway.followers.places import Crowd, Sending
from linkis_ecm.gateway.http.budget import SMALL, ByteBudget, ByteQuota, ByteShares
from linkis_ecm.process import exact_json

# A line of the agent's events is one output, of 16 million characters at most. What is longer is left out of the
# stream: getResultSet has it when the task has ended.
MAX_EVENT_BYTES = 20 << 20
# Longer lines are passed on as they are: as objects they would take several times their size.
PARSED_BYTES = 1 << 20
# Shorter ones go before longer ones of their user that wait for room: a quick tab does not wait for slow ones.
QUEUED_BYTES = 1 << 20
# As the agent's bytes, as a line, and as an event.
COPIES = 3
# A line while it comes, with what its buffer may have in reserve. Its copies at its end are made one line at a time.
LINE_BYTES = MAX_EVENT_BYTES * 9 // 8
# From its first 64 KiB on a long line may take so many seconds, and one more for so many bytes that have come: an agent
# in the same cluster sends 20 MiB in less than one.
LINE_SECONDS = 5.0
LINE_BYTES_PER_SECOND = 1 << 20
# Whose agent was too slow for that: seconds until the next long line of his agents is begun.
PAUSE_SECONDS = 10.0

KEEP_ALIVE = b": here\n\n"
_TOO_LONG = b": an output of more than %d MiB is left out: read it with getResultSet when the task has ended\n\n"
_BEGIN = re.compile(rb'\{"event": ?"([a-z]{1,20})"(?:, ?"id": ?"([0-9.]{1,64})")?')
_END = re.compile(rb'"id": ?"([0-9.]{1,64})"\}\s*$')
# The longest end that _END looks for.
_TAIL = 100
# Lines that are made events in one turn, which takes 1 ms at most where they are short; then others have theirs.
TURN_LINES = 200
# More than one line's end with nothing between.
_BLANK_LINES = re.compile(rb"\n[ \t\r\n]*\n")


class Events(NamedTuple):
    """Some of a stream's events."""

    # As bytes to send.
    data: bytes
    # The line of the last event, `end`, if it is among them.
    end: bytes | None = None
    # The id of the last one, from which a follower can go on. The agent gives one to the last of those that belong
    # together, so without it more of these come.
    cursor: Cursor | None = None
    # Nothing but remarks that keep a connection open: they say nothing about what comes.
    is_remark: bool = False
    # The last `status` event among them, without its id; empty if there is none.
    status: bytes = b""
    # There is one among them that is neither a remark nor a `status`, which may be told twice.
    tells: bool = False


class NoRoomError(ConnectionResetError):
    """A long event cannot be sent now: too many of its user's are being sent to clients that read. It was dropped:
    wait for `size` bytes and read it again."""

    def __init__(self, size: int) -> None:
        super().__init__("too many long events are being sent to clients that read slowly")
        self.size = size


class EventBudget:
    """Where followers reserve memory for long lines: a part of its own, so that they never take everybody's.

    A line has that part while it comes, which an agent cannot draw out. While it is sent, for as long as its client
    takes, it counts in the quota of its `user`: a client that reads slowly keeps nobody else's lines waiting, and gives
    way where it takes nothing and the same user's next one needs the room. Where all of them take something, the next
    one waits for its turn without memory (`wait_for_room`): to cut one would only bring it back for the same again.
    """

    def __init__(self, whole: ByteBudget, part: ByteBudget, sent: ByteQuota) -> None:
        self._whole = whole
        self._part = part
        self._sent = sent
        self._user = ""
        # Whose agent it is, who answers for what comes; not always who follows.
        self._owner = ""
        self._sending = Sending()
        self._pace = LinePace()
        # One long line of an owner's agents comes at a time.
        self._shares = ByteShares(LINE_BYTES)
        self._paused_until: dict[str, float] = {}
        # Of the quota, what this follower has waited for and not used yet.
        self._kept = 0
        # Whose long lines are being sent or waited for, by user.
        self._crowds: dict[str, Crowd] = {}

    def of(self, user: str, sending: Sending, *, owner: str = "") -> EventBudget:
        """The same for another user's follower; `owner` is whose agent it follows, where that is not his."""
        found = copy(self)
        found._user, found._sending, found._owner = user, sending, owner or user
        return found

    def shared(self, owner: str) -> EventBudget:
        """The same for a reader that followers share, of an agent of the owner's."""
        found = copy(self)
        found._owner = owner
        return found

    async def take_lines(self, lines: float) -> None:
        """So many lines come; waits while the agents of their owner send too many."""
        await self._pace.take(self._owner, lines)

    async def hold(self, held: AsyncExitStack, size: int) -> Reservation:
        """Reserve so many bytes, for lines that have come, until `held` is closed."""
        return Reservation((), await held.enter_async_context(self._whole.hold(size)))

    async def hold_coming(self, held: AsyncExitStack) -> Reservation:
        """Reserve what a long line may take that comes, until `held` is closed. It waits for others of the same owner,
        and for the part; other owners' lines have room in that, whatever one owner's agents do."""
        shrink_share = await held.enter_async_context(self._shares.hold(self._owner, LINE_BYTES))
        now = asyncio.get_running_loop().time()
        if (paused_until := self._paused_until.get(self._owner, now)) > now:
            await asyncio.sleep(paused_until - now)
        self._paused_until.pop(self._owner, None)
        shrink_part = await held.enter_async_context(self._part.hold(LINE_BYTES))
        shrink_whole = await held.enter_async_context(self._whole.hold(LINE_BYTES))
        return Reservation((shrink_share, shrink_part), shrink_whole)

    def pause(self) -> None:
        """An agent of the owner's was too slow with a long line."""
        self._paused_until[self._owner] = asyncio.get_running_loop().time() + PAUSE_SECONDS

    async def hold_sent(self, held: AsyncExitStack, size: int, reservation: Reservation) -> None:
        """Only so many bytes are held from now on, to be sent, until `held` is closed. Raises NoRoomError, and
        TimeoutError where one that was broken off does not leave."""
        if size > SMALL:
            crowd = self._crowds.get(self._user)
            if size > QUEUED_BYTES and not self._kept and crowd is not None and crowd.waiting:
                raise NoRoomError(size)
            self.give_up_room()
            while not self._sent.take(self._user, size):
                crowd = self._crowds.get(self._user)
                if crowd is None or not crowd.break_off_slowest():
                    raise NoRoomError(size)
                await crowd.until_one_has_left()
            held.callback(self._sent.give_back, self._user, size)
            crowd = held.enter_context(self._crowd())
            held.enter_context(crowd.holds(self._sending))
        reservation.shrink_parts(0)
        reservation.shrink_whole(size)

    async def wait_for_room(self, size: int) -> None:
        """Wait, with no memory held, until so many bytes may be sent, and keep them for the next `hold_sent`. Raises
        TimeoutError, and ConnectionResetError where there are never so many."""
        if not self._sent.can_take(size):
            raise ConnectionResetError("an event is longer than what may be sent to one user")
        with self._crowd() as crowd:
            await crowd.take_in_turn(lambda: self._keep(size))

    def _keep(self, size: int) -> bool:
        if not self._sent.take(self._user, size):
            return False
        self._kept += size
        return True

    def give_up_room(self) -> None:
        """Keep nothing any more of what was waited for. May be called again."""
        if self._kept:
            self._sent.give_back(self._user, self._kept)
            self._kept = 0

    @contextmanager
    def _crowd(self) -> Iterator[Crowd]:
        crowd = self._crowds.setdefault(self._user, Crowd())
        try:
            yield crowd
        finally:
            if not crowd and self._crowds.get(self._user) is crowd:
                del self._crowds[self._user]


@dataclass(frozen=True, slots=True)
class Reservation:
    """Bytes that are reserved for a line: functions that reduce them."""

    # Of what only lines have that come.
    _shrink_parts: tuple[Callable[[int], None], ...]
    shrink_whole: Callable[[int], None]

    def shrink_parts(self, left: int) -> None:
        for shrink in self._shrink_parts:
            shrink(left)

    def shrink(self, left: int) -> None:
        self.shrink_whole(left)
        self.shrink_parts(left)


async def events_of(
    pieces: AsyncIterator[bytes], budget: EventBudget, clock: Callable[[], float]
) -> AsyncGenerator[Events]:
    """The events of the lines in `pieces`. Raises ConnectionResetError where a long line does not end in time."""
    left = bytearray()
    # The rest of a line that is thrown away comes until its end.
    skipping = False
    async with AsyncExitStack() as held:
        deadline = 0.0
        reserved: Reservation | None = None
        async for piece in pieces:
            # Only the new part is searched: a search of the whole for each piece would be quadratic.
            cut = piece.rfind(b"\n")
            if skipping:
                first = piece.find(b"\n")
                if first < 0:
                    continue
                skipping = False
                left += piece[first + 1 :]
                cut = cut - first - 1
            else:
                cut = cut + len(left) if cut >= 0 else -1
                left += piece
            del piece
            await budget.take_lines(PIECE_LINES)
            if cut >= 0:
                whole = bytes(memoryview(left)[: cut + 1])
                del left[: cut + 1]
                turns = _turns(whole, budget)
                del whole
                async for lines in turns:
                    size = COPIES * sum(map(len, lines))
                    async with AsyncExitStack() as own:
                        if reserved is None:
                            reserved = await budget.hold(own, size)
                        else:
                            reserved.shrink(size)
                            own.push_async_exit(held.pop_all())
                        events = _events(lines)
                        lines.clear()
                        await budget.hold_sent(own, len(events.data), reserved)
                        reserved = None
                        yield events
                        del events
            if len(left) > MAX_EVENT_BYTES:
                left.clear()
                skipping = True
                if reserved is not None:
                    await held.pop_all().aclose()
                    reserved = None
                yield Events(_TOO_LONG % (MAX_EVENT_BYTES >> 20))
            elif len(left) > SMALL and reserved is None:
                reserved = await budget.hold_coming(held)
                deadline = clock() + LINE_SECONDS
            elif reserved is not None and clock() > deadline + len(left) / LINE_BYTES_PER_SECOND:
                budget.pause()
                raise ConnectionResetError("a line of the agent's does not end")


async def _turns(whole: bytes, budget: EventBudget) -> AsyncGenerator[list[bytes]]:
    """The lines of `whole`, some at a time, as fast as their owner may send them."""
    came = len(whole)
    whole = _BLANK_LINES.sub(b"\n", whole)
    await budget.take_lines((came - len(whole)) / BLANKS_PER_LINE)
    while whole:
        *lines, whole = whole.split(b"\n", TURN_LINES)
        await budget.take_lines(len(lines))
        yield lines
        if whole:
            await asyncio.sleep(0)


def _events(lines: list[bytes]) -> Events:
    data, status, cursor, is_remark, tells = [], b"", "", True, False
    end = next((line for line in lines if _name(line) == b"end"), None)
    for line in lines:
        event = _event(line)
        if event.data is KEEP_ALIVE:
            continue
        data.append(event.data)
        status = event.status or status
        cursor, is_remark = event.cursor, False
        tells = tells or not event.status
    # One remark is enough, and none where there are events.
    return Events(b"".join(data or [KEEP_ALIVE]), end, _place(cursor), is_remark, status, tells)


def _place(cursor: str) -> Cursor | None:
    try:
        return Cursor.parse(cursor)
    except ValueError:
        return None


def _name(line: bytes) -> bytes:
    found = _BEGIN.match(line)
    return found.group(1) if found is not None else b""


class _Event(NamedTuple):
    data: bytes
    cursor: str = ""
    status: bytes = b""


def _event(line: bytes) -> _Event:
    """One server-sent event; a blank line of the agent's is a comment that keeps the connection open."""
    if not line.strip():
        return _Event(KEEP_ALIVE)
    if len(line) > PARSED_BYTES:
        return _as_it_is(line)
    try:
        reported = exact_json.loads(line)
    except orjson.JSONDecodeError:
        return _Event(KEEP_ALIVE)
    if not isinstance(reported, dict):
        return _Event(KEEP_ALIVE)
    name = str(reported.get("event", ""))
    cursor = reported.get("id")
    known = isinstance(cursor, str) and cursor.isascii() and cursor.replace(".", "").isdigit()
    if not (name.isascii() and name.isalpha()):
        return _Event(KEEP_ALIVE)
    try:
        data = _sent(name, reported, f"id: {cursor}\n" if known else "")
    except TypeError:  # more levels than orjson writes: it reads more
        return _Event(KEEP_ALIVE)
    status = b""
    if name == "status" and len(line) <= SMALL:
        status = _sent(name, {key: value for key, value in reported.items() if key != "id"}) if known else data
    return _Event(data, str(cursor) if known else "", status)


def _sent(name: str, reported: dict[str, Any], head: str = "") -> bytes:
    return f"{head}event: {name}\ndata: ".encode() + orjson.dumps(reported) + b"\n\n"


def _as_it_is(line: bytes) -> _Event:
    """A long line as an event, without its objects: an agent's has its name first and its id last."""
    begin = _BEGIN.match(line)
    # A carriage return would end the event's line.
    if begin is None or b"\r" in line:
        return _Event(KEEP_ALIVE)
    end = _END.search(line, max(0, len(line) - _TAIL))
    cursor = begin.group(2) or (end.group(1) if end is not None else None)
    head = b"id: %s\n" % cursor if cursor is not None else b""
    return _Event(b"%sevent: %s\ndata: %s\n\n" % (head, begin.group(1), line), (cursor or b"").decode())
