"""The work loop for one kind of object: when a key is reconciled, by how many workers, and what follows a failure.

It is generic: a kind gives a key and `reconcile(key) -> Result`, and gets a queue, deadlines, back-off and the handling
of poison keys. It must not know what a key stands for, call an API or hold objects.

Guarantees: one worker at a time has a key; many events of a key during a wait are one pass, and an event during its
pass is one more pass after it; a pass begins only while `leading` is set and `may_write` is true; a pass that fails
harms no other key and is repeated ever more slowly. What a worker remembers may be lost at any time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from linkis_ecm.controller.workloop.deadline_heap import Deadlines
from linkis_ecm.controller.workloop.queue import WorkQueue
from linkis_ecm.process.backoff import Backoff

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

# Passes are mostly waits for the API server: enough workers that a slow call does not hold up the rest, few enough
# that one kind does not take all of the API server's time.
WORKERS = 16
# A key whose passes failed so often in a row is a poison key.
POISON_AFTER = 3
# Half a second would be noise in a log, an hour would leave a mended object waiting: 0.2 s, doubling to a minute.
BACKOFF = Backoff(base=0.2, cap=60.0)
# A key whose turn comes while nothing may be written waits this long: about one renewal of the Lease.
NOT_ALLOWED_PAUSE = 1.0
# The longest sleep of the deadline loop: after it a clock that jumped is read again.
LONGEST_SLEEP = 3600.0
# Added to each sleep: a wait may end a little before its time, and would then be begun again and again.
SLEEP_MARGIN = 0.001


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a pass.

    `requeue_at`: the key gets another pass then (Unix time in seconds, by the worker's clock), though nothing happens
    to it; None: no other pass. `error`: the pass failed; it is repeated after a back-off, and `requeue_at` is ignored.
    An exception of `reconcile` counts as such an error.
    """

    requeue_at: float | None = None
    error: Exception | None = None


