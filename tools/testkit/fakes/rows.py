"""The database, as the operator's sink writes to it, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime

from linkis_ecm.model.record import EngineRecord, Material, PostMortemRecord


class Rows:
    """The database, as far as an operator can tell: final rows stay, older ones do not overwrite newer ones."""

    def __init__(self) -> None:
        self.rows: dict[str, EngineRecord] = {}
        self.history: dict[str, list[str]] = {}
        self.materials: dict[tuple[str, str], list[Material]] = {}
        self.post_mortems: dict[tuple[str, int], PostMortemRecord] = {}
        self.on_foreign: Callable[[EngineRecord], None] = lambda _: None

    def watch_foreign(self, on_foreign: Callable[[EngineRecord], None]) -> None:
        self.on_foreign = on_foreign

    def offer(self, record: EngineRecord) -> None:
        old = self.rows.get(record.ticket_id)
        if old is not None and old.uid != record.uid:
            self.on_foreign(record)
            return
        if old is not None and (old.final or old.as_of > record.as_of):
            return
        self.rows[record.ticket_id] = record
        words = self.history.setdefault(record.ticket_id, [])
        if not words or words[-1] != record.status.value:
            words.append(record.status.value)

    def offer_materials(self, engine_type: str, version: str, materials: list[Material]) -> None:
        self.materials[engine_type, version] = materials

    depth = 0

    def offer_post_mortem(self, entry: PostMortemRecord) -> None:
        self.post_mortems[entry.uid, entry.attempt] = entry

    def archived_bytes(self) -> int:
        return sum(sum(entry.files.values()) for entry in self.post_mortems.values())

    def first_expiry(self) -> datetime | None:
        return min((entry.expires for entry in self.post_mortems.values()), default=None)

    def expired_post_mortems(self, now: datetime, total: int, per_user: int, limit: int = 100) -> list[str]:
        return sorted({entry.uid for entry in self.post_mortems.values() if entry.expires <= now})

    def purge_transitions(self, before: datetime, limit: int = 1000) -> int:
        return 0

    def delete_post_mortems(self, uid: str) -> None:
        self.post_mortems = {key: entry for key, entry in self.post_mortems.items() if key[0] != uid}

    def has_final(self, ticket: str) -> bool:
        return ticket in self.rows and self.rows[ticket].final

    def delete_engine_rows(self, ticket: str) -> None:
        self.rows.pop(ticket, None)

    def differing(self, expected: list[EngineRecord]) -> dict[str, str]:
        off = {}
        for record in expected:
            row = self.rows.get(record.ticket_id)
            if row is not None and row.uid != record.uid:
                continue
            if row is None or row.status != record.status:
                off[record.ticket_id] = "missing" if row is None else "status"
        return off

    def repair(self, record: EngineRecord) -> None:
        self.rows[record.ticket_id] = record

    def resync(self, live_uids: set[str], now: datetime, namespaces: Collection[str] | None = None) -> list[str]:
        return []

    def open_elsewhere(self, namespaces: Collection[str]) -> dict[str, int]:
        rows = self.rows.values()
        return dict(Counter(row.namespace for row in rows if not row.final and row.namespace not in namespaces))
