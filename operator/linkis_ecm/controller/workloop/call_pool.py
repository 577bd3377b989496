"""Runs slow calls beside the work loop: a worker hands a call over and takes the next key.

An agent, a node or a log answers when it likes, and its user may make it slow on purpose. So calls have slots of their
own, and nobody gets all of them: a free slot goes to the group with the fewest running calls, then to the share of that
group with the fewest. The result of a call must enqueue its key again. Must not know what is called, and must not
repeat a call: a pass requests it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as CounterMetric

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

# Calls at a time: to all, and of one share. 16 as many as the workers: one user's silent engines are asked as fast as
# by the whole work loop. 64 leave room for others, and for the connections of EngineAgents.
SLOTS, SLOTS_PER_SHARE = 64, 16
# Waiting calls of one share: more are refused. Each is a key and a closure; a share has a few hundred engines.
WAITING_PER_SHARE = 1000
# Seconds for which a call that raised keeps its slot: a bug must not become a busy loop.
ERROR_PAUSE = 1.0

# Whose calls these are: the group (a namespace) and the share in it (a user).
Share = tuple[str, str]


class CallMetrics:
    """The calls of a process that wait or run beside its work loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge(
            "ecm_calls_waiting", "Calls to agents, nodes and logs that wait for a slot.", registry=registry
        )
        self.running = Gauge("ecm_calls_running", "Calls to agents, nodes and logs under way.", registry=registry)
        self.refused = CounterMetric(
            "ecm_calls_refused",
            "Calls that were not queued, because too many of their user's wait; a later pass requests them again.",
            registry=registry,
        )


@dataclass(frozen=True, slots=True)
class _Call:
    key: Hashable
    share: Share
    run: Callable[[], Awaitable[None]]


class CallPool:
    """`submit` from a pass; `run` until cancelled. `may_run` is asked before each call."""

    def __init__(
        self,
        *,
        may_run: Callable[[], bool],
        metrics: CallMetrics,
        slots: int = SLOTS,
        per_share: int = SLOTS_PER_SHARE,
        waiting_max: int = WAITING_PER_SHARE,
    ) -> None:
        self._may_run = may_run
        self._slots = slots
        self._per_share = per_share
        self._waiting_max = waiting_max
        self._refused = metrics.refused
        # Waiting calls of each share, the first in line first. The share that was served last is at the end.
        self._waiting: OrderedDict[Share, OrderedDict[Hashable, _Call]] = OrderedDict()
        # Keys that wait or run.
        self._keys: set[Hashable] = set()
        self._running: Counter[Share] = Counter()
        self._running_of_group: Counter[str] = Counter()
        self._changed = asyncio.Event()
        metrics.waiting.set_function(lambda: float(self.waiting))
        metrics.running.set_function(lambda: float(self.running))

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot."""
        return len(self._keys) - self.running

    @property
    def running(self) -> int:
        """How many calls are under way."""
        return self._running.total()

    def submit(self, key: Hashable, share: Share, run: Callable[[], Awaitable[None]]) -> bool:
        """Queue a call, unless one with this key waits or runs. Returns whether there is one now."""
        if key in self._keys:
            return True
        waiting = self._waiting.setdefault(share, OrderedDict())
        if len(waiting) >= self._waiting_max:
            self._refused.inc()
            return False
        waiting[key] = _Call(key, share, run)
        self._keys.add(key)
        self._changed.set()
        return True

    async def run(self) -> None:
        """Run calls until cancelled. Cancellation also ends the calls under way."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._changed.wait()
                self._changed.clear()
                while (call := self._next()) is not None:
                    group.create_task(self._call(call))

    def _next(self) -> _Call | None:
        """Take the next call out of the queue; None if none waits or may run."""
        if self.running >= self._slots:
            return None
        free = [share for share in self._waiting if self._running[share] < self._per_share]
        if not free:
            return None
        # min returns the first of equals: the one that was served longest ago.
        share = min(free, key=lambda one: (self._running_of_group[one[0]], self._running[one]))
        waiting = self._waiting[share]
        _, call = waiting.popitem(last=False)
        if waiting:
            self._waiting.move_to_end(share)
        else:
            del self._waiting[share]
        self._running[share] += 1
        self._running_of_group[share[0]] += 1
        return call

    async def _call(self, call: _Call) -> None:
        try:
            if self._may_run():
                await call.run()
        except Exception:
            log.exception("%s: the call failed", call.key)
            await asyncio.sleep(ERROR_PAUSE)
        finally:
            self._keys.discard(call.key)
            self._release(call.share)
            self._changed.set()

    def _release(self, share: Share) -> None:
        _decrease(self._running, share)
        _decrease(self._running_of_group, share[0])


def _decrease(counter: Counter[K], key: K) -> None:
    """Count one less; a key without any is forgotten."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
