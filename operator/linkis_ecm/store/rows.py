"""Writes records into the tables: one transaction for a batch, and any repetition and order is harmless.

A row belongs to the engine (the uid) that made it, whatever ticket another one names. A final row never changes; an
older record never overwrites a newer one; an update never touches what Linkis's own
update does not (label, user, log folder, creation). Must not queue or retry.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, case, delete, func, insert, or_, select, update
from sqlalchemy import bindparam as bind

from linkis_ecm.model.record import EngineRecord, Material, PostMortemRecord
from linkis_ecm.model.states import EngineState
from linkis_ecm.store import schema
from linkis_ecm.store.evictions import Kept, evictions
from linkis_ecm.store.linkis import engine_em, materials, record
from linkis_ecm.store.texts import fitting

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Rows of a live engine that nobody has written for this long and whose engine the API does not have are ended: a new
# engine may be in the API after the list was made.
ABSENT_GRACE = timedelta(seconds=60)
# Of one engine, the latest. A session of a day with a task each minute has 3000; a flood of 20 a second has as many
# in three minutes.
TRANSITIONS_KEPT = 5000
# Values of one IN.
IN_MAX = 500
_TIMES = ("request_times", "used_times", "release_times")
# Columns that have the newest value, whatever it is; others keep theirs where the new one is NULL.
_EXACT = ("service_instance", "ecm_instance", "status")


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def naive(moment: datetime | None) -> datetime | None:
    """As Linkis's datetime columns have it: UTC, whole seconds (MySQL would round a half up, into the future)."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None, microsecond=0)


def write(
    connection: Connection,
    batch: Sequence[EngineRecord],
    now: datetime,
    *,
    on_foreign: Callable[[EngineRecord], None] = lambda _: None,
) -> int:
    """Writes a batch of records of different engines; returns how many changed something.

    `on_foreign` is called for each record whose ticket belongs to another engine: nothing of it is written.
    """
    tickets = [r.ticket_id for r in batch]
    guards: dict[str, tuple[int, bool]] = {}
    owners: dict[str, str] = {}
    said: dict[str, tuple[Any, ...]] = {}
    for ticket, uid, as_of, final, *rest in connection.execute(_GUARDS, {"tickets": tickets}):
        guards[ticket], owners[ticket], said[ticket] = (as_of, final), uid, tuple(rest)
    known: dict[str, str] = {}
    written: dict[str, tuple[Any, ...]] = {}
    for ticket, user, *rest in connection.execute(_RECORDS, {"tickets": tickets}):
        known[ticket], written[ticket] = user, tuple(rest)
    own: list[EngineRecord] = []
    for r in batch:
        # A row that Linkis's own ECM made has no uid: it belongs to its user.
        of_same_user = r.ticket_id in owners or known.get(r.ticket_id, r.create_user) == r.create_user
        if of_same_user and owners.setdefault(r.ticket_id, r.uid) == r.uid:
            own.append(r)
        else:
            on_foreign(r)
    batch = own
    newer = [r for r in batch if _is_newer(r, guards.get(r.ticket_id))]
    new = [(r, _new_row(r)) for r in newer]
    _each(connection, insert(record), [row for r, row in new if r.ticket_id not in known])
    changed = [r for r, row in new if r.ticket_id in known and not _says(written[r.ticket_id], row)]
    _each(connection, _UPDATE_RECORD, [_changed_row(r) for r in changed])
    guarding = [(r, _guard_row(r, now)) for r in newer]
    _each(connection, insert(schema.engine), [row for r, row in guarding if r.ticket_id not in guards])
    # A new operator offers what its predecessor has written: of that nothing is written again.
    stale = [
        row
        for r, row in guarding
        if r.ticket_id in guards
        and (guards[r.ticket_id], said[r.ticket_id])
        != ((row["as_of"], row["final"]), tuple(row[name] for name in _GUARD_TEXTS))
    ]
    _each(connection, _UPDATE_GUARD, [{f"b_{k}": v for k, v in row.items()} for row in stale])
    _write_live_engines(connection, newer, now)
    # The history also takes late transitions, because it is a set of facts.
    _write_transitions(connection, [r for r in batch if not guards.get(r.ticket_id, (0, False))[1]])
    return len(newer)