class WorkerMetrics:
    """The work loops (`controller.workloop.worker`), one value of `controller` each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._depth = Gauge("ecm_queue_depth", "Objects that wait for a worker.", ["controller"], registry=registry)
        self._age = Gauge(
            "ecm_queue_oldest_age_seconds",
            "How long the first object in the queue has waited for a worker; 0 without one.",
            ["controller"],
            registry=registry,
        )
        self.reconcile_seconds = Histogram(
            "ecm_reconcile_seconds", "One pass over one object, its writes included.", ["controller"], registry=registry
        )
        self.reconcile_errors = Counter(
            "ecm_reconcile_errors",
            "Passes that failed and are tried again.",
            ["controller", "error"],
            registry=registry,
        )
        self._poison = Gauge(
            "ecm_reconcile_poison_objects", "Objects whose last passes all failed.", ["controller"], registry=registry
        )

    def watch(
        self, name: str, *, depth: Callable[[], int], age: Callable[[], float], poison: Callable[[], int]
    ) -> None:
        """Read these functions at each scrape, for the work loop with this name."""
        self._depth.labels(name).set_function(lambda: float(depth()))
        self._age.labels(name).set_function(age)
        self._poison.labels(name).set_function(lambda: float(poison()))


class Worker(Generic[K]):
    """`enqueue` keys, `run` until cancelled, `drain` before the end.

    `name` is the kind, for logs and metrics. `is_outage(error)` is true of errors of the other side, such as an API
    server that does not answer: they are logged in one line and never reported as poison. `on_poison(key, error)` is
    called after each failure of a poison key; what it raises is logged. A worker never ends by what it calls: a
    CancelledError that nobody asked for is a failure like any other. All else is passed in to be replaced in tests.
    """

    def __init__(
        self,
        reconcile: Callable[[K], Awaitable[Result]],
        *,
        name: str,
        leading: asyncio.Event,
        may_write: Callable[[], bool],
        clock: Callable[[], datetime],
        rng: random.Random,
        metrics: WorkerMetrics,
        is_outage: Callable[[Exception], bool] = lambda _: False,
        on_poison: Callable[[K, Exception], Awaitable[None]] | None = None,
        workers: int = WORKERS,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self._reconcile = reconcile
        self._name = name
        self._leading = leading
        self._may_write = may_write
        self._clock = clock
        self._rng = rng
        self._is_outage = is_outage
        self._on_poison = on_poison
        self._workers = workers
        self._backoff = backoff
        self._queue: WorkQueue[K] = WorkQueue(clock=lambda: asyncio.get_running_loop().time())
        self._deadlines: Deadlines[K] = Deadlines()
        # Set where a deadline has changed: the earliest may be another one now.
        self._deadline_changed = asyncio.Event()
        # Failures in a row, of keys whose last pass failed.
        self._failures: dict[K, int] = {}
        # Keys that were removed during their pass: its result no longer counts.
        self._removed: set[K] = set()
        self._seconds = metrics.reconcile_seconds.labels(name)
        self._errors = metrics.reconcile_errors
        metrics.watch(name, depth=lambda: len(self._queue), age=lambda: self._queue.age, poison=self.poison_keys)

    @property
    def idle(self) -> bool:
        """Whether no key waits and none is being reconciled. There may be deadlines."""
        return self._queue.idle

    def failures(self, key: K) -> int:
        """How many passes over the key have failed in a row."""
        return self._failures.get(key, 0)

    def poison_keys(self) -> int:
        """How many keys are poison now."""
        return sum(count >= POISON_AFTER for count in self._failures.values())

    def enqueue(self, key: K) -> None:
        """Request a pass over the key, as soon as a worker is free."""
        self._queue.add(key)

    def enqueue_by(self, key: K, at: float) -> None:
        """Request a pass over the key at `at` (Unix time in seconds) at the latest: many changes are one pass."""
        if self._queue.is_working(key):
            # The running pass may have looked before the change, and its result sets the deadline.
            self._queue.add(key)
            return
        due = self._deadlines.get(key)
        if due is None or at < due:
            self._set_deadline(key, at)

    def remove(self, key: K) -> None:
        """The key's object was deleted: drop its deadline and its failures, also those of a running pass."""
        self._failures.pop(key, None)
        self._set_deadline(key, None)
        if self._queue.is_working(key):
            self._removed.add(key)

    async def run(self) -> None:
        """Run workers and deadlines until cancelled. Cancellation also ends running passes."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_deadlines())
            for _ in range(self._workers):
                group.create_task(self._work_until_cancelled())

    async def drain(self, timeout: float) -> bool:
        """Start no more passes and wait `timeout` seconds for running ones. Returns whether all have ended."""
        self._queue.close()
        try:
            async with asyncio.timeout(timeout):
                await self._queue.rest()
        except TimeoutError:
            return False
        return True

    async def _watch_deadlines(self) -> None:
        while True:
            now = self._clock().timestamp()
            for key in self._deadlines.pop_due(now):
                self._queue.add(key)
            due = self._deadlines.next()
            self._deadline_changed.clear()
            sleep = LONGEST_SLEEP if due is None else min(LONGEST_SLEEP, max(0.0, due - now) + SLEEP_MARGIN)
            try:
                async with asyncio.timeout(sleep):
                    await self._deadline_changed.wait()
            except TimeoutError:
                pass

    async def _work_until_cancelled(self) -> None:
        """A task group takes no notice of a task that was cancelled by nobody: this makes it an error, which ends all
        workers, and with them the process."""
        try:
            await self._work()
        except asyncio.CancelledError as error:
            raise _unasked(error) from error

    async def _work(self) -> None:
        while True:
            await self._leading.wait()
            key = await self._queue.get()
            try:
                if self._may_write():
                    with self._seconds.time():
                        await self._pass(key)
                else:
                    self._set_deadline(key, self._clock().timestamp() + NOT_ALLOWED_PAUSE)
            finally:
                self._removed.discard(key)
                self._queue.done(key)

    async def _pass(self, key: K) -> None:
        """One pass. An error affects only this key."""
        try:
            result = await self._reconcile(key)
        except Exception as error:
            result = Result(error=error)
        except asyncio.CancelledError as error:
            result = Result(error=_unasked(error))
        if key in self._removed:
            return
        if result.error is None:
            self._failures.pop(key, None)
            self._set_deadline(key, result.requeue_at)
            return
        await self._failed(key, result.error)

    async def _failed(self, key: K, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._errors.labels(self._name, type(error).__name__).inc()
        if self._is_outage(error):
            log.warning("%s: %s", key, error)
        else:
            log.error("%s: the pass failed", key, exc_info=error)
            if failures >= POISON_AFTER:
                await self._report_poison(key, error)
        if key not in self._removed:
            self._set_deadline(key, self._clock().timestamp() + self._backoff.delay(failures, rng=self._rng))

    async def _report_poison(self, key: K, error: Exception) -> None:
        if self._on_poison is None:
            return
        try:
            await self._on_poison(key, error)
        except Exception:
            log.exception("%s: that it is poison could not be reported", key)
        except asyncio.CancelledError as cancelled:
            log.error("%s: that it is poison could not be reported: %s", key, _unasked(cancelled))

    def _set_deadline(self, key: K, at: float | None) -> None:
        self._deadlines.set(key, at)
        self._deadline_changed.set()


class UnaskedCancellationError(Exception):
    """A CancelledError was raised in a task that nobody has cancelled: a library cancelled something of its own."""


def _unasked(error: asyncio.CancelledError) -> UnaskedCancellationError:
    """The error in place of a CancelledError that nobody asked for. Raises it again if somebody cancels this task."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
    return UnaskedCancellationError("cancelled, and nobody asked for it")
