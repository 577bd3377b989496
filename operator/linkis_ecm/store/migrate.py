"""Migrates a database to this version's tables with alembic, one process at a time. Must not know the tables itself."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from linkis_ecm.store.database import DatabaseError, check, open_engine

# Seconds to wait for the lock. Another replica may be migrating, which takes less than a second for these tables.
LOCK_SECONDS = 60
_LOCK = "linkis_ecm_migrate"


def upgrade(url: str) -> None:
    """Upgrades to the newest version; raises DatabaseError. Doing it twice, or twice at once, is harmless."""
    engine = open_engine(url)
    try:
        check(engine)
        with _migration_lock(engine) as connection:
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseError(f"the tables cannot be made: {str(error).splitlines()[0]}") from error
    finally:
        engine.dispose()


@contextmanager
def _migration_lock(engine: Engine) -> Iterator[Connection]:
    """A connection that holds the lock for migrations. Other processes wait for it."""
    if engine.url.get_backend_name() == "sqlite":
        database = engine.url.database
        if not database or database == ":memory:":
            with engine.connect() as connection:
                yield connection
            return
        with open(f"{database}.migrate.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with engine.connect() as connection:
                yield connection
        return
    with engine.connect() as connection, engine.connect() as holder:
        # On its own connection, because MySQL's DDL commits open transactions.
        held = holder.execute(text("SELECT GET_LOCK(:name, :seconds)"), {"name": _LOCK, "seconds": LOCK_SECONDS})
        if held.scalar() != 1:
            raise DatabaseError(f"another process has migrated the database for {LOCK_SECONDS} s: look at its log")
        try:
            yield connection
        finally:
            holder.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": _LOCK})