def _is_newer(r: EngineRecord, guard: tuple[int, bool] | None) -> bool:
    if guard is None:
        return True
    as_of, final = guard
    return not final and micros(r.as_of) >= as_of


def _each(connection: Connection, statement: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _new_row(r: EngineRecord) -> dict[str, Any]:
    return {
        "label_value": r.label_value, "create_user": r.create_user, "service_instance": r.service_instance,
        "ecm_instance": r.ecm_instance, "ticket_id": r.ticket_id, "status": r.status.value,
        "log_dir_suffix": r.log_dir_suffix, "request_times": r.request_times, "request_resource": r.request_resource,
        "used_times": r.used_times, "used_resource": r.used_resource, "metrics": r.metrics,
        "release_times": r.release_times, "released_resource": r.released_resource,
        "release_time": naive(r.release_time), "used_time": naive(r.used_time), "create_time": naive(r.create_time),
    }  # fmt: skip


# What an update may change: Linkis's own update leaves label, user, log folder and creation alone, too.
_FIXED = {"label_value", "create_user", "ticket_id", "log_dir_suffix", "create_time"}
_CHANGING = (
    "service_instance", "ecm_instance", "status", "request_times", "request_resource", "used_times", "used_resource",
    "metrics", "release_times", "released_resource", "release_time", "used_time",
)  # fmt: skip


# What a guard says beside its ticket, its uid, and how far it is.
_GUARD_TEXTS = ("namespace", "name", "reason", "message")
_GUARDS = select(*(schema.engine.c[name] for name in ("ticket_id", "uid", "as_of", "final", *_GUARD_TEXTS))).where(
    schema.engine.c.ticket_id.in_(bind("tickets", expanding=True))
)
_RECORDS = select(*(record.c[name] for name in ("ticket_id", "create_user", *_CHANGING))).where(
    record.c.ticket_id.in_(bind("tickets", expanding=True))
)


def _says(written: tuple[Any, ...], row: dict[str, Any]) -> bool:
    """Whether an update by `row` would leave these columns (_CHANGING) as they are."""
    for name, old in zip(_CHANGING, written, strict=True):
        new = row[name]
        if name in _TIMES:
            if new > (old or 0):
                return False
        elif new != old and (new is not None or name in _EXACT):
            return False
    return True


def _changed_row(r: EngineRecord) -> dict[str, Any]:
    row = {f"b_{name}": value for name, value in _new_row(r).items() if name not in _FIXED}
    return row | {"b_ticket_id": r.ticket_id}


def _greatest(column: Any, name: str) -> Any:
    """The greater of the old and the new value: a counter never decreases."""
    old = func.coalesce(column, 0)
    return case((old > bind(name), old), else_=bind(name))


def _unless_null(column: Any, name: str) -> Any:
    """The new value, or the old one if the new one is NULL: a record made after its plugin was deleted lacks values."""
    return func.coalesce(bind(name, type_=column.type), column)


_UPDATE_RECORD = (
    update(record)
    .where(record.c.ticket_id == bind("b_ticket_id"))
    .values(
        {
            name: _greatest(record.c[name], f"b_{name}")
            if name in _TIMES
            else bind(f"b_{name}")
            if name in _EXACT
            else _unless_null(record.c[name], f"b_{name}")
            for name in _CHANGING
        }
    )
)
_UPDATE_GUARD = (
    update(schema.engine)
    .where(schema.engine.c.ticket_id == bind("b_ticket_id"), schema.engine.c.uid == bind("b_uid"))
    .values(
        {name: bind(f"b_{name}") for name in ("namespace", "name", "as_of", "written", "final", "reason", "message")}
    )
)


def _guard_row(r: EngineRecord, now: datetime) -> dict[str, Any]:
    return {
        "ticket_id": r.ticket_id, "uid": r.uid, "namespace": r.namespace, "name": r.name, "as_of": micros(r.as_of),
        "written": micros(now), "final": r.final, "reason": r.reason,
        "message": fitting(r.message),
    }  # fmt: skip


_UPDATE_LIVE = (
    update(engine_em)
    .where(engine_em.c.id == bind("b_id"))
    .values({name: bind(f"b_{name}") for name in ("engine_instance", "em_instance", "update_time")})
)


def _write_live_engines(connection: Connection, newer: Sequence[EngineRecord], now: datetime) -> None:
    """`linkis_cg_manager_engine_em`: one row for each live engine, under its ticket until it has an address."""
    if not newer:
        return
    names = {name for r in newer for name in (r.ticket_id, r.service_instance)}
    found = connection.execute(
        select(engine_em.c.id, engine_em.c.engine_instance).where(engine_em.c.engine_instance.in_(names))
    )
    existing: dict[str, list[int]] = {}
    for number, name in found:
        existing.setdefault(name, []).append(number)
    gone: list[int] = []
    made: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for r in newer:
        own = sorted(existing.get(r.ticket_id, []) + (existing.get(r.service_instance, []) if r.used_times else []))
        if r.final:
            gone += own
        elif not own:
            row = {"engine_instance": r.service_instance, "em_instance": r.ecm_instance}
            made.append(row | {"update_time": naive(now), "create_time": naive(r.create_time)})
        else:
            gone += own[1:]
            if own[0] not in existing.get(r.service_instance, []):
                change = {"b_engine_instance": r.service_instance, "b_em_instance": r.ecm_instance}
                moved.append(change | {"b_id": own[0], "b_update_time": naive(now)})
    _each(connection, insert(engine_em), made)
    _each(connection, _UPDATE_LIVE, moved)
    if gone:
        connection.execute(delete(engine_em).where(engine_em.c.id.in_(gone)))


def _write_transitions(connection: Connection, batch: Iterable[EngineRecord]) -> None:
    rows = {
        (r.ticket_id, micros(t.at), t.state.value): {
            "ticket_id": r.ticket_id, "at": micros(t.at), "state": t.state.value, "reason": t.reason,
            "message": fitting(t.message),
        }
        for r in batch
        for t in r.transitions
    }  # fmt: skip
    if not rows:
        return
    table = schema.transition
    tickets = {ticket for ticket, _, _ in rows}
    present = {
        tuple(key)
        for key in connection.execute(
            select(table.c.ticket_id, table.c.at, table.c.state).where(table.c.ticket_id.in_(tickets))
        )
    }
    _each(connection, insert(table), [row for key, row in rows.items() if key not in present])
    counts = Counter(ticket for ticket, _, _ in present | rows.keys())
    _keep_latest_transitions(connection, [ticket for ticket, count in counts.items() if count > TRANSITIONS_KEPT])


def _keep_latest_transitions(connection: Connection, tickets: Iterable[str]) -> None:
    """Deletes the oldest transitions of these engines, which have more than TRANSITIONS_KEPT."""
    t = schema.transition.c
    for ticket in tickets:
        # MySQL has no LIMIT within IN: first the newest of those that go.
        newest = select(t.at).where(t.ticket_id == ticket).order_by(t.at.desc()).offset(TRANSITIONS_KEPT).limit(1)
        limit = connection.scalar(newest)
        connection.execute(delete(schema.transition).where(t.ticket_id == ticket, t.at <= limit))


def purge_transitions(connection: Connection, before: datetime, limit: int) -> int:
    """Deletes up to `limit` of the transitions from before then, the oldest; returns how many."""
    t = schema.transition.c
    old = list(connection.execute(select(t.ticket_id, t.at).where(t.at < micros(before)).order_by(t.at).limit(limit)))
    for ticket, at in {tuple(row) for row in old}:
        connection.execute(delete(schema.transition).where(t.ticket_id == ticket, t.at == at))
    return len(old)


def write_materials(
    connection: Connection, engine_type: str, version: str, wanted: Sequence[Material], now: datetime
) -> None:
    """The files of one engine type and version: changed ones updated, new ones inserted, gone ones deleted."""
    mine = (materials.c.engine_conn_type == engine_type, materials.c.version == version)
    existing = {
        row.file_name: row for row in connection.execute(select(materials).where(*mine).order_by(materials.c.id))
    }
    for m in wanted:
        values = {
            "file_size": m.file_size, "last_modified": m.last_modified_ms, "bml_resource_id": m.bml_resource_id,
            "bml_resource_version": m.bml_resource_version,
        }  # fmt: skip
        old = existing.pop(m.file_name, None)
        if old is None:
            key = {"engine_conn_type": engine_type, "version": version, "file_name": m.file_name}
            times = {"create_time": naive(now), "last_update_time": naive(now)}
            connection.execute(insert(materials).values(**key, **values, **times))
        elif any(getattr(old, name) != value for name, value in values.items()):
            change = update(materials).where(materials.c.id == old.id)
            connection.execute(change.values(**values, last_update_time=naive(now)))
    if existing:
        connection.execute(delete(materials).where(*mine, materials.c.file_name.in_(list(existing))))


def write_post_mortem(connection: Connection, entry: PostMortemRecord) -> None:
    """Write one entry. It replaces an earlier one of the same attempt. Nothing, if its ticket is another engine's."""
    owner = connection.scalar(select(schema.engine.c.uid).where(schema.engine.c.ticket_id == entry.ticket_id))
    if owner not in (None, entry.uid):
        return
    table = schema.post_mortem
    key = (table.c.uid == entry.uid, table.c.attempt == entry.attempt)
    values = {
        "ticket_id": entry.ticket_id, "at": micros(entry.at), "reason": entry.reason,
        "message": fitting(entry.message), "files": json.dumps(entry.files), "bytes": sum(entry.files.values()),
        "missing": json.dumps(list(entry.missing), ensure_ascii=False),
        "expires": micros(entry.expires),
    }  # fmt: skip
    if connection.execute(select(table.c.uid).where(*key)).first() is not None:
        connection.execute(update(table).where(*key).values(**values))
    else:
        connection.execute(insert(table).values(uid=entry.uid, attempt=entry.attempt, **values))


def expired_post_mortems(connection: Connection, now: datetime, total: int, per_user: int, limit: int) -> list[str]:
    """uids of engines whose bundles have expired; else of those that are too much of a user, or of all together."""
    table = schema.post_mortem
    last, size = func.max(table.c.expires), func.sum(table.c.bytes)
    over = list(connection.scalars(select(table.c.uid).group_by(table.c.uid).having(last <= micros(now)).limit(limit)))
    if over or archived_bytes(connection) <= min(total, per_user):
        return over
    found = connection.execute(select(table.c.uid, func.max(table.c.ticket_id), size, last).group_by(table.c.uid)).all()
    owners = _users_of(connection, [row[1] for row in found])
    kept = [Kept(uid, owners.get(ticket) or uid, int(count), int(end)) for uid, ticket, count, end in found]
    return evictions(kept, total=total, per_owner=per_user)[:limit]


def archived_bytes(connection: Connection) -> int:
    """Bytes of all bundles."""
    return int(connection.scalar(select(func.sum(schema.post_mortem.c.bytes))) or 0)


def first_expiry(connection: Connection) -> datetime | None:
    """When the first bundle expires; None without one."""
    found = connection.scalar(select(func.min(schema.post_mortem.c.expires)))
    return None if found is None else _EPOCH + int(found) * _MICROSECOND


def _users_of(connection: Connection, tickets: Sequence[str]) -> dict[str, str]:
    """Without a join: Linkis's table may have another collation than ours."""
    users: dict[str, str] = {}
    for start in range(0, len(tickets), IN_MAX):
        columns = select(record.c.ticket_id, record.c.create_user)
        some = connection.execute(columns.where(record.c.ticket_id.in_(tickets[start : start + IN_MAX])))
        users |= {row.ticket_id: row.create_user for row in some}
    return users


def delete_post_mortems(connection: Connection, uid: str) -> None:
    connection.execute(delete(schema.post_mortem).where(schema.post_mortem.c.uid == uid))


def has_final(connection: Connection, ticket: str) -> bool:
    """Whether the engine's last row exists."""
    table = schema.engine
    found = connection.execute(select(table.c.ticket_id).where(table.c.ticket_id == ticket, table.c.final.is_(True)))
    return found.first() is not None


def delete_engine_rows(connection: Connection, ticket: str) -> None:
    """Deletes every row of an engine."""
    connection.execute(delete(record).where(record.c.ticket_id == ticket))
    connection.execute(delete(engine_em).where(engine_em.c.engine_instance == ticket))
    for table in (schema.engine, schema.transition, schema.post_mortem):
        connection.execute(delete(table).where(table.c.ticket_id == ticket))


def differing(connection: Connection, expected: Sequence[EngineRecord]) -> dict[str, str]:
    """Tickets whose row is missing, or differs from the record in status or address; with which of these.

    A ticket that is another engine's is left out.
    """
    tickets = [r.ticket_id for r in expected]
    guards = select(schema.engine.c.ticket_id, schema.engine.c.uid).where(schema.engine.c.ticket_id.in_(tickets))
    owners = {row.ticket_id: row.uid for row in connection.execute(guards)}
    expected = [r for r in expected if owners.get(r.ticket_id, r.uid) == r.uid]
    columns = (record.c.ticket_id, record.c.status, record.c.service_instance)
    existing = {
        row.ticket_id: row for row in connection.execute(select(*columns).where(record.c.ticket_id.in_(tickets)))
    }
    differences: dict[str, str] = {}
    for r in expected:
        row = existing.get(r.ticket_id)
        if row is None:
            differences[r.ticket_id] = "missing"
        elif row.status != r.status.value:
            differences[r.ticket_id] = "status"
        elif row.service_instance != r.service_instance:
            differences[r.ticket_id] = "address"
    return differences


def repair(connection: Connection, r: EngineRecord, now: datetime) -> None:
    """Overwrite a row, final or not: for rows that another program changed."""
    connection.execute(
        update(schema.engine)
        .where(schema.engine.c.ticket_id == r.ticket_id, schema.engine.c.uid == r.uid)
        .values(final=False, as_of=0)
    )
    write(connection, [r], now)


def open_elsewhere(connection: Connection, namespaces: Collection[str]) -> dict[str, int]:
    """The number of rows that are not final, by namespace, of all namespaces but these."""
    namespace = schema.engine.c.namespace
    found = connection.execute(
        select(namespace, func.count())
        .where(schema.engine.c.final.is_(False), namespace.not_in(list(namespaces)))
        .group_by(namespace)
    )
    return {str(name): int(count) for name, count in found}


def end_absent(
    connection: Connection, live: set[str], now: datetime, *, started: datetime,
    namespaces: Collection[str] | None = None,
) -> list[str]:  # fmt: skip
    """Ends the rows of engines that the API does not have; returns their tickets. See ABSENT_GRACE.

    `live` has the engines' uids: another engine that names the ticket does not keep the row alive. `started`: when this
    process began; rows that were not written since then are not of its own new engines. `namespaces`: those that were
    listed, None for all; rows of others are left alone, since their engines may live.
    """
    old = or_(schema.engine.c.written < micros(started), schema.engine.c.written < micros(now - ABSENT_GRACE))
    columns = (schema.engine.c.ticket_id, schema.engine.c.uid)
    listed = [] if namespaces is None else [schema.engine.c.namespace.in_(list(namespaces))]
    open_rows = connection.execute(select(*columns).where(schema.engine.c.final.is_(False), old, *listed))
    tickets = sorted(ticket for ticket, uid in open_rows if uid not in live)
    for ticket in tickets:
        row = connection.execute(select(record).where(record.c.ticket_id == ticket)).one_or_none()
        if row is not None:
            connection.execute(
                update(record).where(record.c.ticket_id == ticket).values(
                    status=EngineState.SHUTTING_DOWN.value,
                    release_times=max(row.release_times or 0, row.request_times or 1),
                    release_time=naive(now), released_resource=row.used_resource or row.request_resource,
                )
            )  # fmt: skip
            connection.execute(delete(engine_em).where(engine_em.c.engine_instance.in_([ticket, row.service_instance])))
        sentence = "The engine's resource was deleted while no operator looked."
        connection.execute(
            update(schema.engine).where(schema.engine.c.ticket_id == ticket).values(
                final=True, as_of=micros(now), written=micros(now), reason="Deleted", message=sentence
            )
        )  # fmt: skip
        connection.execute(
            insert(schema.transition).values(
                ticket_id=ticket, at=micros(now), state=EngineState.SHUTTING_DOWN.value, reason="Deleted",
                message=sentence,
            )
        )  # fmt: skip
    return tickets
