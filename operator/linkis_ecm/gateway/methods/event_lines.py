"""Makes server-sent events of an agent's lines, with bounded memory. Must not know tasks or engines.

The agent is its user's, and so may be the client that does not read: a line of up to 64 KiB is held as it comes, a
longer one only within the byte budget, one over MAX_EVENT_BYTES is thrown away as it comes.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack

import orjson

from linkis_ecm.gateway.http.budget import SMALL, ByteBudget
from linkis_ecm.process import exact_json

# A line of the agent's events is one output, of 16 million characters at most. What is longer is left out of the
# stream: getResultSet has it when the task has ended.
MAX_EVENT_BYTES = 20 << 20
# Longer lines are passed on as they are: as objects they would take several times their size.
PARSED_BYTES = 1 << 20
# As the agent's bytes, as a line, and as an event.
COPIES = 3
# Seconds from the first 64 KiB of a long line to its end: an agent in the same cluster sends 20 MiB in less than one.
# So long a slow agent keeps other followers' long lines waiting, not more.
LINE_SECONDS = 30.0

_KEEP_ALIVE = b": here\n\n"
_TOO_LONG = b": an output of more than %d MiB is left out: read it with getResultSet when the task has ended\n\n"
_BEGIN = re.compile(rb'\{"event": ?"([a-z]{1,20})"(?:, ?"id": ?"([0-9.]{1,64})")?')
_END = re.compile(rb'"id": ?"([0-9.]{1,64})"\}\s*$')
# The longest end that _END looks for.
_TAIL = 100


class EventBudget:
    """Where followers reserve memory for long lines: a part of its own, so that they never take everybody's."""

    def __init__(self, whole: ByteBudget, part: ByteBudget) -> None:
        self._whole = whole
        self._part = part

    async def hold(self, held: AsyncExitStack, size: int) -> Callable[[int], None]:
        """Reserve so many bytes until `held` is closed; returns the function that reduces them."""
        shrink_part = await held.enter_async_context(self._part.hold(size))
        shrink_whole = await held.enter_async_context(self._whole.hold(size))

        def shrink(left: int) -> None:
            shrink_whole(left)
            shrink_part(left)

        return shrink


async def events_of(
    pieces: AsyncIterator[bytes], budget: EventBudget, clock: Callable[[], float]
) -> AsyncGenerator[tuple[bytes, bytes | None]]:
    """The events of the lines in `pieces`, as bytes to send, and the line of the last event, `end`, if it is there.

    Raises ConnectionResetError where a long line does not end in time.
    """
    left = bytearray()
    # The rest of a line that is thrown away comes until its end.
    skipping = False
    async with AsyncExitStack() as held:
        deadline = 0.0
        shrink: Callable[[int], None] | None = None
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
            if cut >= 0:
                lines = bytes(memoryview(left)[:cut]).split(b"\n")
                del left[: cut + 1]
                size = COPIES * sum(map(len, lines))
                async with AsyncExitStack() as own:
                    if shrink is None:
                        await budget.hold(own, size)
                    else:
                        shrink(size)
                        own.push_async_exit(held.pop_all())
                        shrink = None
                    end = next((line for line in lines if _name(line) == b"end"), None)
                    yield b"".join(_event(line) for line in lines), end
                del lines, end
            if len(left) > MAX_EVENT_BYTES:
                left.clear()
                skipping = True
                if shrink is not None:
                    await held.pop_all().aclose()
                    shrink = None
                yield _TOO_LONG % (MAX_EVENT_BYTES >> 20), None
            elif len(left) > SMALL and shrink is None:
                shrink = await budget.hold(held, COPIES * MAX_EVENT_BYTES)
                deadline = clock() + LINE_SECONDS
            elif shrink is not None and clock() > deadline:
                raise ConnectionResetError("a line of the agent's does not end")


def _name(line: bytes) -> bytes:
    found = _BEGIN.match(line)
    return found.group(1) if found is not None else b""


def _event(line: bytes) -> bytes:
    """One server-sent event; a blank line of the agent's is a comment that keeps the connection open."""
    if not line.strip():
        return _KEEP_ALIVE
    if len(line) > PARSED_BYTES:
        return _as_it_is(line)
    try:
        reported = exact_json.loads(line)
    except orjson.JSONDecodeError:
        return _KEEP_ALIVE
    if not isinstance(reported, dict):
        return _KEEP_ALIVE
    name = str(reported.get("event", ""))
    cursor = reported.get("id")
    head = f"id: {cursor}\n" if isinstance(cursor, str) and cursor.replace(".", "").isdigit() else ""
    if not (name.isascii() and name.isalpha()):
        return _KEEP_ALIVE
    try:
        return f"{head}event: {name}\ndata: ".encode() + orjson.dumps(reported) + b"\n\n"
    except TypeError:  # more levels than orjson writes: it reads more
        return _KEEP_ALIVE


def _as_it_is(line: bytes) -> bytes:
    """A long line as an event, without its objects: an agent's has its name first and its id last."""
    begin = _BEGIN.match(line)
    # A carriage return would end the event's line.
    if begin is None or b"\r" in line:
        return _KEEP_ALIVE
    end = _END.search(line, max(0, len(line) - _TAIL))
    cursor = begin.group(2) or (end.group(1) if end is not None else None)
    head = b"id: %s\n" % cursor if cursor is not None else b""
    return b"%sevent: %s\ndata: %s\n\n" % (head, begin.group(1), line)
