"""The sink where several engines name one ticket: users choose tickets, so a row belongs to its first engine."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, delete, select

from linkis_ecm.model.record import EngineRecord, PostMortemRecord
from linkis_ecm.model.states import EngineState
from linkis_ecm.store import rows, schema
from linkis_ecm.store.queries import Queries
from linkis_ecm.store.sink import Sink
from tests.store.records import PATIENCE, at, edges, life, step, ticket


def post_mortem(of: EngineRecord) -> PostMortemRecord:
    return PostMortemRecord(
        ticket_id=of.ticket_id, uid=of.uid, attempt=0, at=of.as_of, reason="R", message="m", files={}, missing=(),
        expires=at(100000),
    )  # fmt: skip


def foreign(name: str, state: EngineState, seconds: float, **more: Any) -> EngineRecord:
    """A record of another user's engine that names the ticket."""
    other = {
        "uid": f"of-mallory-{name[:8]}", "create_user": "mallory", "namespace": "evil",
        "service_instance": "evil:9105", "label_value": "mallory-IDE,python-3.11",
    }  # fmt: skip
    return step(name, state, seconds, **(other | more))


@pytest.mark.parametrize("state", [EngineState.STARTING, EngineState.IDLE, EngineState.FAILED])
@pytest.mark.parametrize("ended", [False, True])
def test_a_row_is_never_written_by_an_engine_that_names_its_ticket(
    engine: Engine, sink: Sink, state: EngineState, ended: bool
) -> None:
    name, refused = ticket(), list[EngineRecord]()
    sink.watch_foreign(refused.append)
    for record in life(name) if ended else life(name)[:2]:
        sink.offer(record)
    assert sink.flush(PATIENCE)
    queries = Queries(engine)
    before = queries.record_by_ticket(name), queries.engine(name), queries.transitions(name), edges(engine)
    thief = foreign(name, state, 50)
    sink.offer(thief)
    assert sink.flush(PATIENCE)
    assert (queries.record_by_ticket(name), queries.engine(name), queries.transitions(name), edges(engine)) == before
    assert refused == [thief]
    # Neither the audit nor the resync lets it in.
    assert sink.differing([thief]) == {}
    sink.repair(thief)
    assert queries.record_by_ticket(name) == before[0]
    sink.offer_post_mortem(post_mortem(thief))
    assert sink.flush(PATIENCE)
    with engine.connect() as connection:
        assert connection.execute(select(schema.post_mortem)).first() is None
    if not ended:
        assert sink.resync({thief.uid}, at(10000)) == [name], "the thief does not keep the row alive"
        assert queries.engine(name).final  # type: ignore[union-attr]


def test_an_engine_of_the_same_user_does_not_write_under_an_ended_ticket(engine: Engine, sink: Sink) -> None:
    name, refused = ticket(), list[EngineRecord]()
    sink.watch_foreign(refused.append)
    for record in life(name):
        sink.offer(record)
    again = step(name, EngineState.STARTING, 50, uid="another")
    sink.offer(again)
    assert sink.flush(PATIENCE)
    assert refused == [again]
    row = Queries(engine).record_by_ticket(name)
    assert row is not None
    assert row.status == "Success"


def test_two_engines_of_one_ticket_in_one_batch_are_not_merged(engine: Engine, sink: Sink) -> None:
    name, refused = ticket(), list[EngineRecord]()
    mine, theirs = step(name, EngineState.STARTING, 0), foreign(name, EngineState.IDLE, 1)
    with engine.begin() as connection:
        assert rows.write(connection, [mine, theirs], at(1), on_foreign=refused.append) == 1
    assert refused == [theirs]
    row = Queries(engine).record_by_ticket(name)
    assert row is not None
    assert (row.status, row.create_user) == ("Starting", "hadoop")
    sink.offer(step(name, EngineState.IDLE, 2))
    sink.offer(foreign(name, EngineState.FAILED, 3))
    sink.offer(step(name, EngineState.BUSY, 4))
    assert sink.flush(PATIENCE)
    row = Queries(engine).record_by_ticket(name)
    assert row is not None
    assert (row.status, row.service_instance) == ("Busy", f"host-{name[:8]}:9105")


@pytest.mark.parametrize("user", ["hadoop", "mallory"])
def test_a_row_that_linkis_made_belongs_to_its_user(engine: Engine, sink: Sink, user: str) -> None:
    name, refused = ticket(), list[EngineRecord]()
    sink.watch_foreign(refused.append)
    with engine.begin() as connection:
        rows.write(connection, [step(name, EngineState.STARTING, 0)], at(0))
        connection.execute(delete(schema.engine))
    sink.offer(step(name, EngineState.IDLE, 1, create_user=user))
    assert sink.flush(PATIENCE)
    row = Queries(engine).record_by_ticket(name)
    assert row is not None
    assert (row.status, len(refused)) == (("Idle", 0) if user == "hadoop" else ("Starting", 1))
