"""Opens the database that ECM_DATABASE_URL names, with a bound on every wait. Must not know any table."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

# Seconds. A database in the same data centre answers a connect within milliseconds; these end only what hangs.
CONNECT_SECONDS, READ_SECONDS = 5, 30
# SQLite's writers wait for each other; the sink's batches take milliseconds.
BUSY_MILLISECONDS = 10_000
SCHEMES = ("sqlite", "mysql+pymysql", "mariadb+pymysql")


class DatabaseError(Exception):
    """The database cannot be used; one sentence with the setting's name and the remedy, without the password."""


def parse_url(url: str) -> URL:
    """The parsed URL; raises DatabaseError for a text that is none or names another driver."""
    hint = "write sqlite:////path/to/file or mysql+pymysql://user:password@host:3306/database"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Without the text itself, and without the error, which repeats a part of it: either may hold a password.
        raise DatabaseError(f"ECM_DATABASE_URL (database.url of the chart) is no database URL: {hint}") from None
    if parsed.drivername not in SCHEMES:
        begin = parsed.drivername[:40]
        raise DatabaseError(f"ECM_DATABASE_URL (database.url of the chart) begins with {begin}: {hint}")
    return parsed


def open_engine(url: str) -> Engine:
    """An engine that connects when it is first used; raises DatabaseError for a URL that cannot be one."""
    parsed = parse_url(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            engine = create_engine(parsed, connect_args={"timeout": BUSY_MILLISECONDS / 1000})
            event.listen(engine, "do_connect", lambda *_: _create_file(parsed.database))
            event.listen(engine, "connect", lambda connection, _: _sqlite_settings(connection, parsed.database))
            return engine
        waits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "write_timeout": READ_SECONDS}
        # Recycled before MySQL's own wait_timeout of 8 hours; pinged because a proxy may cut sooner.
        return create_engine(
            parsed, connect_args=waits | {"charset": "utf8mb4"}, pool_pre_ping=True, pool_recycle=1800, pool_timeout=10
        )
    except (SQLAlchemyError, NoSuchModuleError, TypeError, ValueError) as error:
        name = type(error).__name__
        raise DatabaseError(f"ECM_DATABASE_URL (database.url of the chart) cannot be used ({name})") from None


def check(engine: Engine) -> None:
    """Connects once; raises DatabaseError where that fails."""
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        raise unreachable(engine.url, error) from error


def unreachable(url: URL, error: Exception) -> DatabaseError:
    """The sentence for a database that does not answer."""
    # Scheme and host, or SQLite's path: a query can hold secrets, too.
    port = f":{url.port}" if url.port else ""
    where = f"{url.drivername}://{url.host}{port}" if url.host else f"{url.drivername}:///{url.database or ''}"
    cause = str(getattr(error, "orig", None) or error).splitlines()[0]
    remedy = "check that it runs, its name, and the user's password and rights"
    if isinstance(getattr(getattr(error, "orig", None), "original_exception", None), socket.gaierror):
        remedy = "check its name, and that networkPolicy.dns of the chart names where the cluster's DNS answers"
    return DatabaseError(
        f"the database {where} of ECM_DATABASE_URL (database.url of the chart) cannot be reached ({cause}): {remedy}"
    )


def _create_file(file: str | None) -> None:
    # SQLite makes its file for one user to write, whatever the umask; here the umask decides. Its other files take over
    # the mode of this one. A file that is there is not opened: to close it would drop SQLite's locks in this process.
    if file and file != ":memory:":
        with suppress(OSError):  # what is wrong with the folder, the connection says in a sentence
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))


def _sqlite_settings(connection: Any, file: str | None) -> None:
    # WAL: the gateway reads while the operator writes. NORMAL: a power cut may lose the last rows, which a resync
    # writes again; the file stays whole.
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
    if not file or file == ":memory:":
        cursor.execute("PRAGMA journal_mode=WAL")
    else:
        # One at a time: the first switch to WAL upgrades a read lock, for which SQLite never calls its busy handler
        # (sqlite3BtreeBeginTrans), so of two first connections one would fail at once with "database is locked".
        with open(f"{file}.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
