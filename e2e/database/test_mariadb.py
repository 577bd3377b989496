"""Operator and gateway apart, two replicas of each, over a real MariaDB: rows, an outage of it, and who leads.

A run of its own: a cluster carries one release at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from e2e import kubectl, processes
from e2e.cluster import node, tools
from e2e.cluster.layout import NODE_ADDRESS
from e2e.conftest import until
from e2e.faulttable import TABLE
from e2e.gateway import Gateway
from e2e.installation import Installation, install, uninstall
from tests.mariadb import MariaDB

# Engines start, run and end, one after another, while the database is away. A minute each time; ten by
# ECM_E2E_OUTAGE_SECONDS=600 for the figure in docs/faults.md.
OUTAGE_SECONDS = int(os.environ.get("ECM_E2E_OUTAGE_SECONDS", "60"))

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.mariadb,
    pytest.mark.timeout(400 + OUTAGE_SECONDS),
    pytest.mark.skipif(tools.backend() != "node", reason="the database runs in the node's own network"),
]
NAMESPACE = "ecm-db"


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    folder = Path(tempfile.mkdtemp(prefix="ecm-db-"))
    folder.chmod(0o755)
    server = MariaDB(folder, address=NODE_ADDRESS, inside=node.inside)
    try:
        server.install()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def url(mariadb: MariaDB) -> str:
    return mariadb.new_database()


@pytest.fixture(scope="module")
def database(url: str) -> str:
    """The database's name."""
    return url.rpartition("/")[2]


@pytest.fixture(scope="module")
def release(url: str) -> Iterator[Installation]:
    made = install(
        NAMESPACE, f"database.url={url}", "operator.replicas=2", "gateway.replicas=2",
        "auth.admins={root}",
    )  # fmt: skip
    yield made
    uninstall(NAMESPACE)


@pytest.fixture
def gateway(release: Installation) -> Iterator[Gateway]:
    with release.forward() as port, Gateway("127.0.0.1", port, release.token) as client:
        yield client


def record(ticket: str) -> dict[str, Any]:
    out = kubectl.must(
        "exec", "-n", NAMESPACE, "deployment/linkis-ecm-operator", "-c", "operator", "--",
        "python", "-m", "linkis_ecm", "record", ticket,
    )  # fmt: skip
    loaded: dict[str, Any] = json.loads(out)
    return loaded


def status(name: str) -> dict[str, Any]:
    found: dict[str, Any] = kubectl.get("ec", name, "-n", NAMESPACE).get("status", {})
    return found


def create() -> str:
    name = f"db-{uuid.uuid4().hex[:6]}"
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
        "spec": {"engineType": "python", "user": "hadoop", "resources": {"cpu": "20m", "memory": "256Mi"}},
    }  # fmt: skip
    kubectl.must("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
    return name


def leader() -> str:
    """The pod that holds the Lease."""
    return str(kubectl.get("lease", "linkis-ecm-operator", "-n", NAMESPACE)["spec"].get("holderIdentity") or "")


def operators() -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = kubectl.get(
        "pods", "-n", NAMESPACE, "-l", "linkis.apache.org/operator=true"
    )["items"]  # fmt: skip
    return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]


def two_operators() -> None:
    until(
        "two operators run",
        lambda: (
            sum(s["ready"] for p in operators() for s in p["status"].get("containerStatuses", [])) == 2 and leader()
        ),
        120,
    )


def test_an_engines_life_is_in_mariadb_and_its_logs_outlive_it(gateway: Gateway) -> None:
    made = gateway.create().data
    assert gateway.execute(made["ticketId"], "print('kept'); 6*7").data["outputs"][-1]["text"] == "42"
    assert gateway.terminate(made["ticketId"]).ok
    row = until("the final row", lambda: (r := record(made["ticketId"]))["final"] and r)
    assert row["record"]["status"] == "ShuttingDown"
    lines = gateway.logs(made["ticketId"], logType="stdout", fromLine=1, lines=500).data["logs"]
    assert any("kept" in line for line in lines), "written by the operator, read by the gateway"


def test_a_killed_database_stops_no_engine_and_the_rows_catch_up(
    mariadb: MariaDB, database: str, gateway: Gateway
) -> None:
    old = gateway.create().data
    began = time.monotonic()
    mariadb.kill()
    names: list[str] = []
    try:
        deadline = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < deadline:
            name = create()
            names.append(name)
            until(f"{name} is Idle without a database", partial(_idle, name), 60)
            found = status(name)
            assert gateway.execute(found["ticketId"], "6*7").data["outputs"][0]["text"] == "42"
            stop = '{"spec": {"desiredState": "Stopped"}}'
            kubectl.must("patch", "ec", name, "-n", NAMESPACE, "--type=merge", "-p", stop)
        assert gateway.execute(old["ticketId"], "1+1").ok
    finally:
        mariadb.start()
    back = time.monotonic()
    tickets = {status(name)["ticketId"] for name in names}
    until("every row is final", lambda: tickets <= _final(mariadb, database), 60)
    caught_up = time.monotonic() - back
    for ticket in tickets:
        states = [row[0] for row in mariadb.select(
            f"SELECT state FROM {database}.linkis_ecm_engine_transition WHERE ticket_id = '{ticket}' ORDER BY at"
        )]  # fmt: skip
        assert states[:2] == ["Starting", "Idle"], states
        assert states[-1] == "ShuttingDown", states
    TABLE.add(
        f"MariaDB killed -9 for {back - began:.0f} s, {len(names)} engines start, run and end meanwhile",
        "nothing: every row and transition came", caught_up,
    )  # fmt: skip
    # The forward's connection has been idle for too long.
    gateway.close()
    assert gateway.terminate(old["ticketId"]).ok
    for name in names:
        kubectl.run("delete", "ec", name, "-n", NAMESPACE, "--wait=false")


def _final(mariadb: MariaDB, database: str) -> set[str]:
    found = mariadb.select(f"SELECT ticket_id FROM {database}.linkis_ecm_engine WHERE final")
    return {row[0] for row in found}


def _idle(name: str) -> bool:
    return status(name).get("engineState") == "Idle"


@pytest.mark.parametrize("how", ["kill -9", "SIGTERM"])
def test_the_standby_takes_over(release: Installation, how: str) -> None:
    two_operators()
    old = leader()
    pod = next(p for p in operators() if p["metadata"]["name"] == old)
    began = time.monotonic()
    if how == "kill -9":
        assert processes.kill(pod["metadata"]["uid"], b"linkis_ecm operator") == 1
    else:
        kubectl.must("delete", "pod", old, "-n", NAMESPACE, "--wait=false")
    late = create()
    until("another leads", lambda: leader() not in ("", old), 30)
    took = time.monotonic() - began
    until("a new engine is Idle", lambda: status(late).get("engineState") == "Idle", 60)
    assert took < (12 if how == "kill -9" else 4), f"{took:.1f} s"
    TABLE.add(f"leading operator of two ended by {how}: another leads", "nothing", took)
    kubectl.run("delete", "ec", late, "-n", NAMESPACE, "--wait=false")
