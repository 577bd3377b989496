"""Databases for the store's tests: SQLite files, and one real MariaDB for the whole run, ended by its process id."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pymysql
import pytest

MARIADBD = "/usr/sbin/mariadbd"
PASSWORD = "s3cret-word"


class MariaDB:
    """A server in a folder of its own, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def install(self) -> None:
        if not Path(MARIADBD).exists():
            pytest.fail("mariadbd is not installed: run `make test`, or `apt-get install mariadb-server`")
        user = ["--user=mysql"] if os.geteuid() == 0 else []
        if user:
            owner = pwd.getpwnam("mysql")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={self.folder}/data", "--skip-test-db",
             "--auth-root-authentication-method=normal", *user],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def start(self) -> None:
        user = ["--user=mysql"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [MARIADBD, "--no-defaults", f"--datadir={self.folder}/data", f"--socket={self.folder}/s",
             f"--port={self.port}", "--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=2",
             f"--pid-file={self.folder}/pid", *user],
            stdout=subprocess.DEVNULL, stderr=(self.folder / "log").open("ab"),
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                self.admin("SELECT 1")
                return
            except pymysql.err.OperationalError:
                log = (self.folder / "log").read_text()[-2000:]
                assert self._process.poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def admin(self, *statements: str) -> None:
        with contextlib.closing(
            pymysql.connect(unix_socket=f"{self.folder}/s", user="root", autocommit=True)
        ) as connection, connection.cursor() as cursor:  # fmt: skip
            for statement in statements:
                cursor.execute(statement)

    def new_database(self) -> str:
        name = f"t{uuid.uuid4().hex[:12]}"
        self.admin(
            f"CREATE DATABASE {name} CHARACTER SET utf8mb4",
            f"CREATE USER IF NOT EXISTS ecm@'%' IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL ON {name}.* TO ecm@'%'",
        )
        return f"mysql+pymysql://ecm:{PASSWORD}@127.0.0.1:{self.port}/{name}"


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
