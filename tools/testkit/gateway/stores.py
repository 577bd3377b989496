"""A real database, a SQLite file, behind a gateway of the tests; where tasks are run, with the journal's writer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.main import finder
from linkis_ecm.store.database import open_engine
from linkis_ecm.store.journal import Journal
from linkis_ecm.store.migrate import upgrade
from linkis_ecm.store.queries import Queries


@contextmanager
def database_in(folder: Path) -> Iterator[Engine]:
    """With its tables, and empty."""
    url = f"sqlite:///{folder}/ecm.sqlite3"
    upgrade(url)
    database = open_engine(url)
    try:
        yield database
    finally:
        database.dispose()


@dataclass(frozen=True)
class Store:
    """What a gateway has of a database."""

    database: Engine
    queries: Queries
    journal: Journal

    @property
    def parts(self) -> dict[str, Any]:
        """As a Harness takes them, besides `find`."""
        return {"journal": self.journal, "store": self.queries, "records": self.queries}

    def find(self, engine_id: str) -> KnownEngine | None:
        """The engine's last record."""
        return finder(self.queries)(engine_id)


@contextmanager
def store_in(folder: Path) -> Iterator[Store]:
    """The store of a database in that folder, its journal being written."""
    with database_in(folder) as database:
        store = Store(database, Queries(database), Journal(database))
        store.journal.start()
        try:
            yield store
        finally:
            store.journal.close()
