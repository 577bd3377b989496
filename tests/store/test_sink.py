"""The sink: what reaches the tables, in which order, and what does not, whatever happens to the database."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, event, select, text, update

from linkis_ecm.model.record import EngineRecord, Material, Transition
from linkis_ecm.model.states import EngineState
from linkis_ecm.store import linkis, rows, schema
from linkis_ecm.store.database import open_engine
from linkis_ecm.store.migrate import upgrade
from linkis_ecm.store.queries import Queries
from linkis_ecm.store.rows import naive
from linkis_ecm.store.sink import Sink, merged
from tests.store.records import PATIENCE, RESOURCE, T0, at, edges, life, step, ticket
from tools.testkit.servers.mariadb import MariaDB


def test_a_life_leaves_its_row_its_edge_and_its_history(engine: Engine, sink: Sink) -> None:
    name = ticket()
    queries = Queries(engine)
    starting, idle, busy, again, success = life(name)
    sink.offer(starting)
    assert sink.flush(PATIENCE)
    row = queries.record_by_ticket(name)
    assert row is not None
    assert (row.status, row.service_instance, row.used_times, row.used_time) == ("Starting", name, 0, None)
    assert row.create_time == naive(at(0))
    assert edges(engine) == [(name, "ecm:9102")]
    for record, word in ((idle, "Idle"), (busy, "Busy"), (again, "Idle")):
        sink.offer(record)
        assert sink.flush(PATIENCE)
        row = queries.record_by_ticket(name)
        assert row is not None
        assert (row.status, row.service_instance) == (word, idle.service_instance)
        assert edges(engine) == [(idle.service_instance, "ecm:9102")]
    sink.offer(success)
    assert sink.flush(PATIENCE)
    row = queries.record_by_ticket(name)
    assert row is not None
    assert (row.status, row.request_times, row.used_times, row.release_times) == ("Success", 1, 1, 1)
    assert (row.request_resource, row.used_resource, row.released_resource) == (RESOURCE, RESOURCE, RESOURCE)
    assert row.release_time == naive(at(4))
    assert edges(engine) == []
    assert [t.state for t in queries.transitions(name)] == ["Starting", "Idle", "Busy", "Idle", "Success"]
    told = queries.engine(name)
    assert told is not None
    assert (told.final, told.reason) == (True, "R")


def test_a_final_row_never_changes(engine: Engine, sink: Sink) -> None:
    name = ticket()
    for record in life(name):
        sink.offer(record)
    assert sink.flush(PATIENCE)
    before = Queries(engine).record_by_ticket(name)
    sink.offer(step(name, EngineState.IDLE, 50))
    sink.offer(step(name, EngineState.FAILED, 60))
    assert sink.flush(PATIENCE)
    assert Queries(engine).record_by_ticket(name) == before
    assert edges(engine) == []


def test_an_older_record_never_overwrites_a_newer_one(engine: Engine, sink: Sink) -> None:
    name = ticket()
    starting, idle, busy, *_ = life(name)
    for record in (busy, idle, starting):
        sink.offer(record)
        assert sink.flush(PATIENCE)
    row = Queries(engine).record_by_ticket(name)
    assert row is not None
    assert (row.status, row.used_times) == ("Busy", 1)
    assert [t.state for t in Queries(engine).transitions(name)] == ["Starting", "Idle", "Busy"]


def test_label_user_log_folder_and_creation_stay_as_first_written(engine: Engine, sink: Sink) -> None:
    name = ticket()
    sink.offer(step(name, EngineState.STARTING, 0))
    assert sink.flush(PATIENCE)
    other = {"label_value": "x-y,z-1", "create_user": "eve", "log_dir_suffix": "elsewhere", "create_time": at(99)}
    sink.offer(step(name, EngineState.IDLE, 1, **other))
    assert sink.flush(PATIENCE)
    row = Queries(engine).record_by_ticket(name)
    assert row is not None
    assert (row.label_value, row.create_user) == ("hadoop-IDE,python-3.11", "hadoop")
    assert row.log_dir_suffix == f"hadoop/20261124/python/{name}/logs"
    assert row.create_time == T0.replace(tzinfo=None, microsecond=0)


def test_counters_and_what_is_known_do_not_go_back(engine: Engine, sink: Sink) -> None:
    name = ticket()
    sink.offer(step(name, EngineState.IDLE, 1))
    assert sink.flush(PATIENCE)
    bare = {"used_times": 0, "used_resource": None, "used_time": None, "request_resource": None}
    sink.offer(step(name, EngineState.FAILED, 2, **bare))
    assert sink.flush(PATIENCE)
    row = Queries(engine).record_by_ticket(name)
    assert row is not None
    assert (row.used_times, row.used_resource, row.request_resource) == (1, RESOURCE, RESOURCE)
    assert row.used_time is not None


def test_records_of_one_engine_coalesce_and_keep_every_transition() -> None:
    name = ticket()
    whole = life(name)[0]
    for record in life(name)[1:]:
        whole, _ = merged(whole, record)
    assert whole.status is EngineState.SUCCESS
    assert [t.state.value for t in whole.transitions] == ["Starting", "Idle", "Busy", "Idle", "Success"]


def test_a_refused_record_is_set_aside_and_the_others_are_written(engine: Engine, sink: Sink) -> None:
    before = sink.metrics.refused._value.get()
    good, bad = ticket(), ticket()
    poison: Any = step(bad, EngineState.STARTING, 0, label_value=None)
    sink.offer(poison)
    sink.offer(step(good, EngineState.STARTING, 0))
    assert sink.flush(PATIENCE)
    assert Queries(engine).record_by_ticket(good) is not None
    assert Queries(engine).record_by_ticket(bad) is None
    assert sink.metrics.refused._value.get() == before + 1
    assert sink.healthy


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # fmt: skip
@given(st.data())
def test_any_order_and_repetition_of_a_life_ends_in_the_same_rows(sqlite_engine: Engine, data: st.DataObject) -> None:
    name = ticket()
    steps = life(name)
    order = data.draw(st.lists(st.sampled_from(steps), max_size=12))
    late = data.draw(st.lists(st.sampled_from(steps), max_size=4))
    for record in [*order, steps[-1], *late]:
        with sqlite_engine.begin() as connection:
            rows.write(connection, [record], at(100))
    row = Queries(sqlite_engine).record_by_ticket(name)
    assert row is not None
    assert (row.status, row.service_instance) == ("Success", steps[-1].service_instance)
    assert (row.request_times, row.used_times, row.release_times) == (1, 1, 1)
    assert steps[-1].service_instance not in [edge for edge, _ in edges(sqlite_engine)]
    assert name not in [edge for edge, _ in edges(sqlite_engine)]


@pytest.fixture(scope="module")
def sqlite_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    url = f"sqlite:///{tmp_path_factory.mktemp('property')}/x.sqlite3"
    upgrade(url)
    return open_engine(url)


def test_materials_follow_the_plugin(engine: Engine, sink: Sink) -> None:
    def material(file: str, size: int) -> Material:
        return Material(
            engine_type="python", version="3.11", file_name=file, file_size=size, last_modified_ms=5,
            bml_resource_id="r", bml_resource_version="v000001",
        )  # fmt: skip

    def found() -> list[tuple[str, int]]:
        with engine.connect() as connection:
            table = linkis.materials.c
            listed = connection.execute(select(table.file_name, table.file_size).order_by(table.file_name))
            return [tuple(row) for row in listed]

    sink.offer_materials("python", "3.11", [material("conf.zip", 1), material("lib.zip", 2)])
    assert sink.flush(PATIENCE)
    assert found() == [("conf.zip", 1), ("lib.zip", 2)]
    sink.offer_materials("python", "3.11", [material("lib.zip", 3)])
    sink.offer_materials("python", "3.12", [])
    assert sink.flush(PATIENCE)
    assert found() == [("lib.zip", 3)]


def test_rows_of_engines_that_the_api_has_not_are_ended_once(engine: Engine, sink: Sink) -> None:
    gone, lives = ticket(), ticket()
    for name in (gone, lives):
        sink.offer(step(name, EngineState.IDLE, 1))
    assert sink.flush(PATIENCE)
    assert sink.resync({lives}, at(100)) == [], "a row that was just written may be of an engine younger than the list"
    later = at(100) + rows.ABSENT_GRACE + timedelta(seconds=1)
    assert sink.resync(set(), later, {"elsewhere"}) == [], "its namespace was not listed: the engine may live"
    assert sink.resync(set(), later, ()) == []
    assert sum(sink.open_elsewhere({"elsewhere"}).values()) >= 2
    assert sink.resync({lives}, later) == [gone]
    assert sink.resync({lives}, later) == []
    row = Queries(engine).record_by_ticket(gone)
    assert row is not None
    assert (row.status, row.release_times) == ("ShuttingDown", 1)
    assert row.release_time is not None
    assert [edge for edge, _ in edges(engine)] == [f"host-{lives[:8]}:9105"]
    alive = Queries(engine).record_by_ticket(lives)
    assert alive is not None
    assert alive.status == "Idle"


@pytest.fixture(params=["utf8", "latin1"])
def old_database(request: pytest.FixtureRequest, mariadb: MariaDB) -> Iterator[Engine]:
    """A database whose default charset holds less than Unicode."""
    url = mariadb.new_database(request.param)
    upgrade(url)
    made = open_engine(url)
    yield made
    made.dispose()


WORDS = ["\U0001f600 failed", "\U0001f600" * 25_000, "a lone \ud83d surrogate", "\u00e1" * 70_000]


@pytest.mark.mariadb
@pytest.mark.parametrize("words", WORDS, ids=["emoji", "long", "surrogate", "two bytes"])
def test_whatever_words_an_engine_ends_with_its_end_is_written(old_database: Engine, words: str) -> None:
    """Finding S20: the row stayed Busy."""
    sink = Sink(old_database, clock=lambda: at(100), rng=random.Random(1))
    sink.start()
    name = ticket()
    sink.offer(step(name, EngineState.BUSY, 1))
    assert sink.flush(PATIENCE)
    last = Transition(EngineState.FAILED, at(2), "R", words)
    sink.offer(step(name, EngineState.FAILED, 2, message=words, transitions=(last,)))
    assert sink.flush(PATIENCE)
    queries = Queries(old_database)
    row, engine = queries.record_by_ticket(name), queries.engine(name)
    assert row is not None
    assert engine is not None
    assert (row.status, row.release_times, engine.final) == ("Failed", 1, True)
    assert engine.message[:8] == words.encode("utf-8", "replace").decode()[:8]
    assert len(engine.message.encode()) <= 60_000
    assert queries.transitions(name)[-1].message == engine.message
    assert not sink.metrics.refused._value.get()
    sink.close(PATIENCE)


@pytest.mark.mariadb
def test_words_that_the_database_still_refuses_are_replaced(old_database: Engine) -> None:
    """Somebody may have changed our tables back."""
    with old_database.begin() as connection:
        for table in ("linkis_ecm_engine", "linkis_ecm_engine_transition"):
            connection.execute(text(f"ALTER TABLE {table} MODIFY message VARCHAR(2000) CHARACTER SET latin1"))
    sink = Sink(old_database, clock=lambda: at(100), rng=random.Random(1))
    sink.start()
    name, other = ticket(), ticket()
    sink.offer(step(name, EngineState.FAILED, 2, message="it ended \U0001f600" + "x" * 5000))
    sink.offer(step(other, EngineState.IDLE, 2))
    assert sink.flush(PATIENCE)
    engine = Queries(old_database).engine(name)
    assert engine is not None
    assert (engine.final, engine.message) == (True, ("it ended ?" + "x" * 5000)[:1000])
    assert Queries(old_database).engine(other) is not None
    assert not sink.metrics.refused._value.get()
    sink.close(PATIENCE)


def test_names_are_compared_exactly(engine: Engine, sink: Sink) -> None:
    """Finding S19: to MariaDB's usual collation ALICE, álice and "alice " are alice."""
    users = ["alice", "ALICE", "\u00e1lice", "alice "]
    names = {user: ticket() for user in users}
    for user, name in names.items():
        sink.offer(step(name, EngineState.IDLE, 1, create_user=user))
    assert sink.flush(PATIENCE)
    queries = Queries(engine)
    for user, name in names.items():
        assert [row.ticket_id for row in queries.list_records(user=user)[0]] == [name]
    assert queries.list_records(status="IDLE")[1] == 0
    assert queries.record_by_ticket(names["alice"].upper()) is None
    for emoji in ("\U0001f600", "alice\U0001f600"):
        assert queries.record_by_ticket(emoji) is None
        assert queries.latest_record_by_instance(emoji) is None
        assert queries.list_records(user=emoji)[1] == 0
        assert queries.list_records(engine_type=emoji)[1] == 0


