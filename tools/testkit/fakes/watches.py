"""The watches of the fake API server: its history, who follows it, and what can go wrong with them.

Each watch is an async iterator of JSON lines, as a real one is. All time is the event loop's, so it may be virtual.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from linkis_ecm.kube.resources import Resource
from tools.testkit.fakes.rules import Matches, Object, StatusError


@dataclass(frozen=True, slots=True)
class Change:
    """One write: the object before (None: created) and after; a deleted one has its last form in `new`."""

    version: int
    resource: Resource
    old: Object | None
    new: Object
    deleted: bool = False

    def seen_by(self, matches: Matches) -> str | None:
        """The event's type for one watch: an object that leaves its selection is DELETED for it, and the reverse."""
        before = self.old is not None and matches(self.old)
        after = not self.deleted and matches(self.new)
        if after:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else None


def line(kind: str, item: Object) -> bytes:
    return orjson.dumps({"type": kind, "object": item}) + b"\n"


class FakeWatch:
    """One open watch: an async iterator of chunks."""

    def __init__(self, hub: WatchHub, resource: Resource, matches: Matches, *, seconds: float, bookmarks: bool) -> None:
        loop = asyncio.get_running_loop()
        self.resource = resource
        self._hub = hub
        self._matches = matches
        self._deadline = loop.time() + seconds
        self._bookmarks = bookmarks
        self._next_bookmark = loop.time() + hub.bookmark_period
        self._ready: deque[bytes | Exception | None] = deque()
        self._wake = asyncio.Event()
        self.silent = False
        self.lossy = False

    def offer(self, change: Change) -> None:
        kind = change.seen_by(self._matches)
        if kind is None or self.silent or self.lossy:
            return
        for data in self._hub.shuffled(self.resource, line(kind, change.new)):
            self.push(data)

    def push(self, data: bytes | Exception | None) -> None:
        """A chunk; an exception breaks the stream, None ends it."""
        self._ready.append(data)
        self._wake.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        try:
            while True:
                while self._ready:
                    data = self._ready.popleft()
                    if data is None:
                        return
                    if isinstance(data, Exception):
                        raise data
                    yield data
                self._wake.clear()
                try:
                    async with asyncio.timeout_at(self._due()):
                        await self._wake.wait()
                except TimeoutError:
                    # A hair early is there, too: virtual time is rounded.
                    if loop.time() >= self._deadline - 1e-3:
                        return
                    self._next_bookmark += self._hub.bookmark_period
                    if not self.silent:
                        self.push(self._hub.bookmark(self.resource))
        finally:
            self._hub.closed(self)

    def _due(self) -> float | None:
        if self.silent:
            return None
        return min(self._deadline, self._next_bookmark) if self._bookmarks else self._deadline


class WatchHub:
    """All watches and the history that a new one starts from."""

    def __init__(self, *, history: int, bookmark_period: float) -> None:
        self.bookmark_period = bookmark_period
        self.version = 0
        self._history: deque[Change] = deque(maxlen=history)
        # The newest version that is no longer in the history: a watch must start here or later.
        self._compacted = 0
        self._open: set[FakeWatch] = set()
        self._lossy: set[Resource] = set()
        self._repeat: dict[Resource, int] = {}
        self._held: dict[Resource, bytes | None] = {}

    def publish(self, change: Change) -> None:
        self.version = change.version
        if self._history.maxlen is not None and len(self._history) == self._history.maxlen:
            self._compacted = self._history[0].version
        self._history.append(change)
        for watch in list(self._open):
            if watch.resource == change.resource:
                watch.offer(change)

    def open(
        self,
        resource: Resource,
        matches: Matches,
        *,
        resource_version: str,
        seconds: float,
        bookmarks: bool,
        current: Iterable[Object] = (),
    ) -> FakeWatch:
        """A watch after that version; without one (or "0"), first all that is there now."""
        watch = FakeWatch(self, resource, matches, seconds=seconds, bookmarks=bookmarks)
        watch.lossy = resource in self._lossy
        if resource_version in ("", "0"):
            for item in current:
                watch.push(line("ADDED", item))
        else:
            start = int(resource_version)
            if start < self._compacted:
                # As the real server's watch cache: a success whose first event is the refusal.
                watch.push(line("ERROR", self.too_old(start).body()))
                watch.push(None)
            for change in self._history:
                if change.version > start and change.resource == resource:
                    watch.offer(change)
        self._open.add(watch)
        return watch

    def too_old(self, version: int) -> StatusError:
        return StatusError(410, "Expired", f"too old resource version: {version} ({self._compacted})")

    def closed(self, watch: FakeWatch) -> None:
        self._open.discard(watch)

    def bookmark(self, resource: Resource) -> bytes:
        metadata = {"resourceVersion": str(self.version)}
        item = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        return line("BOOKMARK", item)

    # What can go wrong

    def opened(self, resource: Resource | None = None) -> list[FakeWatch]:
        """The watches that are open now."""
        return [watch for watch in self._open if resource in (None, watch.resource)]

    def compact(self) -> None:
        """Forgets the history: whoever comes back with an older version gets 410."""
        self._history.clear()
        self._compacted = self.version

    def end(self, resource: Resource | None = None) -> None:
        """Ends the open watches in good order, as the server does when their time is up."""
        self._each(resource, None)

    def cut(self, resource: Resource | None = None, *, within_event: bool = False) -> None:
        """Breaks the open watches' connections, at will within an event."""
        for watch in self.opened(resource):
            if within_event:
                watch.push(b'{"type":"MODIFIED","object":{"kind":')
            watch.push(ConnectionResetError("the watch was cut"))

    def expire(self, resource: Resource | None = None) -> None:
        """Compacts, and sends the open watches an ERROR event with 410."""
        self.compact()
        for watch in self.opened(resource):
            watch.push(line("ERROR", self.too_old(1).body()))
            watch.push(None)

    def error(self, resource: Resource | None, code: int, reason: str) -> None:
        """Sends an ERROR event other than 410, then ends."""
        for watch in self.opened(resource):
            watch.push(line("ERROR", StatusError(code, reason, reason).body()))
            watch.push(None)

    def silence(self, resource: Resource | None = None) -> None:
        """The open watches stay open and send nothing more: neither event nor bookmark nor end."""
        for watch in self.opened(resource):
            watch.silent = True

    def lose(self, resource: Resource) -> None:
        """Events of this resource are lost, bookmarks are not, also for new watches, until it is listed again."""
        self._lossy.add(resource)
        for watch in self.opened(resource):
            watch.lossy = True

    def listed(self, resource: Resource) -> None:
        self._lossy.discard(resource)

    def repeat(self, resource: Resource, count: int = 1) -> None:
        """The next `count` events of this resource come twice."""
        self._repeat[resource] = count

    def reorder(self, resource: Resource) -> None:
        """The next event of this resource comes after the one that follows it."""
        self._held[resource] = None

    def shuffled(self, resource: Resource, data: bytes) -> list[bytes]:
        """What to send in place of one event. Meant for one open watch per resource, as `repeat` and `reorder` are."""
        if resource in self._held:
            held = self._held[resource]
            if held is None:
                self._held[resource] = data
                return []
            del self._held[resource]
            return [data, held]
        if self._repeat.get(resource):
            self._repeat[resource] -= 1
            return [data, data]
        return [data]

    def _each(self, resource: Resource | None, data: Any) -> None:
        for watch in self.opened(resource):
            watch.push(data)
