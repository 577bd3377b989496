"""Reads and watches the admission policies that the chart made, and says it where one is not in force.

That they are in force is known by a reading alone. A watch says that one is not any more, and whether what was read
last is still there: a claim of a warm pool's pod that needs no Secret goes by that, and is not held up by a reading.
Must not judge an engine.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.engine.admission.fields import difference
from linkis_ecm.engine.admission.in_force import InForce, must_be_read, too_young
from linkis_ecm.engine.times import parse_time
from linkis_ecm.engine.view import EngineView
from linkis_ecm.kube.client import ApiError, Forbidden, KubeClient, NotFound
from linkis_ecm.kube.reflector import RARELY, Kind, Reflector
from linkis_ecm.kube.resources import POLICIES, POLICY_BINDINGS, Resource

log = logging.getLogger(__name__)

# Seconds between two readings that no engine asks for. It is how late a metric and the log may say that one is gone.
PERIOD = 30.0
# Seconds while one is not there: Helm makes the operator first, and its readiness waits for them to count.
PERIOD_MISSING = 1.0
# Engines: more than are on their way to their acceptance at a time.
REMEMBERED = 4096
# How long one of another release counts: Helm writes the policies while the operator before runs, and pods are replaced
# one by one. It is some times what a rollout takes, and an upgrade that stands still is seen within the hour.
ROLLOUT = timedelta(minutes=15)

# A policy or a binding, by its kind and name.
Part = tuple[Resource, str]


@dataclass(frozen=True, slots=True)
class _Seen:
    """One version of a policy or binding. `weak`: why it lets through what it is there to refuse; "" if it does not."""

    uid: str
    version: int
    weak: str


@dataclass(frozen=True, slots=True)
class _Spec:
    """A spec that was in force. `since`: from when on, as far as it is known."""

    uid: str
    generation: int
    since: datetime | None


class Policies:
    """`read` before a decision that depends on them; `run` besides. `names` are those of policies and bindings alike.

    Without a name nothing is read, and `last` stays None. `fields` are those that the chart gave, by the text that
    begins with policy/NAME/ or binding/NAME/: what has none is not compared. `on_change` is called when others are in
    force than before.
    """

    def __init__(
        self, *, client: KubeClient, names: tuple[str, ...], fields: tuple[str, ...], clock: Callable[[], datetime],
        metrics: Metrics, on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        self._client = client
        self._names = names
        self._on_change = on_change
        self._clock = clock
        self._fields = {part: _fields_of(part, fields) for part in self._parts()}
        # Since when one is of another release.
        self._other: dict[Part, datetime] = {}
        # The specs of the last reading, while all of it is in force.
        self._specs: dict[Part, _Spec] = {}
        self._lock = asyncio.Lock()
        self._begun = 0
        # By the engine's uid: for which version the policies were read.
        self._read_for: OrderedDict[str, int] = OrderedDict()
        self.last: InForce | None = None
        # What the last reading found, while all of it is in force.
        self._found: dict[Part, _Seen] = {}
        self._changed = asyncio.Event()
        # By name: the chart's role lets the operator watch these and no others.
        self._watches: dict[Part, Reflector[_Seen]] = {
            (resource, name): Reflector(
                client, resource, field_selector=f"metadata.name={name}",
                transform=partial(self._seen, (resource, name)),
                on_event=partial(self._on_event, (resource, name)), backoff=RARELY,
            )
            for resource, name in self._parts()
        }  # fmt: skip
        metrics.policies_missing.set_function(lambda: float(self.last is not None and bool(self.last.missing)))

    def problem(self, now: datetime) -> str:
        """Why an engine that is made `now` might be refused for them, as a sentence; empty if it would not be."""
        if self._names and self.last is None:
            return "the admission policies were not read yet"
        return too_young(self.last, now)

    async def read(self) -> InForce | None:
        """The policies as they are now or later. Callers that wait share one reading that begins after they asked.

        Raises ApiError where the API server does not answer.
        """
        if not self._names:
            return None
        asked = self._begun
        async with self._lock:
            if self._begun == asked or self.last is None:
                self._begun += 1
                self._take(await self._read())
            return self.last

    def must_be_read_for(self, engine: EngineView) -> bool:
        """Whether `read_for` reads for this version of the engine."""
        wanted = bool(self._names) and must_be_read(engine)
        return wanted and self._read_for.get(engine.uid) != engine.version

    async def read_for(self, look: Callable[[], EngineView | None]) -> EngineView | None:
        """The engine that `look` gives, after the policies were read if its pass depends on them. None: it is gone.

        Raises ApiError as `read`.
        """
        # Once for each version: a claim of a warm pool takes several passes before the engine is accepted.
        while (engine := look()) is not None and self.must_be_read_for(engine):
            await self.read()
            if look() is engine:
                self._remember(engine)
                break
        return engine

    def are_watched(self) -> bool:
        """Whether all that the last reading found in force is still there, by watches that the API server serves.

        A watch that shows a newer version, or that has shown nothing for longer than the API server leaves one without
        a bookmark, does not count.
        """
        return bool(self._found) and all(
            watch.is_current and watch.objects.get(("", name)) == self._found.get((resource, name))
            for (resource, name), watch in self._watches.items()
        )

    def accept_watched(self, engine: EngineView) -> None:
        """Let what the watches show now stand for a reading for this version of the engine, if `are_watched`.

        For an engine whose next pod hands out no Secret, and after a write for it was answered.
        """
        if self.are_watched():
            self._remember(engine)

    def _remember(self, engine: EngineView) -> None:
        """The policies were read after this version of the engine was seen."""
        self._read_for.pop(engine.uid, None)
        self._read_for[engine.uid] = engine.version
        while len(self._read_for) > REMEMBERED:
            self._read_for.popitem(last=False)

    async def run(self) -> None:
        """Watch them, and read them again and again, until cancelled."""
        if self._names:
            async with asyncio.TaskGroup() as group:
                for watch in self._watches.values():
                    group.create_task(watch.run())
                group.create_task(self._read_again())

    async def _read_again(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self.read()
            except ApiError as error:
                log.warning("the admission policies cannot be read, tried again: %s", error)
            if self.last is None or self.last.missing:
                await asyncio.sleep(PERIOD_MISSING)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PERIOD):
                        await self._changed.wait()

    def _on_event(self, part: Part, kind: Kind, seen: _Seen) -> None:
        """A watch has shown a policy or a binding."""
        found = self._found.get(part)
        if found is not None and found.uid == seen.uid:
            why = "is not there" if kind == "DELETED" else seen.weak if seen.version > found.version else ""
            if why:
                self._forget()
                self._take(_missing(part, why))
        if found != seen:
            self._changed.set()

    def _take(self, found: InForce) -> None:
        before, self.last = self.last, found
        if before == found:
            return
        if found.missing:
            log.error(
                "%s: no new engine is started until it is as the chart made it, as nobody asks for the rights of its"
                " author; engines that were accepted before go on",
                found.missing,
            )  # fmt: skip
        else:
            log.info("the admission policies are in force since %s", found.since)
        if before is not None:
            self._on_change()

    def _parts(self) -> list[Part]:
        return [(resource, name) for name in self._names for resource in (POLICIES, POLICY_BINDINGS)]

    async def _read(self) -> InForce:
        """What is in force now; `_found` is then of this reading. Where there is no answer, it stays as it was."""
        asked = self._parts()
        # All at a time: an engine's start waits for them.
        objects = await asyncio.gather(*(self._client.get(*one) for one in asked), return_exceptions=True)
        found: list[dict[str, Any]] = []
        for part, one in zip(asked, objects, strict=True):
            why = ""
            match one:
                case NotFound():
                    why = "is not there"
                case Forbidden():
                    why = "may not be read (apply the chart's roles)"
                case BaseException():
                    raise one
                case _:
                    why = self._weak(part, one)
                    found.append(one)
            if why:
                self._forget()
                return _missing(part, why)
        self._found = {part: self._seen(part, one) for part, one in zip(asked, found, strict=True)}
        self._specs = {part: _spec(part, one, self._specs.get(part)) for part, one in zip(asked, found, strict=True)}
        specs = self._specs.values()
        identity = hashlib.sha256(repr([(one.uid, one.generation) for one in specs]).encode())
        times = [one.since for one in specs if one.since is not None]
        return InForce(since=max(times, default=None), identity=identity.hexdigest()[:32])

    def _forget(self) -> None:
        """One is not in force: what is next has been in force since it was written, and not before."""
        self._found = {}
        self._specs = {}

    def _seen(self, part: Part, found: Mapping[str, Any]) -> _Seen:
        version = int((found.get("metadata") or {}).get("resourceVersion") or 0)
        return _Seen(_uid(found), version, self._weak(part, found))

    def _weak(self, part: Part, found: Mapping[str, Any]) -> str:
        """Why it lets through what it is there to refuse; "" if it does not."""
        why = _weak(part, found)
        wanted = self._fields[part]
        if why or not wanted:
            return why
        differs = difference(wanted, found)
        if not differs.other_release:
            self._other.pop(part, None)
            # Helm 4 stops at fields of somebody else, and takes none away that it never had: so it is to be deleted.
            return f"was changed: {differs.fields} (delete it: helm upgrade makes it again)" if differs.fields else ""
        now = self._clock()
        if part not in self._other:
            self._other[part] = now
            log.warning(
                "the %s %s is of another release than this operator (%s): it counts for %d minutes, so finish the"
                " upgrade or roll it back",
                part[0].kind, part[1], differs.fields, ROLLOUT // timedelta(minutes=1),
            )  # fmt: skip
        if now < self._other[part] + ROLLOUT:
            return ""
        return f"is of another release than this operator ({differs.fields}): finish the upgrade or roll it back"


def _fields_of(part: Part, fields: tuple[str, ...]) -> frozenset[str]:
    start = f"{'policy' if part[0] is POLICIES else 'binding'}/{part[1]}/"
    return frozenset(one.removeprefix(start) for one in fields if one.startswith(start))


def _missing(part: Part, why: str) -> InForce:
    resource, name = part
    return InForce(missing=f"the {resource.kind} {name} {why}")


def _weak(part: Part, found: Mapping[str, Any]) -> str:
    """The same, of what can be said without the chart's own text."""
    resource, name = part
    spec = found.get("spec") or {}
    if (found.get("metadata") or {}).get("deletionTimestamp"):
        return "is being deleted"
    if resource is POLICIES:
        return "" if spec.get("failurePolicy", "Fail") == "Fail" else "has another failurePolicy than Fail"
    if spec.get("policyName") != name:
        return "is for another policy"
    return "" if "Deny" in (spec.get("validationActions") or ()) else "denies nothing (validationActions)"


def _uid(found: Mapping[str, Any]) -> str:
    return str((found.get("metadata") or {}).get("uid") or "")


def _spec(part: Part, found: Mapping[str, Any], before: _Spec | None) -> _Spec:
    """The spec that is in force. `before`: the one of the last reading, if that found all in force."""
    meta = found.get("metadata") or {}
    generation = int(meta.get("generation") or 0)
    if before is not None and before.uid == _uid(found) and generation:
        # A policy that is one generation further was never another than those two, so an upgrade refuses nobody. A
        # binding says in which namespaces the policy is asked, and one may be added while engines are in it.
        steps = (0, 1) if part[0] is POLICIES else (0,)
        if generation - before.generation in steps:
            return _Spec(before.uid, generation, before.since)
    texts = [meta.get("creationTimestamp")]
    if generation != 1:
        # Only the platform writes policies. A label that it writes counts as well, as managedFields do not tell when
        # which field was written.
        texts += [one.get("time") for one in meta.get("managedFields") or () if "f:spec" in (one.get("fieldsV1") or {})]
    times = [moment for text in texts if (moment := parse_time(text)) is not None]
    return _Spec(_uid(found), generation, max(times, default=None))