def test_pages_filters_and_lookups(engine: Engine, sink: Sink) -> None:
    names = [ticket() for _ in range(5)]
    for n, name in enumerate(names):
        user = "eve" if n == 0 else "hadoop"
        sink.offer(step(name, EngineState.IDLE, 1, create_user=user, create_time=at(n * 10)))
    assert sink.flush(PATIENCE)
    queries = Queries(engine)
    page, total = queries.list_records(user="hadoop", page=1, page_size=3)
    assert total == 4
    assert [row.ticket_id for row in page] == [names[4], names[3], names[2]]
    rest, _ = queries.list_records(user="hadoop", page=2, page_size=3)
    assert [row.ticket_id for row in rest] == [names[1]]
    assert queries.list_records(engine_type="spark")[1] == 0
    assert queries.list_records(engine_type="pyth_n")[1] == 0
    assert queries.list_records(engine_type="python", status="Idle")[1] == 5
    by_log = queries.record_by_log_suffix(f"hadoop/20261124/python/{names[0]}/logs")
    assert by_log is not None
    assert by_log.ticket_id == names[0]
    assert queries.record_by_log_suffix(f"hadoop/20261124/python/{names[0]}") is None
    by_instance = queries.latest_record_by_instance(f"host-{names[1][:8]}:9105")
    assert by_instance is not None
    assert by_instance.ticket_id == names[1]


