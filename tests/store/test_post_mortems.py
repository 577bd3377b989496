"""The index of post-mortems, the audit's questions and the canary's, on SQLite and MariaDB."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Engine, select, update

from linkis_ecm.model.record import PostMortemRecord
from linkis_ecm.store import linkis, schema
from linkis_ecm.store.sink import Sink
from tests.store.records import PATIENCE, T0, life


def entry(uid: str = "u1", attempt: int = 0, *, size: int = 10, days: float = 7) -> PostMortemRecord:
    return PostMortemRecord(
        ticket_id=f"ticket-{uid}", uid=uid, attempt=attempt, at=T0, reason="OOMKilled", message="zu groß 内存",
        files={"stdout": size}, missing=("stderr: 沒有",), expires=T0 + timedelta(days=days),
    )  # fmt: skip


def test_an_entry_is_written_once_per_attempt_and_replaced(engine: Engine, sink: Sink) -> None:
    sink.offer_post_mortem(entry())
    sink.offer_post_mortem(entry(attempt=1))
    assert sink.flush(PATIENCE)
    sink.offer_post_mortem(entry(size=99))
    assert sink.flush(PATIENCE)
    with engine.connect() as connection:
        found = connection.execute(select(schema.post_mortem).order_by(schema.post_mortem.c.attempt)).all()
    assert [(row.attempt, row.bytes, row.message) for row in found] == [
        (0, 99, "zu groß 内存"),
        (1, 10, "zu groß 内存"),
    ]


def test_expired_or_excess_post_mortems_are_deleted_oldest_first(sink: Sink) -> None:
    for uid, days in (("old", 1), ("middle", 3), ("young", 5)):
        sink.offer_post_mortem(entry(uid, days=days, size=100))
    # One attempt over, another not: the engine's bundles stay together.
    sink.offer_post_mortem(entry("old", attempt=1, days=2, size=100))
    assert sink.flush(PATIENCE)
    assert sink.expired_post_mortems(T0 + timedelta(days=1.5), total=10_000, per_user=10_000) == []
    assert sink.expired_post_mortems(T0 + timedelta(days=2), total=10_000, per_user=10_000) == ["old"]
    assert sink.expired_post_mortems(T0, total=250, per_user=10_000) == ["old"]
    assert sink.expired_post_mortems(T0, total=150, per_user=10_000) == ["old", "middle"]
    sink.delete_post_mortems("old")
    assert sink.expired_post_mortems(T0 + timedelta(days=4), total=10_000, per_user=10_000) == ["middle"]


def test_who_fills_the_archive_loses_own_bundles_and_nobody_elses(sink: Sink) -> None:
    # Alice's are older; bob has more.
    for uid, user in (("a1", "alice"), ("b1", "bob"), ("b2", "bob"), ("b3", "bob"), ("c1", "Bob")):
        sink.offer(replace(life(f"ticket-{uid}")[-1], create_user=user, service_instance=uid))
    for number, (uid, size) in enumerate((("a1", 100), ("c1", 10), ("b1", 100), ("b2", 100), ("b3", 100))):
        sink.offer_post_mortem(entry(uid, size=size, days=number + 1))
    assert sink.flush(PATIENCE)
    assert sink.archived_bytes() == 410
    assert sink.expired_post_mortems(T0, total=10_000, per_user=10_000) == []
    assert sink.expired_post_mortems(T0, total=400, per_user=10_000) == ["b1"]
    assert sink.expired_post_mortems(T0, total=220, per_user=10_000) == ["b1", "b2"]
    assert sink.expired_post_mortems(T0, total=10_000, per_user=200) == ["b1"]


def test_the_audit_finds_what_differs_and_mends_it_even_where_it_was_final(engine: Engine, sink: Sink) -> None:
    final = life("t1")[-1]
    missing = life("t2")[-1]
    for record in (final, missing):
        sink.offer(record)
    assert sink.flush(PATIENCE)
    assert sink.differing([final, missing]) == {}
    with engine.begin() as connection:
        connection.execute(
            update(linkis.record).where(linkis.record.c.ticket_id == final.ticket_id).values(status="Flying")
        )
        connection.execute(linkis.record.delete().where(linkis.record.c.ticket_id == missing.ticket_id))
    assert sink.differing([final, missing]) == {final.ticket_id: "status", missing.ticket_id: "missing"}
    for record in (final, missing):
        sink.repair(record)
    assert sink.differing([final, missing]) == {}
    assert sink.has_final(final.ticket_id)


def test_the_canarys_rows_are_taken_away_and_no_others(engine: Engine, sink: Sink) -> None:
    canary, other = life("t1")[-1], life("t2")[-1]
    sink.offer(canary)
    sink.offer(other)
    assert sink.flush(PATIENCE)
    assert sink.has_final(canary.ticket_id)
    sink.delete_engine_rows(canary.ticket_id)
    assert not sink.has_final(canary.ticket_id)
    with engine.connect() as connection:
        assert list(connection.scalars(select(linkis.record.c.ticket_id))) == [other.ticket_id]
        assert set(connection.scalars(select(schema.transition.c.ticket_id))) == {other.ticket_id}


def test_the_first_expiry_says_how_old_the_archive_is(sink: Sink) -> None:
    assert sink.first_expiry() is None
    for uid, days in (("young", 5), ("old", 1.5)):
        sink.offer_post_mortem(entry(uid, days=days))
    assert sink.flush(PATIENCE)
    assert sink.first_expiry() == T0 + timedelta(days=1.5)
