"""Numbers each change of an engine, so that a viewer can ask what has changed since its last look.

One object for all viewers: an engine's line of JSON is made once for each change, however many look at it. Must not
decide who may see which engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson

from linkis_ecm.engine.matching import claim_ends
from linkis_ecm.engine.times import format_time
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.sizes import with_sizes
from linkis_ecm.gateway.inventory.view import Key, KnownEngine, startup_millis

# Deleted engines that are remembered. A viewer looks every second; a cluster that deletes more in that time makes it
# read the whole list again.
REMOVED_MAX = 10_000
# What a row carries of each text, and of names and values of all labels together: Kubernetes bounds neither the number
# of an object's labels nor what a status says. Names of objects and nodes have 253 characters at most.
TEXT_CHARS, LABELS_CHARS = 300, 2048


class EngineChanges:
    """The order of changes. `number` is that of the newest one."""

    def __init__(self, engines: EngineCache, plugins: PluginCache) -> None:
        self.number = 0
        self._engines = engines
        self._plugins = plugins
        # The newest change of each engine; the last entry is the newest change.
        self._numbers: dict[Key, int] = {}
        self._removed: dict[Key, int] = {}
        # The newest change of a deleted engine that is not remembered any more.
        self._forgotten = 0
        self._lines: dict[Key, tuple[KnownEngine, bytes]] = {}
        self._changed = asyncio.Event()
        engines.observe(self._on_change)

    def _on_change(self, key: Key, engine: KnownEngine | None) -> None:
        self.number += 1
        self._numbers.pop(key, None)
        self._removed.pop(key, None)
        self._lines.pop(key, None)
        self._numbers[key] = self.number
        if engine is None:
            self._removed[key] = self.number
            if len(self._removed) > REMOVED_MAX:
                oldest = next(iter(self._removed))
                self._forgotten = self._removed.pop(oldest)
                del self._numbers[oldest]
        self._changed.set()
        self._changed = asyncio.Event()

    def since(self, number: int) -> list[Key] | None:
        """The engines that have changed since that number, the newest change first. None: too much is forgotten, and
        the viewer must read the whole list."""
        if number < self._forgotten:
            return None
        found = []
        for key in reversed(self._numbers):
            if self._numbers[key] <= number:
                break
            found.append(key)
        return found

    async def wait(self, number: int, seconds: float) -> None:
        """Until there is a change after that number; for so long at most."""
        if self.number > number:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def line(self, engine: KnownEngine) -> bytes:
        """The engine as one JSON object, as a viewer's list shows it."""
        known = self._lines.get(engine.key)
        if known is not None and known[0] is engine:
            return known[1]
        line = orjson.dumps(_row(with_sizes(self._plugins, engine)))
        if self._engines.get(engine.key) is engine:
            self._lines[engine.key] = engine, line
        return line


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels in the order of their names, as many as LABELS_CHARS holds."""
    found, left = dict[str, str](), LABELS_CHARS
    for name in sorted(labels):
        left -= len(name) + len(labels[name])
        if left < 0:
            break
        found[name] = labels[name]
    return found


def _row(engine: KnownEngine) -> dict[str, object]:
    """What a list shows of an engine, with a bound on each text; the rest is getEngineStatus's."""
    row = {
        "engineId": engine.engine_id,
        "uid": engine.uid,
        "ticketId": engine.shown_ticket,
        "namespace": engine.namespace,
        "name": engine.name,
        "status": engine.status,
        "since": engine.since,
        "reason": engine.reason,
        "message": engine.message,
        "available": engine.takes_code,
        "claim": _claim(engine),
        "stopping": engine.stop_requested or engine.deleting,
        "engineType": engine.engine_type,
        "engineVersion": engine.engine_version,
        "user": engine.user,
        "creator": engine.creator,
        "tenant": engine.tenant,
        "labelValue": engine.label_value,
        "labels": _labels(engine.labels),
        "serviceInstance": engine.shown_instance,
        "ecmInstance": engine.ecm_instance,
        "node": engine.node_name,
        "attempt": engine.attempt,
        "cpuMilli": engine.cpu_milli,
        "memoryBytes": engine.memory_bytes,
        "created": engine.created or None,
        "readyMillis": startup_millis(engine.startup).get("ready"),
        "nextCullAt": engine.next_cull_at,
    }
    return {name: value[:TEXT_CHARS] if isinstance(value, str) else value for name, value in row.items()}


def _claim(engine: KnownEngine) -> dict[str, str | None] | None:
    """Who holds the engine, and until when: a viewer compares that with its clock, for a claim ends without a change.
    `until` is null where no time ends it."""
    if engine.claim is None or engine.claim.released or not engine.usable:
        return None
    ends = claim_ends(engine)
    return {"by": engine.claim.by, "until": format_time(ends) if ends is not None else None}
