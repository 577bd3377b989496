"""watchEngines: the engines that a caller may use, and each change of them, as server-sent events.

Others' changes must not be seen in it, neither by what is sent nor by when. Must not know of pages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import orjson

from linkis_ecm.api.models import NoRequest
from linkis_ecm.gateway.answers import EVENT_STREAM, Stream
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http.streams import hold_for_stream
from linkis_ecm.gateway.inventory.view import Key

# Changes are collected for so long: an engine that changes ten times in a second is sent once.
COLLECT_SECONDS = 1.0
# A comment after so long without a byte keeps proxies from closing a quiet stream; nginx's limit is 60 s.
QUIET_SECONDS = 15.0
# An event has so many engines at most, and ends with the row that takes it over so many bytes: a row has 6 KiB at most
# (inventory.changes). A page shows the first of them while the others come.
LINES_PER_EVENT, EVENT_BYTES = 200, 32 << 10
# What a stream keeps of each engine that its reader has seen: the place in a set. The keys are the cache's.
KEY_BYTES = 100
COMMENT = b":\n\n"
END = b"event: end\ndata: {}\n\n"


async def watch_engines(call: Call, _: NoRequest) -> Stream:
    """The caller's engines, an admin's everybody's, and then each change of them, as server-sent events. `engines` has
    `rows` (engines that are new or have changed) and `gone` ([namespace, name]); `reset` says that what was sent before
    is void, `live` that all engines have been sent. The stream ends by `end` when the login's rights have changed or
    ended, and when the gateway stops: call again."""
    call.about_user(None if call.caller.sees_others else call.caller.user)
    await hold_for_stream(call.held, call.gateway.budget, KEY_BYTES * len(call.usable_engines()))
    return Stream(content_type=EVENT_STREAM, chunks=_changes(call, time.monotonic), last=lambda _: END)


async def _changes(call: Call, clock: Callable[[], float]) -> AsyncIterator[bytes]:
    engines, changes = call.gateway.engines, call.gateway.changes
    shown: set[Key] = set()
    number, reset = changes.number, True
    keys: Iterable[Key] | None = engines.keys()
    while True:
        if keys is None:
            number, reset = changes.number, True
            keys = engines.keys()
        if reset:
            shown = set()
        for event in _events(_visible(call, keys, shown), reset=reset):
            yield event
            last = clock()
        if reset:
            last = clock()
        reset = False
        keys = ()
        # Comments count from this reader's own last byte: their times tell nothing of others' changes.
        collected = clock() + COLLECT_SECONDS
        while changes.number == number or clock() < collected:
            now = clock()
            if now >= last + QUIET_SECONDS:
                yield COMMENT
                last = clock()
                continue
            until = last + QUIET_SECONDS - now
            if now < collected:
                await asyncio.sleep(min(until, collected - now))
            else:
                await changes.wait(number, until)
        keys, number = changes.since(number), changes.number


def _visible(call: Call, keys: Iterable[Key], shown: set[Key]) -> Iterator[tuple[Key, bytes | None]]:
    """Of the engines that the caller may use the lines, and of those shown before that are gone None, one at a time.
    Changes `shown`."""
    engines, changes = call.gateway.engines, call.gateway.changes
    for key in keys:
        engine = engines.get(key)
        if engine is not None and call.may_use(engine):
            shown.add(key)
            yield key, changes.line(engine)
        elif key in shown:
            shown.remove(key)
            yield key, None


def _events(found: Iterator[tuple[Key, bytes | None]], *, reset: bool) -> Iterator[bytes]:
    """The engines as events, each of which is made when it is asked for. None where nothing is to be said."""
    following = next(found, None)
    if following is None and not reset:
        return
    while True:
        lines, gone, size = list[bytes](), list[Key](), 0
        while following is not None and len(lines) + len(gone) < LINES_PER_EVENT and size < EVENT_BYTES:
            key, line = following
            if line is None:
                gone.append(key)
            else:
                lines.append(line)
            size += len(line or (key[0] + key[1]))
            following = next(found, None)
        yield b"".join(
            (
                b'event: engines\ndata: {"reset":', b"true" if reset else b"false",
                b',"live":', b"true" if following is None else b"false",
                b',"gone":', orjson.dumps(gone), b',"rows":[', b",".join(lines), b"]}\n\n",
            )
        )  # fmt: skip
        if following is None:
            return
        reset = False
