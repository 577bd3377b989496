"""A real MariaDB server in a folder of its own, ended by its process id: for the store's tests and the cluster's."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tools.testkit.servers.ports import reserved

MARIADBD = "/usr/sbin/mariadbd"
PASSWORD = "s3cret-word"
# A server's files are made in 2 s, and it starts within one: on a machine with much else to do it may be a minute.
START_SECONDS = 180


class MariaDB:
    """A server at `address`; `inside` puts its command into the network namespace where that is, in which `port` is
    free: one of the machine's own is found and held where none is given."""

    def __init__(
        self,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        inside: Callable[[list[str]], list[str]] = lambda command: command,
    ) -> None:
        self.folder = folder
        self._address = address
        self._inside = inside
        # Until `close`: the server comes up seconds after this, and again after an outage.
        self._held = None if port else reserved()
        self.port: int = self._held.getsockname()[1] if self._held else port
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
            check=True, capture_output=True, timeout=START_SECONDS,
        )  # fmt: skip

    def start(self) -> None:
        user = ["--user=mysql"] if os.geteuid() == 0 else []
        command = self._inside(
            [MARIADBD, "--no-defaults", f"--datadir={self.folder}/data", f"--socket={self.folder}/s",
             f"--port={self.port}", f"--bind-address={self._address}", "--innodb-flush-log-at-trx-commit=2",
             f"--pid-file={self.folder}/pid", *user]
        )  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=(self.folder / "log").open("ab")
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
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
            self._process.wait(START_SECONDS)
            self._process = None

    def close(self) -> None:
        """Stops it for good."""
        self.stop()
        if self._held is not None:
            self._held.close()

    def kill(self) -> None:
        """kill -9 of the server itself."""
        os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
        if self._process is not None:
            self._process.wait(30)
            self._process = None

    def admin(self, *statements: str) -> None:
        with contextlib.closing(
            pymysql.connect(unix_socket=f"{self.folder}/s", user="root", autocommit=True)
        ) as connection, connection.cursor() as cursor:  # fmt: skip
            for statement in statements:
                cursor.execute(statement)

    def select(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a question, as root over the socket."""
        with contextlib.closing(
            pymysql.connect(unix_socket=f"{self.folder}/s", user="root", autocommit=True)
        ) as connection, connection.cursor() as cursor:  # fmt: skip
            cursor.execute(statement)
            return list(cursor.fetchall())

    def new_database(self, charset: str = "utf8mb4") -> str:
        name = f"t{uuid.uuid4().hex[:12]}"
        self.admin(
            f"CREATE DATABASE {name} CHARACTER SET {charset}",
            f"CREATE USER IF NOT EXISTS ecm@'%' IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL ON {name}.* TO ecm@'%'",
        )
        return f"mysql+pymysql://ecm:{PASSWORD}@{self._address}:{self.port}/{name}"