def test_a_guard_that_was_lost_is_made_again(engine: Engine) -> None:
    name = ticket()
    with engine.begin() as connection:
        rows.write(connection, [step(name, EngineState.IDLE, 1)], at(1))
        connection.execute(delete(schema.engine))
        assert rows.write(connection, [step(name, EngineState.BUSY, 2)], at(2)) == 1
    row = Queries(engine).record_by_ticket(name)
    assert row is not None
    assert row.status == "Busy"


def test_what_is_written_already_is_not_written_again(engine: Engine) -> None:
    """A new operator offers all that its predecessor has written; a row that differs is written."""
    starting, idle, *_ = life(ticket())
    sent: list[str] = []

    def note(_c: Any, _k: Any, statement: str, *_: Any) -> None:
        sent.append(statement.split(maxsplit=1)[0].upper())

    def write(record: EngineRecord) -> list[str]:
        sent.clear()
        with engine.begin() as connection:
            rows.write(connection, [record], at(9))
        return [word for word in sent if word != "SELECT"]

    event.listen(engine, "before_cursor_execute", note)
    try:
        assert "INSERT" in write(starting)
        assert "UPDATE" in write(idle)
        assert write(idle) == []
        assert write(starting) == []
        assert write(replace(idle, request_resource=None, message="other words")) == ["UPDATE"]
        with engine.begin() as connection:
            connection.execute(update(linkis.record).values(status="Busy"))
        assert write(replace(idle, message="other words")) == ["UPDATE"]
    finally:
        event.remove(engine, "before_cursor_execute", note)
    row = Queries(engine).record_by_ticket(idle.ticket_id)
    assert row is not None
    assert (row.status, row.request_resource) == ("Idle", RESOURCE)


