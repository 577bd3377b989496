"""Databases for the store's tests: SQLite files, and one real MariaDB for the whole run, ended by its process id."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mariadb import MariaDB


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    # Not under pytest's own folder: its name is too long for a Unix socket's.
    folder = Path(tempfile.mkdtemp(prefix="ecm-db-"))
    folder.chmod(0o755)
    server = MariaDB(folder)
    try:
        server.install()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes an empty database and answers its URL."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/{uuid.uuid4().hex}.sqlite3"
    server: MariaDB = request.getfixturevalue("mariadb")
    return server.new_database
