"""The work loop with a toy kind, in virtual time: what every kind gets from `controller.workloop.worker`."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from linkis_ecm.controller.workloop.queue import WorkQueue
from linkis_ecm.controller.workloop.worker import (
    BACKOFF,
    NOT_ALLOWED_PAUSE,
    POISON_AFTER,
    Result,
    UnaskedCancellationError,
    Worker,
    WorkerMetrics,
)
from linkis_ecm.process.backoff import Backoff
from tools.testkit.fakes.cluster import loop_now

pytestmark = pytest.mark.looptime


class OutageError(Exception):
    """The other side does not answer."""


class Jars:
    """A toy kind: jars that are filled; the key is a number. Each pass takes `seconds` and then does `then`."""

    def __init__(self, seconds: float = 1.0, then: Callable[[int], Result] = lambda _: Result()) -> None:
        self.seconds = seconds
        self.then = then
        self.began: list[tuple[float, int]] = []
        self.ended: list[tuple[float, int]] = []
        self.poison: list[tuple[int, str]] = []
        self.at_once: dict[int, int] = {}
        self.most_at_once: dict[int, int] = {}
        self.leading = asyncio.Event()
        self.leading.set()
        self.allowed = True
        self.registry = CollectorRegistry()

    async def fill(self, jar: int) -> Result:
        self.began.append((_time(), jar))
        self.at_once[jar] = self.at_once.get(jar, 0) + 1
        self.most_at_once[jar] = max(self.at_once[jar], self.most_at_once.get(jar, 0))
        try:
            await asyncio.sleep(self.seconds)
            return self.then(jar)
        finally:
            self.at_once[jar] -= 1
            self.ended.append((_time(), jar))

    def times(self, jar: int) -> list[float]:
        """When passes over that jar began."""
        return [at for at, one in self.began if one == jar]

    def value(self, name: str, **labels: str) -> float | None:
        """A metric of the worker."""
        return self.registry.get_sample_value(name, {"controller": "jar"} | labels)

    async def report_poison(self, jar: int, error: Exception) -> None:
        self.poison.append((jar, str(error)))


def _time() -> float:
    return asyncio.get_running_loop().time()


def _unix(moment: datetime) -> float:
    return moment.timestamp()


@asynccontextmanager
async def working(jars: Jars, **options: Any) -> AsyncIterator[Worker[int]]:
    """A worker over the jars that runs for the time of the block."""
    reconcile: Callable[[int], Awaitable[Result]] = options.pop("reconcile", jars.fill)
    worker = Worker(
        reconcile, name="jar", leading=jars.leading, may_write=lambda: jars.allowed, clock=loop_now,
        rng=random.Random(1), metrics=WorkerMetrics(jars.registry),
        is_outage=lambda error: isinstance(error, OutageError), on_poison=jars.report_poison, **options,
    )  # fmt: skip
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_has_one_worker_at_a_time_and_other_keys_do_not_wait_for_it() -> None:
    jars = Jars(seconds=10)
    async with working(jars, workers=4) as worker:
        for _ in range(5):
            for jar in range(3):
                worker.enqueue(jar)
            await asyncio.sleep(1)
        assert jars.most_at_once == {0: 1, 1: 1, 2: 1}
        assert [jars.times(jar) for jar in range(3)] == [[0.0], [0.0], [0.0]], "three keys, side by side"


async def test_many_events_are_one_pass_and_those_of_a_pass_are_one_more_after_it() -> None:
    jars = Jars(seconds=10)
    async with working(jars) as worker:
        for _ in range(10):
            worker.enqueue(7)
        await asyncio.sleep(5)
        for _ in range(10):
            worker.enqueue(7)
        await asyncio.sleep(100)
        assert jars.times(7) == [0.0, 10.0]
        assert worker.idle


async def test_a_worker_that_ends_as_it_is_woken_leaves_the_key_to_another() -> None:
    queue: WorkQueue[str] = WorkQueue(clock=_time)
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    queue.add("a")
    first.cancel()
    async with asyncio.timeout(1):
        assert await second == "a"
    # One that had waited for nothing takes nobody's turn.
    third = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    queue.add("b")
    async with asyncio.timeout(1):
        assert await queue.get() == "b"


async def test_no_more_passes_run_at_once_than_there_are_workers() -> None:
    jars = Jars(seconds=10)
    async with working(jars, workers=2) as worker:
        for jar in range(5):
            worker.enqueue(jar)
        await asyncio.sleep(5)
        assert jars.value("ecm_queue_depth") == 3
        assert jars.value("ecm_queue_oldest_age_seconds") == 5
        await asyncio.sleep(100)
        assert [at for at, _ in jars.began] == [0.0, 0.0, 10.0, 10.0, 20.0]
        assert jars.value("ecm_reconcile_seconds_count") == 5


async def test_a_pass_asks_for_the_next_one_by_its_time_and_the_last_answer_counts() -> None:
    jars = Jars(seconds=0)
    answers = iter([Result(requeue_at=_unix(loop_now()) + 3600), Result(requeue_at=_unix(loop_now()) + 60), Result()])
    jars.then = lambda _: next(answers)
    async with working(jars) as worker:
        worker.enqueue(1)
        await asyncio.sleep(10)
        worker.enqueue(1)  # sooner than asked for: this pass asks for another time
        await asyncio.sleep(7200)
        assert jars.times(1) == pytest.approx([0, 10, 60], abs=0.01)


async def test_many_changes_that_can_wait_are_one_pass() -> None:
    jars = Jars(seconds=0)
    begun = _unix(loop_now())
    async with working(jars) as worker:
        for _ in range(10):
            worker.enqueue_by(1, _unix(loop_now()) + 2)
            await asyncio.sleep(0.1)
        worker.enqueue_by(2, begun + 100)
        worker.enqueue_by(2, begun + 50)  # the sooner one counts
        await asyncio.sleep(200)
        assert jars.times(1) == pytest.approx([2], abs=0.01)
        assert jars.times(2) == pytest.approx([50], abs=0.01)


async def test_a_change_during_a_pass_that_can_wait_is_not_lost_by_the_passs_own_time() -> None:
    jars = Jars(seconds=10)
    jars.then = lambda _: Result(requeue_at=_unix(loop_now()) + 3600)
    async with working(jars) as worker:
        worker.enqueue(1)
        await asyncio.sleep(5)
        worker.enqueue_by(1, _unix(loop_now()) + 20)
        await asyncio.sleep(100)
        assert jars.times(1) == [0.0, 10.0]


async def test_a_time_that_is_over_already_is_a_pass_at_once() -> None:
    jars = Jars(seconds=1)
    answers = iter([Result(requeue_at=_unix(loop_now()) - 5), Result()])
    jars.then = lambda _: next(answers)
    async with working(jars) as worker:
        worker.enqueue(1)
        await asyncio.sleep(30)
        assert jars.times(1) == pytest.approx([0, 1], abs=0.01)


@pytest.mark.parametrize("raised", [True, False])
async def test_a_failure_is_repeated_ever_more_slowly_up_to_the_cap_with_jitter(raised: bool) -> None:
    def fail(_: int) -> Result:
        if raised:
            raise OutageError("down")
        return Result(requeue_at=0.0, error=OutageError("down"))

    jars = Jars(seconds=0, then=fail)
    async with working(jars) as worker:
        worker.enqueue(1)
        await asyncio.sleep(1000)
        times = jars.times(1)
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        for number, gap in enumerate(gaps):
            step = min(BACKOFF.cap, BACKOFF.base * 2**number)
            assert 0.75 * step <= gap <= 1.25 * step + 0.01, number
        assert gaps[-1] > 40, "the cap is reached"
        assert len({round(gap / min(BACKOFF.cap, BACKOFF.base * 2**n), 3) for n, gap in enumerate(gaps)}) > 5, "jitter"
        assert worker.failures(1) == len(times)
        assert jars.value("ecm_reconcile_errors_total", error="OutageError") == len(times)


async def test_a_success_ends_the_back_off() -> None:
    jars = Jars(seconds=0)
    failing = True

    def then(_: int) -> Result:
        if failing:
            raise OutageError("down")
        return Result()

    jars.then = then
    async with working(jars) as worker:
        worker.enqueue(1)
        await asyncio.sleep(100)
        failing = False
        await asyncio.sleep(100)
        assert worker.failures(1) == 0
        passes = len(jars.began)
        failing = True
        begun = _time()
        worker.enqueue(1)
        await asyncio.sleep(0.3)
        assert [at - begun for at in jars.times(1)[passes:]] == pytest.approx([0, 0.2], abs=0.06), "from the first step"


async def test_a_poison_key_is_reported_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def then(jar: int) -> Result:
        if jar == 13:
            raise RuntimeError("bad jar")
        return Result(requeue_at=_unix(loop_now()) + 1)

    jars = Jars(seconds=0, then=then)
    async with working(jars, workers=1) as worker:
        worker.enqueue(13)
        worker.enqueue(1)
        await asyncio.sleep(60)
        assert len(jars.times(1)) > 50
        assert len(jars.times(13)) < 12
        assert jars.poison == [(13, "bad jar")] * (len(jars.times(13)) - POISON_AFTER + 1), "from the third failure on"
        assert worker.poison_keys() == jars.value("ecm_reconcile_poison_objects") == 1
        worker.remove(13)
        assert worker.poison_keys() == 0
        passes = len(jars.times(13))
        await asyncio.sleep(600)
        assert len(jars.times(13)) == passes, "a key that is gone is not tried again"
    shown = [record for record in caplog.records if record.name == Worker.__module__]
    assert shown, "with its stack"
    assert all(record.exc_info for record in shown)


async def test_an_outage_is_one_line_and_no_poison(caplog: pytest.LogCaptureFixture) -> None:
    def then(_: int) -> Result:
        raise OutageError("down")

    jars = Jars(seconds=0, then=then)
    async with working(jars) as worker:
        with caplog.at_level(logging.WARNING):
            worker.enqueue(1)
            await asyncio.sleep(60)
    assert jars.poison == []
    assert len(jars.began) > POISON_AFTER
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_key_that_is_forgotten_during_its_pass_stays_forgotten_until_it_is_enqueued() -> None:
    jars = Jars(seconds=10, then=lambda _: Result(requeue_at=_unix(loop_now()) + 1))
    async with working(jars) as worker:
        worker.enqueue(1)
        await asyncio.sleep(5)
        worker.remove(1)
        await asyncio.sleep(60)
        assert jars.times(1) == [0.0]
        worker.enqueue(1)
        await asyncio.sleep(30)
        assert jars.times(1) == pytest.approx([0, 65, 76, 87], abs=0.01), "made anew under its key"


async def test_nothing_begins_before_this_replica_leads() -> None:
    jars = Jars()
    jars.leading.clear()
    async with working(jars) as worker:
        worker.enqueue(1)
        await asyncio.sleep(60)
        assert jars.began == []
        jars.leading.set()
        await asyncio.sleep(1)
        assert jars.times(1) == [60.0]


async def test_a_key_that_may_not_be_written_now_is_requeued() -> None:
    jars = Jars()
    jars.allowed = False
    async with working(jars) as worker:
        worker.enqueue(1)
        await asyncio.sleep(10.5)
        assert jars.began == []
        jars.allowed = True
        await asyncio.sleep(NOT_ALLOWED_PAUSE + 0.1)
        assert len(jars.began) == 1
        assert worker.failures(1) == 0


async def test_a_drain_lets_passes_end_and_begins_none() -> None:
    jars = Jars(seconds=3)
    async with working(jars, workers=1) as worker:
        worker.enqueue(1)
        worker.enqueue(2)
        await asyncio.sleep(1)
        begun = _time()
        assert await worker.drain(timeout=10)
        assert _time() - begun == pytest.approx(2), "as soon as the pass under way has ended"
        worker.enqueue(3)
        await asyncio.sleep(60)
        assert jars.began == [(0.0, 1)]


async def test_a_drain_does_not_wait_longer_than_it_may() -> None:
    jars = Jars(seconds=30)
    async with working(jars) as worker:
        assert await worker.drain(timeout=1), "nothing is under way"
    async with working(Jars(seconds=30)) as worker:
        worker.enqueue(1)
        await asyncio.sleep(1)
        assert not await worker.drain(timeout=5)


async def test_cancelling_ends_the_passes_under_way() -> None:
    jars = Jars(seconds=30)
    async with working(jars) as worker:
        worker.enqueue(1)
        await asyncio.sleep(1)
    assert jars.ended == [(1.0, 1)]
    assert worker.idle


def test_back_off_of_many_failures_does_not_overflow() -> None:
    rng = random.Random(1)
    assert 0.75 * 60 <= Backoff(base=0.2, cap=60.0).delay(10**9, rng=rng) <= 1.25 * 60


async def test_a_pass_or_a_report_that_raises_cancelled_error_ends_no_worker(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a library does that cancels a task of its own and lets the error through."""

    def cancel(jar: int) -> Result:
        if jar < 5:
            raise asyncio.CancelledError
        return Result()

    jars = Jars(seconds=0.0, then=cancel)

    async def report(jar: int, _: Exception) -> None:
        if jar % 2:
            raise asyncio.CancelledError
        raise KeyError("a bug of the report")

    monkeypatch.setattr(jars, "report_poison", report)
    async with working(jars, workers=2) as worker:
        for jar in range(5):
            worker.enqueue(jar)
        await asyncio.sleep(60)
        assert worker.poison_keys() == 5
        assert all(len(jars.times(jar)) > POISON_AFTER for jar in range(5)), "each is tried again"
        assert "could not be reported" in caplog.text
        worker.enqueue(9)
        await asyncio.sleep(1)
        assert len(jars.times(9)) == 1


async def test_a_worker_that_is_cancelled_from_inside_ends_all_of_them_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jars = Jars()
    worker = Worker[int](
        jars.fill, name="jar", leading=jars.leading, may_write=lambda: jars.allowed, clock=loop_now,
        rng=random.Random(1), metrics=WorkerMetrics(jars.registry),
    )  # fmt: skip

    async def get() -> int:
        raise asyncio.CancelledError

    monkeypatch.setattr(worker._queue, "get", get)  # nothing in it raises this by itself
    with pytest.raises(ExceptionGroup) as raised:
        await worker.run()
    assert raised.group_contains(UnaskedCancellationError)


async def test_a_cancelled_worker_ends_while_a_pass_runs() -> None:
    jars = Jars(seconds=100)
    async with working(jars) as worker:
        worker.enqueue(1)
        await asyncio.sleep(1)
    assert jars.ended == [(1.0, 1)]
    assert worker.failures(1) == 0
