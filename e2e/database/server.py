"""A MariaDB in the node's own network, for releases over a real database. Must not know what a test does with it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.cluster import node
from tools.cluster.layout import NODE_ADDRESS
from tools.testkit.servers.mariadb import MariaDB


@contextmanager
def on_the_node(port: int) -> Iterator[MariaDB]:
    """A server at that port, started; it and its files are gone afterwards.

    The port is below those that outgoing connections get: while a test has the server dead, one of the node's could
    have it. Two files of tests run at a time, so each has a port of its own.
    """
    folder = Path(tempfile.mkdtemp(prefix="ecm-db-"))
    folder.chmod(0o755)
    server = MariaDB(folder, address=NODE_ADDRESS, port=port, inside=node.inside)
    try:
        server.install()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
