"""The execution journal on SQLite and MariaDB: lines arrive once, final ones stay, an outage loses nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import Engine

from linkis_ecm.model.record import ExecutionRecord
from linkis_ecm.store.database import open_engine
from linkis_ecm.store.journal import BATCH, Journal, write
from linkis_ecm.store.migrate import upgrade
from linkis_ecm.store.queries import Queries
from tests.store.records import PATIENCE

LINE = ExecutionRecord(
    task_id="t1", ticket_id="engine", uid="u", attempt=0, caller="alice", run_type="python", code_sha256="0" * 64,
    code_chars=3, status="Accepted", accepted=1000.25,
)  # fmt: skip
# Whose lines `executions` is to give.
OWNER: dict[str, str] = {"uid": "u", "user": "alice"}


@pytest.fixture
def journal(engine: Engine) -> Iterator[Journal]:
    made = Journal(engine)
    made.start()
    yield made
    made.close()


def test_a_line_arrives_as_it_was_offered_and_grows_to_its_end(journal: Journal, engine: Engine) -> None:
    queries = Queries(engine)
    journal.offer(LINE)
    assert journal.flush(PATIENCE)
    assert queries.execution("t1") == LINE
    done = replace(
        LINE, status="Failed", reason="ZeroDivisionError", message="durch 0 除", started=1001.5, ended=1002.0
    )
    journal.offer(done)
    assert journal.flush(PATIENCE)
    assert queries.execution("t1") == done


def test_a_final_line_never_changes(journal: Journal, engine: Engine) -> None:
    done = replace(LINE, status="Succeed", ended=1002.0)
    journal.offer(done)
    journal.offer(replace(LINE, status="Lost", reason="late"))
    assert journal.flush(PATIENCE)
    journal.offer(replace(LINE, status="Lost", reason="later"))
    assert journal.flush(PATIENCE)
    assert Queries(engine).execution("t1") == done


@pytest.mark.parametrize("written", [True, False], ids=["in the database", "still waiting"])
@pytest.mark.parametrize("other", [{"ticket_id": "bobs", "uid": "b"}, {"uid": "another"}], ids=["ticket", "uid"])
def test_another_engines_agent_says_nothing_of_a_task(
    journal: Journal, engine: Engine, written: bool, other: dict[str, str]
) -> None:
    """Finding S18: bob's agent ended alice's running task."""
    forged = replace(LINE, accepted=0.0, caller="", status="Failed", reason="Forged", ended=1002.0, **other)
    journal.offer(forged)  # before: nobody knows the task yet
    journal.offer(LINE)
    if written:
        assert journal.flush(PATIENCE)
    journal.offer(forged)
    assert journal.flush(PATIENCE)
    journal.offer(forged)
    assert journal.flush(PATIENCE)
    assert Queries(engine).execution("t1") == LINE
    done = replace(LINE, status="Succeed", ended=1003.0)
    journal.offer(done)
    journal.offer(forged)
    assert journal.flush(PATIENCE)
    assert Queries(engine).execution("t1") == done


def test_the_words_of_an_exception_do_not_keep_a_line_open(journal: Journal, engine: Engine) -> None:
    """Finding S20, of the journal: an exception that is named with an emoji."""
    journal.offer(LINE)
    assert journal.flush(PATIENCE)
    done = replace(LINE, status="Failed", reason="\U0001f600" * 90, message="a lone \ud83d, \U0001f600" * 400)
    journal.offer(done)
    assert journal.flush(PATIENCE)
    found = Queries(engine).execution("t1")
    assert found is not None
    assert (found.status, found.reason) == ("Failed", done.reason)
    assert not journal.metrics.dropped._value.get()


def test_a_refused_task_that_is_sent_again_has_the_end_of_the_second_request(journal: Journal, engine: Engine) -> None:
    refused = replace(LINE, status="Failed", reason="Refused", ended=1000.5)
    done = replace(LINE, status="Succeed", ended=1002.0)
    journal.offer(refused)
    journal.offer(LINE)  # still waiting to be written
    assert journal.flush(PATIENCE)
    assert Queries(engine).execution("t1") == LINE
    journal.offer(refused)
    assert journal.flush(PATIENCE)
    journal.offer(done)  # over a row
    assert journal.flush(PATIENCE)
    journal.offer(refused)  # another gateway's late word
    assert journal.flush(PATIENCE)
    assert Queries(engine).execution("t1") == done


def test_a_refused_task_that_another_pod_accepts_is_a_new_request(journal: Journal, engine: Engine) -> None:
    journal.offer(replace(LINE, status="Failed", reason="Refused", ended=1000.5))
    assert journal.flush(PATIENCE)
    again = replace(LINE, attempt=1, accepted=2000.0, caller="alice", code_chars=9)
    journal.offer(again)
    assert journal.flush(PATIENCE)
    assert Queries(engine).execution("t1") == again


def test_a_report_of_a_task_updates_its_row_but_creates_none(journal: Journal, engine: Engine) -> None:
    word = replace(LINE, status="Succeed", accepted=0.0, caller="", code_chars=0, ended=1003.0)
    journal.offer(word)
    assert journal.flush(PATIENCE)
    assert Queries(engine).execution("t1") is None
    journal.offer(LINE)
    journal.offer(word)  # while the first one waits
    assert journal.flush(PATIENCE)
    assert Queries(engine).execution("t1") == replace(LINE, status="Succeed", ended=1003.0)


def test_a_line_that_cannot_be_a_row_stops_no_other(journal: Journal, engine: Engine) -> None:
    journal.offer(replace(LINE, task_id="bad", started=1e300))
    journal.offer(LINE)
    assert journal.flush(PATIENCE)
    assert Queries(engine).execution("t1") == LINE
    journal.offer(replace(LINE, status="Succeed"))
    assert journal.flush(PATIENCE)
    found = Queries(engine).execution("t1")
    assert found is not None
    assert found.status == "Succeed"


def test_two_gateways_write_the_same_tasks_and_each_is_there_once(engine: Engine) -> None:
    journals = [Journal(engine) for _ in range(2)]
    together = threading.Barrier(2)

    def write(journal: Journal) -> None:
        together.wait(PATIENCE)
        for number in range(300):
            journal.offer(replace(LINE, task_id=f"t{number}"))

    threads = [threading.Thread(target=write, args=(journal,)) for journal in journals]
    for journal in journals:
        journal.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for journal in journals:
        assert journal.flush(2 * PATIENCE)
        journal.close()
    assert len(Queries(engine).executions("engine", 1000, **OWNER)) == 300


def test_open_lines_are_found_oldest_first_and_old_ones_go(journal: Journal, engine: Engine) -> None:
    journal.offer(replace(LINE, task_id="old", accepted=10.0))
    journal.offer(replace(LINE, task_id="young", accepted=20.0))
    journal.offer(replace(LINE, task_id="done", accepted=5.0, status="Succeed"))
    assert journal.flush(PATIENCE)
    queries = Queries(engine)
    assert [line.task_id for line in queries.open_executions(30.0, 10)] == ["old", "young"]
    assert [line.task_id for line in queries.open_executions(15.0, 10)] == ["old"]
    assert [line.task_id for line in queries.executions("engine", 2, **OWNER)] == ["young", "old"]
    assert journal.purge(15.0) == 1, "the ended one; an open line stays"
    assert queries.execution("done") is None


def test_another_users_lines_with_a_ticket_that_is_used_again_are_not_given(journal: Journal, engine: Engine) -> None:
    """Not within the limit either: others' newer lines must not take the place of one's own."""
    for number in range(3):
        journal.offer(replace(LINE, task_id=f"bob{number}", uid="v", caller="bob", accepted=2000.0))
    journal.offer(replace(LINE, task_id="own", uid="u", caller="admin"))
    journal.offer(replace(LINE, task_id="earlier", uid="w", caller="alice", accepted=900.0))
    assert journal.flush(PATIENCE)
    assert [line.task_id for line in Queries(engine).executions("engine", 2, **OWNER)] == ["own", "earlier"]


def test_an_outage_of_the_database_delays_lines_and_loses_none(new_url: Callable[[], str]) -> None:
    url = new_url()
    engine = open_engine(url)
    journal = Journal(engine)
    journal.start()  # the tables are not there yet
    for number in range(50):
        journal.offer(replace(LINE, task_id=f"t{number}"))
    assert not journal.flush(0.5)
    assert journal.pending("t49") is not None
    upgrade(url)
    assert journal.flush(2 * PATIENCE)
    assert len(Queries(engine).executions("engine", 100, **OWNER)) == 50
    journal.close()
    engine.dispose()


def test_a_full_batch_is_written_without_a_wait(
    journal: Journal, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linkis_ecm.store.journal.LINGER", 1000 * PATIENCE)
    for number in range(BATCH):
        journal.offer(replace(LINE, task_id=f"t{number}"))
    assert journal.flush(PATIENCE)
    assert len(Queries(engine).executions("engine", 2 * BATCH, **OWNER)) == BATCH


def test_the_first_of_two_replicas_ends_stays(new_url: Callable[[], str]) -> None:
    url = new_url()
    upgrade(url)
    engines = [open_engine(url), open_engine(url)]
    replicas = [Journal(engine) for engine in engines]  # their threads do not run: what is offered waits
    first, second = (replace(LINE, status="Lost", reason=why, ended=1002.5 + n) for n, why in enumerate(("A", "B")))
    try:
        replicas[0].offer(LINE)
        # The request's own line is written with the end, if it waits still.
        replicas[0].end([first])
        replicas[1].end([second])
        replicas[0].end([second])
        assert Queries(engines[1]).executions_by_id(["t1", "none"]) == [first]
        # An end that was told is before one that is concluded, and so is a refusal.
        for name, reason in (("t2", ""), ("t3", "Refused")):
            told = replace(LINE, task_id=name, status="Failed", reason=reason, ended=1001.0)
            replicas[0].offer(told)
            replicas[0].end([replace(first, task_id=name)])
            assert Queries(engines[1]).execution(name) == told
        replicas[1].end([replace(first, task_id="t4")])
        assert Queries(engines[0]).execution("t4") is None
    finally:
        for engine in engines:
            engine.dispose()


@pytest.fixture
def three(new_url: Callable[[], str]) -> Iterator[list[Engine]]:
    """Three engines over one database."""
    url = new_url()
    upgrade(url)
    engines = [open_engine(url) for _ in range(3)]
    yield engines
    for engine in engines:
        engine.dispose()


def at_once(works: Sequence[Callable[[], None]]) -> None:
    """Runs each in a thread of its own, begun together; raises the error of one."""
    begin = threading.Barrier(len(works))

    def one(work: Callable[[], None]) -> None:
        begin.wait(PATIENCE)
        work()

    with ThreadPoolExecutor(len(works)) as pool:
        for running in [pool.submit(one, work) for work in works]:
            running.result(2 * PATIENCE)


def test_replicas_that_end_the_same_tasks_at_once_keep_one_end_of_each(three: list[Engine]) -> None:
    lines = [replace(LINE, task_id=f"t{number}") for number in range(40)]

    def end(number: int) -> None:
        ends = [replace(line, status="Lost", reason=str(number), ended=2000.0 + number) for line in lines]
        Journal(three[number]).end(ends if number % 2 else ends[::-1])

    with three[0].begin() as connection:
        write(connection, lines)
    at_once([partial(end, number) for number in range(3)])
    kept = Queries(three[0]).executions_by_id([line.task_id for line in lines])
    assert {(record.status, record.ended - 2000.0 == float(record.reason)) for record in kept} == {("Lost", True)}
    assert len(kept) == len(lines)


def test_gateways_that_write_the_same_tasks_in_any_order_do_not_block_each_other(three: list[Engine]) -> None:
    """Rows whose request waits beside those of which only an agent's word does: two statements over one batch."""
    lines = [replace(LINE, task_id=f"t{number:02}") for number in range(60)]

    def work(number: int) -> None:
        rng = random.Random(number)
        for turn in range(20):
            words = [replace(line, status="Running", started=2000.0 + turn) for line in lines]
            mixed = [word if rng.random() < 0.5 else replace(word, accepted=0.0) for word in words]
            rng.shuffle(mixed)
            with three[number].begin() as connection:
                write(connection, mixed)

    with three[0].begin() as connection:
        write(connection, lines)
    at_once([partial(work, number) for number in range(3)])
    kept = Queries(three[0]).executions_by_id([line.task_id for line in lines])
    assert [record.started for record in kept] == [2019.0] * len(lines)
