"""Operator and gateway apart, two replicas of each, over a real MariaDB: rows, an outage of it, and who leads.

A release of its own, beside the first one.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from e2e.database.server import on_the_node
from e2e.shared.faulttable import TABLE
from linkis_ecm.kube.lease import DURATION, RENEW_DEADLINE, RETRY_PERIOD
from tools.cluster import tools
from tools.testkit.cluster import kubectl, processes
from tools.testkit.cluster.installation import OF_THE_CLUSTER, Installation, engines_of, install, uninstall
from tools.testkit.cluster.waiting import is_ready, operator_pods, status, until_holds, until_row, until_state
from tools.testkit.gateway.client import Gateway
from tools.testkit.servers.mariadb import MariaDB

# Engines start, run and end, one after another, while the database is away. A minute each time; ten by
# ECM_E2E_OUTAGE_SECONDS=600 for the figure in docs/faults.md.
OUTAGE_SECONDS = int(os.environ.get("ECM_E2E_OUTAGE_SECONDS", "60"))

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.mariadb,
    pytest.mark.release,
    pytest.mark.timeout(600 + OUTAGE_SECONDS),
    pytest.mark.skipif(tools.backend() != "node", reason="the database runs in the node's own network"),
]
NAMESPACE = "ecm-db"
ENGINES = engines_of(NAMESPACE)


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    with on_the_node(3306) as server:
        yield server


@pytest.fixture(scope="module")
def url(mariadb: MariaDB) -> str:
    return mariadb.new_database()


@pytest.fixture(scope="module")
def database(url: str) -> str:
    """The database's name."""
    return url.rpartition("/")[2]


@pytest.fixture(scope="module")
def release(url: str, first_release: Installation) -> Iterator[Installation]:
    made = install(
        NAMESPACE, f"database.url={url}", "operator.replicas=2", "gateway.replicas=2",
        "auth.admins={root}", *(f"{part}.resources.requests.cpu=50m" for part in ("operator", "gateway")),
        *OF_THE_CLUSTER, beside=True,
    )  # fmt: skip
    yield made
    uninstall(NAMESPACE)


@pytest.fixture
def gateway(release: Installation) -> Iterator[Gateway]:
    with release.forward() as port, Gateway("127.0.0.1", port, release.token) as client:
        yield client


def create() -> str:
    name = f"db-{uuid.uuid4().hex[:6]}"
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
        "spec": {"engineType": "python", "user": "hadoop", "resources": {"cpu": "20m", "memory": "256Mi"}},
    }  # fmt: skip
    kubectl.must("create", "-n", ENGINES, "-f", "-", stdin=json.dumps(body))
    return name


def lease() -> dict[str, Any]:
    """Who leads, and since when."""
    found: dict[str, Any] = kubectl.get("lease", "linkis-ecm-operator", "-n", NAMESPACE)["spec"]
    return found


def leader_of_two() -> dict[str, Any]:
    """The pod that holds the Lease, once two operators are ready and one of them does."""

    def look() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return lease(), operator_pods(NAMESPACE)

    def holds(seen: tuple[dict[str, Any], list[dict[str, Any]]]) -> bool:
        names = [pod["metadata"]["name"] for pod in seen[1] if is_ready(pod)]
        return len(names) == len(seen[1]) == 2 and seen[0].get("holderIdentity") in names

    spec, pods = until_holds("two operators are ready and one of them leads", look, holds, 180)
    found: dict[str, Any] = next(pod for pod in pods if pod["metadata"]["name"] == spec["holderIdentity"])
    return found


def test_an_engines_life_is_in_mariadb_and_its_logs_outlive_it(gateway: Gateway) -> None:
    made = gateway.create().data
    assert gateway.execute(made["ticketId"], "print('kept'); 6*7").data["outputs"][-1]["text"] == "42"
    assert gateway.terminate(made["ticketId"]).ok
    until_row(made["ticketId"], "ShuttingDown", final=True, namespace=NAMESPACE)
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
            found = until_state(name, "Idle", namespace=ENGINES)
            assert gateway.execute(found["ticketId"], "6*7").data["outputs"][0]["text"] == "42"
            stop = '{"spec": {"desiredState": "Stopped"}}'
            kubectl.must("patch", "ec", name, "-n", ENGINES, "--type=merge", "-p", stop)
        assert gateway.execute(old["ticketId"], "1+1").ok
    finally:
        mariadb.start()
    back = time.monotonic()
    tickets = {status(name, ENGINES)["ticketId"] for name in names}
    until_holds("every row is final", lambda: tickets - _final(mariadb, database), lambda left: not left, 150)
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
        kubectl.must("delete", "ec", name, "-n", ENGINES, "--wait=false")


def _final(mariadb: MariaDB, database: str) -> set[str]:
    found = mariadb.select(f"SELECT ticket_id FROM {database}.linkis_ecm_engine WHERE final")
    return {row[0] for row in found}


@pytest.mark.parametrize("how", ["kill -9", "SIGTERM"])
def test_the_standby_takes_over(release: Installation, how: str) -> None:
    pod = leader_of_two()
    old = pod["metadata"]["name"]
    renewed = lease()["renewTime"]

    def look() -> dict[str, Any]:
        nonlocal renewed
        spec = lease()
        if spec.get("holderIdentity") == old:
            renewed = spec["renewTime"]
        return spec

    if how == "kill -9":
        assert processes.kill(pod["metadata"]["uid"], b"linkis_ecm operator") == 1
        began = time.time()
        # Or its kubelet starts it again, and it takes its own Lease back before that has run out.
        kubectl.must("delete", "pod", old, "-n", NAMESPACE, "--grace-period=0", "--force")
    else:
        kubectl.must("delete", "pod", old, "-n", NAMESPACE, "--wait=false")
        began = time.time()
    late = create()
    spec = until_holds("another leads", look, lambda spec: spec.get("holderIdentity") not in (None, "", old))
    # By the new holder's own word: how long kubectl takes to show it says nothing.
    taken = datetime.fromisoformat(spec["acquireTime"])
    took = taken.timestamp() - began
    if how == "SIGTERM":
        # Released: nobody takes one that is not before it has run out.
        assert (taken - datetime.fromisoformat(renewed)).total_seconds() < DURATION
    else:
        # It has run out, a look has just missed that, and a call takes its time.
        assert took < DURATION + 2 * RETRY_PERIOD + RENEW_DEADLINE / 2, f"{took:.1f} s"
    TABLE.add(f"leading operator of two ended by {how}: another leads", "nothing", took)
    kubectl.must("delete", "ec", late, "-n", ENGINES, "--wait=false")
