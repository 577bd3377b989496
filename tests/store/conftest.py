"""Databases for the store's tests: SQLite files, and one real MariaDB for the whole run, ended by its process id."""

from __future__ import annotations

import random
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from linkis_ecm.store.database import open_engine
from linkis_ecm.store.migrate import upgrade
from linkis_ecm.store.sink import Sink
from tests.store.records import PATIENCE, at
from tools.testkit.servers.mariadb import START_SECONDS, MariaDB


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test needs the server first waits for its start."""
    for item in items:
        if item.get_closest_marker("mariadb") is not None:
            item.add_marker(pytest.mark.timeout(3 * START_SECONDS))


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
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes an empty database and answers its URL."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/{uuid.uuid4().hex}.sqlite3"
    server: MariaDB = request.getfixturevalue("mariadb")
    return server.new_database


@pytest.fixture
def engine(new_url: Callable[[], str]) -> Iterator[Engine]:
    """An engine over an empty database with our tables."""
    url = new_url()
    upgrade(url)
    made = open_engine(url)
    yield made
    made.dispose()


@pytest.fixture
def sink(engine: Engine) -> Iterator[Sink]:
    """A running sink, its clock at T0 + 100 s."""
    made = Sink(engine, clock=lambda: at(100), rng=random.Random(1))
    made.start()
    yield made
    made.close(PATIENCE)
