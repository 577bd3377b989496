"""Keeps a local copy of one kind of object by list and watch, and calls one callback for each true change.

True means: the callback gets each object once as ADDED, and once as DELETED even where the watch missed its end; and
events of a watch never go back to an older version. It runs until it is cancelled, whatever the API server does. Must
not decide, write or wait for its callback, which should only note a key.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar

from linkis_ecm.kube.client import KubeClient, Object, WatchEvent
from linkis_ecm.kube.errors import ApiError, Forbidden, Gone, NotFound
from linkis_ecm.kube.resources import Resource
from linkis_ecm.kube.retry import RetryPolicy

T = TypeVar("T")
Key = tuple[str, str]
Kind = Literal["ADDED", "MODIFIED", "DELETED"]

log = logging.getLogger(__name__)

# Seconds. The API server sends a bookmark about once a minute; a connection without one for 70 s is dead.
INACTIVITY = 70.0
# Seconds. So much earlier than INACTIVITY a watch may be found dead.
RESCHEDULE = 1.0
# Seconds after which the server ends a watch; up to a quarter more, so that replicas do not return together.
WATCH_SECONDS = 300
# Seconds. A watch that ends sooner, without an event, is a failure, and the next one waits.
MIN_WATCH_SECONDS = 1.0
# How many uids of deleted objects are remembered: those of a few seconds at the fastest rate of deletions.
TOMBSTONES = 4096
# Between failures: 0.2 s doubling to 5 s. After an outage an engine is not seen for up to the cap.
BACKOFF = RetryPolicy(base=0.2, cap=5.0)
# For a watch whose objects are read where it is not served, as by roles of an earlier release: a line in the log each
# minute is enough.
RARELY = RetryPolicy(base=1.0, cap=60.0)


class Reflector(Generic[T]):
    """List and watch of one resource; `objects` holds what `transform` made of each, by (namespace, name).

    `on_event(kind, object)` gets the transformed object; for DELETED the last one known, or the deleted one where the
    watch showed it. `on_synced` is called once, after the first list. `on_denied` is called where the API server
    refuses list or watch (403, 404: such as of a namespace that is gone), and `on_served` each time that it takes a
    watch. All are plain functions. `clock` is a monotonic clock, the event loop's where none is given.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        *,
        transform: Callable[[Object], T],
        on_event: Callable[[Kind, T], None],
        on_synced: Callable[[], None] | None = None,
        on_denied: Callable[[ApiError], None] | None = None,
        on_served: Callable[[], None] | None = None,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        inactivity: float = INACTIVITY,
        watch_seconds: int = WATCH_SECONDS,
        backoff: RetryPolicy = BACKOFF,
        clock: Callable[[], float] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._metrics = client.metrics
        self._resource = resource
        self._transform = transform
        self._on_event = on_event
        self._on_synced = on_synced
        self._on_denied = on_denied
        self._on_served = on_served
        self._where: dict[str, Any] = {
            "namespace": namespace, "label_selector": label_selector, "field_selector": field_selector,
        }  # fmt: skip
        self._inactivity = inactivity
        self._watch_seconds = watch_seconds
        self._backoff = backoff
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._rng = rng or random.Random()  # noqa: S311 (jitter)
        self._objects: dict[Key, T] = {}
        # uid and resourceVersion of each object.
        self._known: dict[Key, tuple[str, int]] = {}
        self._tombstones: OrderedDict[str, None] = OrderedDict()
        # uids of objects whose newest version cannot be read.
        self._unreadable: dict[Key, str] = {}
        self._listed = 0
        self._resume_version = 0
        self._last_contact = 0.0
        self._failures = 0
        self._silence_timeout: asyncio.Timeout | None = None
        self._relist_wanted = False
        # Whether a list has begun.
        self._listing = False
        self.objects: Mapping[Key, T] = MappingProxyType(self._objects)
        self.synced = asyncio.Event()
        # Set after the first list, or when the API server has refused it: whoever waits for several goes on.
        self.settled = asyncio.Event()
        # The last failure of list or watch, None while all is well: for health pages.
        self.last_error: str | None = None

    @property
    def last_event_age(self) -> float:
        """Seconds since the last list, event or bookmark of the API server; before the first list, since `run`."""
        return self._clock() - self._last_contact

    @property
    def is_current(self) -> bool:
        """Whether `objects` is what the API server has, but for what is on its way: a watch is served, and has sent
        something within the time in which a bookmark comes."""
        return self.synced.is_set() and self.last_error is None and self.last_event_age < self._inactivity

    def request_relist(self) -> None:
        """Request a full list soon, which also removes deleted objects: the periodic resync."""
        self._relist_wanted = True
        if self._silence_timeout is not None and not self._silence_timeout.expired():
            self._silence_timeout.reschedule(asyncio.get_running_loop().time())

    def adopt(self, objects: Mapping[Key, tuple[str, int, T]], version: int) -> None:
        """Take a list that somebody else has made as the first one: uid, resourceVersion and transformed object by key.
        The callback gets none of them. Nothing after the first list, whoever made it, nor while it is being made."""
        if self.synced.is_set() or self._listing:
            return
        self._known = {key: (uid, number) for key, (uid, number, _) in objects.items()}
        self._objects.update((key, made) for key, (_, _, made) in objects.items())
        self._listed = self._resume_version = version
        self._record_synced()

    async def run(self) -> None:
        """List and watch until cancelled."""
        self._last_contact = self._clock()
        with self._metrics.watch_reflector(
            self._resource.plural,
            objects=lambda: len(self._objects),
            age=lambda: self.last_event_age,
            unreadable=lambda: len(self._unreadable),
        ):
            await self._run()

    async def _run(self) -> None:
        listed = self.synced.is_set()
        while True:
            try:
                if not listed or self._relist_wanted:
                    await self._list()
                    listed = True
                cause = await self._watch()
            except Exception as error:
                # 410 Gone, or an unreadable answer. Changes may be missing, so list again.
                listed = listed and isinstance(error, ApiError) and not isinstance(error, Gone)
                await self._failed(error)
                continue
            self._metrics.reflector_watch_ends.labels(self._resource.plural, cause).inc()

    async def _failed(self, error: Exception) -> None:
        self._failures += 1
        self.last_error = str(error) or type(error).__name__
        self._metrics.reflector_watch_ends.labels(self._resource.plural, type(error).__name__).inc()
        if isinstance(error, (Forbidden, NotFound)):
            self.settled.set()
            if self._on_denied is not None:
                self._on_denied(error)
        asked = error.retry_after if isinstance(error, ApiError) else None
        wait = self._backoff.delay(self._failures, rng=self._rng, retry_after=asked)
        # Without a stack trace: an outage of the API server logs one line for each try.
        log.warning("%s: %s; again in %.1f s", self._resource.plural, self.last_error, wait)
        await asyncio.sleep(wait)

    async def _list(self) -> None:
        self._relist_wanted, self._listing = False, True
        version = 0
        present: set[Key] = set()
        # Page by page, because all raw objects together are many times larger than their views.
        async for page in self._client.pages(self._resource, **self._where):
            version = int(page.resource_version)
            for item in page.items:
                # Items of a list carry no kind of their own.
                item.setdefault("kind", self._resource.kind)
                item.setdefault("apiVersion", self._resource.api_version)
                present.add(_key(item))
                self._apply(item)
        self._metrics.reflector_lists.labels(self._resource.plural).inc()
        self._record_contact()
        # What is not in the list is deleted. No comparison of versions is needed: a list is never older than the watch
        # before it, except after a restore from a backup, and then the list is right, too.
        for key in [key for key in (*self._objects, *self._unreadable) if key not in present]:
            self._remove(key)
        self._listed = self._resume_version = version
        if not self.synced.is_set():
            self._record_synced()

    def _record_synced(self) -> None:
        self.synced.set()
        self.settled.set()
        if self._on_synced is not None:
            self._on_synced()

    async def _watch(self) -> str:
        """Follow one watch to its end. Returns the cause of the end, if it is not an error."""
        seconds = round(self._watch_seconds * (1 + 0.25 * self._rng.random()))
        watch = self._client.watch(
            self._resource, resource_version=str(self._resume_version), timeout_seconds=seconds,
            on_accepted=self._accepted, **self._where,
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        started = moved = loop.time()
        any_event = False
        try:
            async with aclosing(watch), asyncio.timeout(self._inactivity) as self._silence_timeout:
                async for event in watch:
                    any_event = True
                    self._failures = 0
                    self._record_contact()
                    self._apply_event(event)
                    if self._relist_wanted:
                        return "relist"
                    # A timer that is set anew for each of many events costs more than the event.
                    if loop.time() > moved + RESCHEDULE:
                        moved = loop.time()
                        self._silence_timeout.reschedule(moved + self._inactivity)
        except TimeoutError:
            if self._relist_wanted:
                return "relist"
            log.warning("%s: the watch was silent for %.0f s, replaced", self._resource.plural, self._inactivity)
            return "silent"
        finally:
            self._silence_timeout = None
        if not any_event and loop.time() - started < MIN_WATCH_SECONDS:
            raise ApiError(0, "WatchEnded", "the watch ended at once")
        self._failures = 0
        return "ended"

    def _accepted(self) -> None:
        # Not the first event: where nothing changes it is a bookmark, after about a minute.
        self.last_error = None
        if self._on_served is not None:
            self._on_served()

    def _record_contact(self) -> None:
        self.last_error = None
        self._last_contact = self._clock()

    def _apply_event(self, event: WatchEvent) -> None:
        version = int(event.object["metadata"]["resourceVersion"])
        if event.type == "BOOKMARK":
            self._resume_version = max(self._resume_version, version)
            return
        self._resume_version = max(self._resume_version, version)
        if self._is_outdated(event.object, version):
            self._metrics.count_event(self._resource.plural, "dropped")
            return
        if event.type == "DELETED":
            self._remove(_key(event.object), event.object)
        else:
            self._apply(event.object)

    def _is_outdated(self, item: Object, version: int) -> bool:
        """Whether the event is older than what we know: a repetition, or a late event."""
        if item["metadata"]["uid"] in self._tombstones:
            return True
        known = self._known.get(_key(item))
        if known is None:
            return version <= self._listed
        return version <= known[1]

    def _apply(self, item: Object) -> None:
        """The object exists in this version."""
        metadata = item["metadata"]
        key, uid, version = _key(item), metadata["uid"], int(metadata["resourceVersion"])
        known = self._known.get(key)
        if known == (uid, version):
            return
        if known is not None and known[0] != uid:
            # The object was deleted and created again between two events. The callback gets both.
            self._remove(key)
            known = None
        try:
            made = self._transform(item)
        except Exception:
            # An unreadable object must not stop the others. It is read again on its next change and list.
            self._metrics.count_event(self._resource.plural, "unreadable")
            if self._unreadable.get(key) != uid:
                log.exception("%s %s: cannot be read, left out", self._resource.plural, key)
            self._unreadable[key] = uid
            return
        self._unreadable.pop(key, None)
        self._known[key] = (uid, version)
        self._objects[key] = made
        self._notify("ADDED" if known is None else "MODIFIED", made)

    def _remove(self, key: Key, last: Object | None = None) -> None:
        """The object is deleted."""
        known = self._known.pop(key, None)
        self._unreadable.pop(key, None)
        if last is not None:
            self._add_tombstone(last["metadata"]["uid"])
        if known is None:
            return
        self._add_tombstone(known[0])
        made = self._objects.pop(key)
        if last is not None and last["metadata"]["uid"] == known[0]:
            try:
                made = self._transform(last)
            except Exception:
                log.exception("%s %s: its last version cannot be read", self._resource.plural, key)
        self._notify("DELETED", made)

    def _add_tombstone(self, uid: str) -> None:
        self._tombstones[uid] = None
        while len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)

    def _notify(self, kind: Kind, made: T) -> None:
        self._metrics.count_event(self._resource.plural, kind.lower())
        try:
            self._on_event(kind, made)
        except Exception:
            log.exception("%s: the listener failed on %s", self._resource.plural, kind)


def _key(item: Object) -> Key:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
