"""The sink while the database is away or hangs: records wait in their order, and no offer waits."""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from typing import Any

import pytest

from linkis_ecm.model.states import EngineState
from linkis_ecm.store.database import open_engine
from linkis_ecm.store.migrate import upgrade
from linkis_ecm.store.queries import Queries
from linkis_ecm.store.sink import LINGER_MAX, Sink, _linger_after
from tests.store.records import PATIENCE, life, step, ticket
from tools.testkit.agents.process import until
from tools.testkit.servers.mariadb import MariaDB


@pytest.mark.mariadb
def test_records_wait_out_an_outage_and_arrive_in_order(mariadb: MariaDB) -> None:
    url = mariadb.new_database()
    upgrade(url)
    engine = open_engine(url)
    sink = Sink(engine, rng=random.Random(1))
    sink.start()
    name, others = ticket(), [ticket() for _ in range(300)]
    sink.offer(life(name)[0])
    assert sink.flush(PATIENCE)
    mariadb.stop()
    try:
        for record in life(name)[1:]:
            sink.offer(record)
        for other in others:
            sink.offer(step(other, EngineState.IDLE, 1))
        until(lambda: not sink.healthy)
        assert not sink.flush(0.5)
        assert sink.depth == 301
        assert sink.lag_seconds > 0.5
    finally:
        mariadb.start()
    # The longest pause between two tries is 12.5 s.
    assert sink.flush(2 * PATIENCE)
    assert sink.healthy
    queries = Queries(engine)
    row = queries.record_by_ticket(name)
    assert row is not None
    assert row.status == "Success"
    assert [t.state for t in queries.transitions(name)] == ["Starting", "Idle", "Busy", "Idle", "Success"]
    assert queries.list_records(status="Idle")[1] == 300
    sink.close(PATIENCE)


class Held:
    """A sink whose thread takes a record and then stands still, first within its lock, then at the database."""

    def __init__(self, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken, self.go = threading.Event(), threading.Event()
        self.writing, self.write = threading.Event(), threading.Event()
        held, write = self, sink._write

        class Pending(OrderedDict[str, Any]):
            def popitem(self, last: bool = True) -> tuple[str, Any]:
                found = super().popitem(last)
                held.taken.set()
                assert held.go.wait(PATIENCE)
                return found

        def waiting(*arguments: Any) -> int:
            held.writing.set()
            assert held.write.wait(PATIENCE)
            return write(*arguments)

        monkeypatch.setattr(sink, "_pending", Pending())
        monkeypatch.setattr(sink, "_write", waiting)


def test_an_offer_waits_on_no_database(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(sink, monkeypatch)
    held.go.set()
    sink.offer(step(ticket(), EngineState.IDLE, 1))
    assert held.writing.wait(PATIENCE)
    # The thread stands still at the database until these have been taken.
    for _ in range(300):
        sink.offer(step(ticket(), EngineState.IDLE, 1))
    assert sink.depth == 301
    held.write.set()
    assert sink.flush(PATIENCE)


def test_a_record_on_its_way_into_a_batch_is_counted(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit takes a depth of 0 for "nothing is on its way" and compares rows then."""
    held = Held(sink, monkeypatch)
    sink.offer(step(ticket(), EngineState.IDLE, 1))
    assert held.taken.wait(PATIENCE)
    seen: list[int] = []
    looking = threading.Thread(target=lambda: seen.append(sink.depth), daemon=True)
    looking.start()
    looking.join(0.2)  # time to see what is neither here nor there
    held.go.set()
    assert held.writing.wait(PATIENCE)
    looking.join(PATIENCE)
    held.write.set()
    assert seen == [1]
    assert sink.flush(PATIENCE)
    assert sink.depth == 0


def test_the_lag_counts_while_a_write_hangs(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what is alarmed on, and a database that hangs is worse than one that refuses."""
    held = Held(sink, monkeypatch)
    sink.offer(step(ticket(), EngineState.IDLE, 1))
    held.go.set()
    assert held.writing.wait(PATIENCE)
    first = sink.lag_seconds
    until(lambda: sink.lag_seconds > first > 0)
    held.write.set()
    assert sink.flush(PATIENCE)
    assert sink.lag_seconds == 0


@pytest.mark.parametrize(
    ("records", "seconds", "linger"),
    [
        (0, 0.001, 0.05),
        (1, 0.002, 0.05),
        (4, 0.01, 0.05),
        (5, 0.003, 0.25),
        (200, 0.03, 0.25),
        (200, 0.1, 0.4),
        (1, 9, 0.5),
    ],
)
def test_a_batch_waits_for_more_where_many_come_or_writing_is_slow(records: int, seconds: float, linger: float) -> None:
    assert _linger_after(records, seconds) == pytest.approx(linger)


def test_after_a_slow_write_more_records_are_written_at_once(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many engines start, writing must not take all the time; a lone engine's row does not wait."""
    batches: list[int] = []
    write = sink._write

    def slow(batch: list[Any], *more: Any) -> int:
        batches.append(len(batch))
        time.sleep(0.2)  # what a database takes that many share
        return write(batch, *more)

    monkeypatch.setattr(sink, "_write", slow)
    sink.offer(step(ticket(), EngineState.IDLE, 1))
    assert sink.flush(PATIENCE)
    assert sink._linger == LINGER_MAX
    with sink._lock:  # the thread takes none of them before all are there
        for _ in range(20):
            sink.offer(step(ticket(), EngineState.IDLE, 1))
    assert sink.flush(PATIENCE)
    assert batches == [1, 20]


def test_what_came_while_a_batch_was_written_has_waited_already(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the last rows of a burst are late by a write, a pause and a write."""
    pauses: list[float] = []
    wait_for = sink._lock.wait_for

    def noted(holds: Any, timeout: float | None = None) -> Any:
        if timeout is not None and threading.current_thread() is not threading.main_thread():
            pauses.append(timeout)
        return wait_for(holds, timeout)

    held = Held(sink, monkeypatch)
    held.go.set()
    sink.offer(step(ticket(), EngineState.IDLE, 1))
    assert held.writing.wait(PATIENCE)
    monkeypatch.setattr(sink._lock, "wait_for", noted)
    sink.offer(step(ticket(), EngineState.IDLE, 1))
    offered = time.monotonic()
    until(lambda: time.monotonic() - offered > LINGER_MAX)
    held.write.set()
    assert sink.flush(PATIENCE)
    assert pauses == []