def test_transitions_repeat_harmlessly(engine: Engine) -> None:
    name = ticket()
    record: EngineRecord = step(
        name, EngineState.IDLE, 1,
        transitions=(Transition(EngineState.STARTING, at(0)), Transition(EngineState.IDLE, at(1))),
    )  # fmt: skip
    for _ in range(2):
        with engine.begin() as connection:
            rows.write(connection, [record], at(1))
    assert [t.state for t in Queries(engine).transitions(name)] == ["Starting", "Idle"]


def test_of_one_engine_the_latest_transitions_are_kept(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "TRANSITIONS_KEPT", 10)
    flood, quiet = ticket(), ticket()
    with engine.begin() as connection:
        rows.write(connection, [step(quiet, EngineState.IDLE, 0)], at(0))
        for start in range(0, 100, 25):
            steps = tuple(Transition(EngineState.BUSY, at(start + n)) for n in range(25))
            rows.write(connection, [step(flood, EngineState.BUSY, start, transitions=steps)], at(start))
    queries = Queries(engine)
    assert [t.at for t in queries.transitions(flood)] == [at(n) for n in range(90, 100)]
    assert len(queries.transitions(quiet)) == 1


def test_old_transitions_go_in_bounded_steps(engine: Engine, sink: Sink) -> None:
    name = ticket()
    steps = tuple(Transition(EngineState.BUSY, at(n)) for n in range(10))
    sink.offer(step(name, EngineState.BUSY, 9, transitions=steps))
    assert sink.flush(PATIENCE)
    assert [sink.purge_transitions(at(7), limit=3) for _ in range(4)] == [3, 3, 1, 0]
    assert [t.at for t in Queries(engine).transitions(name)] == [at(7), at(8), at(9)]
