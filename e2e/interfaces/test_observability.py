"""A real Prometheus scrapes the release while engines start, run, fail and end: each panel has data, alerts fire.

Windows, `for:` and one threshold of the rules are shortened by `tools.testkit.servers.prometheus.hurried`.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from e2e.shared.engines import Engines
from e2e.shared.policies import KINDS, POLICY, until_they_count, without
from tools.cluster.tools import helm, images, kubeconfig
from tools.cluster.tools import kubectl as kubectl_binary
from tools.observability.alerts import RUNBOOKS, alerts
from tools.observability.rules import rule_file
from tools.testkit.cluster import kubectl, processes
from tools.testkit.cluster.installation import RELEASE, Installation
from tools.testkit.cluster.waiting import NAMESPACE, RELEASE_NAMESPACE, Gate, pods, status, until, until_holds
from tools.testkit.cluster.warm_pods import claimable
from tools.testkit.gateway.client import BASE, Gateway
from tools.testkit.servers.panels import as_table, scraped_at, seen
from tools.testkit.servers.prometheus import PrometheusServer, hurried

pytestmark = [pytest.mark.cluster, pytest.mark.release, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
# A second of a lag is a minute's, to be seen within the test.
THRESHOLDS = {"LinkisEcmDatabaseAway": "> 3"}
# Panels whose figure is not a number here, and why.
NOT_HERE = {
    "Certificate": "the release of the e2e tests has no TLS",
    "Token": "the chart's own token does not end",
    "Waking from a soft pause": "no engine is paused before it has rested for a minute; test_warm.py wakes one",
}
SMALL = {"cpu": "50m", "memory": "256Mi"}
# The user whom the installation's limits give one engine.
CROWDED = "crowded"
PROVOKED = (
    "LinkisEcmStartsFail", "LinkisEcmNoCapacity", "LinkisEcmNodesLoseEngines", "LinkisEcmTasksLost",
    "LinkisEcmTasksRefused", "LinkisEcmLimitRefusals", "LinkisEcmQuotaNear", "LinkisEcmGatewayRefuses",
    "LinkisEcmDatabaseAway", "LinkisEcmEnginesSilent", "LinkisEcmAdmissionMissing",
)  # fmt: skip
# The operator's own interpreter holds the database for some seconds, as a stuck backup does.
LOCK = """
import sqlite3, time
held = sqlite3.connect("/data/ecm.sqlite3", isolation_level=None, timeout=20)
held.execute("BEGIN EXCLUSIVE")
time.sleep(20)
held.execute("ROLLBACK")
"""


@pytest.fixture(scope="module")
def prometheus(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """It scrapes both parts by forwarded ports, with the label that Prometheus gives a target in the cluster."""
    with ExitStack() as stack:
        targets = {
            "operator": stack.enter_context(installation.forward("operator", 9104)),
            "gateway": stack.enter_context(installation.forward("gateway-metrics", 9106)),
        }
        server = PrometheusServer(
            tmp_path_factory.mktemp("prometheus"),
            targets=targets,
            labels={"namespace": installation.namespace},
            rules=hurried(rule_file(), THRESHOLDS),
        )
        stack.enter_context(server)
        until_holds("both are scraped", server.healthy, set(targets).issubset, 60)
        yield server


@pytest.fixture(scope="module")
def too_big(installation: Installation) -> Iterator[str]:
    """An entry of the catalogue whose engines no node can take."""
    name = f"toobig{uuid.uuid4().hex[:6]}"
    spec = {
        "engineType": name, "engineVersion": "1", "default": True, "image": images()["engine-python"],
        "defaultResources": {"cpu": "500", "memory": "1Gi"}, "runTypes": ["python"],
    }  # fmt: skip
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin", "metadata": {"name": name}, "spec": spec
    }  # fmt: skip
    kubectl.must("create", "-f", "-", stdin=json.dumps(body))
    yield name
    kubectl.run("delete", "ecp", name)


@contextmanager
def pooled(**pool: Any) -> Iterator[str]:
    """A copy of the chart's plugin of Python with a warm pool of its own."""
    name = f"seen-warm-{uuid.uuid4().hex[:6]}"
    spec = kubectl.get("ecp", "python-3.11")["spec"]
    asked = {"cap": 3, "namespaces": [NAMESPACE], "resources": SMALL} | pool
    spec |= {"default": False, "engineVersion": f"3.11.{name}".replace("-", "_"), "warmPool": asked}
    body = {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin", "metadata": {"name": name}}
    kubectl.must("create", "-f", "-", stdin=json.dumps(body | {"spec": spec}))
    try:
        yield name
    finally:
        kubectl.run("delete", "ecp", name, "--wait=false")


@pytest.fixture(scope="module")
def warm(installation: Installation) -> Iterator[str]:
    """A pool of one member, by a schedule in a zone that the operator must know."""
    always = {"from": "00:00", "to": "24:00", "timeZone": "Asia/Kathmandu", "size": 1}
    with pooled(size=0, preload=["json"], schedule=[always]) as name:
        yield name


@pytest.fixture(scope="module")
def broken(installation: Installation) -> Iterator[str]:
    """A pool that cannot be filled: of one that is full no panel says why it is not."""
    with pooled(size=1, preload=["nosuchmodule"]) as name:
        yield name


def make(gateway: Gateway, user: str = "hadoop", **more: Any) -> str:
    """A small engine that is ready; its ticket."""
    with gateway.as_user(user) as caller:
        return str(caller.create(resources=SMALL, **more).data["ticketId"])


def name_of(gateway: Gateway, ticket: str) -> str:
    return str(gateway.status(ticket).data["name"])


def submit(gateway: Gateway, ticket: str, code: str) -> Any:
    return gateway.execute(ticket, code, wait=False)


def runs_tasks(gateway: Gateway) -> None:
    """An engine that is made, runs code well and badly, is asked for again, and stopped."""
    ticket = make(gateway)
    assert gateway.execute(ticket, "sum(range(100))").data["status"] == "Succeed"
    assert gateway.execute(ticket, "1/0").data["status"] == "Failed"
    # A busy engine is given to nobody, and a task of a second may show as Busy after its end or not at all. So this one
    # has been seen: what ran before it shows no more.
    gate = Gate()
    submit(gateway, ticket, gate.code)
    until_holds("it is busy", lambda: gateway.status(ticket).data["status"], "Busy".__eq__, 60)
    gate.open(name_of(gateway, ticket))
    until_holds("it is free", lambda: gateway.status(ticket).data["status"], "Idle".__eq__, 60)
    asked = gateway.request(
        "POST", f"{BASE.rpartition('/')[0]}/linkisManager/askEngineConn",
        {"labels": {"engineType": "python-3.11", "userCreator": "hadoop-IDE"}, "timeOut": 60_000},
    )  # fmt: skip
    assert asked.message == "reuse engineConn ended.", asked
    gateway.logs(ticket, logType="stdout", fromLine=1, lines=10)
    assert gateway.terminate(ticket).ok


def starts_warm(engines: Engines, warm: str) -> None:
    """An engine takes the member of the pool, which is filled again."""

    def ready() -> bool:
        return any(map(claimable, kubectl.listed("pods", NAMESPACE, f"linkis.apache.org/warm-pool={warm}")))

    until("the pool has its member", ready)
    until_holds("its status says so", partial(warm_pool, warm), _by_schedule, 30)
    name, _ = engines.ready(plugin=warm)
    startup = kubectl.get("ec", name, "-n", NAMESPACE)["status"]["startup"]
    assert startup["kind"] == "warm", startup


def warm_pool(name: str) -> dict[str, Any]:
    """The pool's status, {} before its first."""
    return dict(kubectl.get("ecp", name).get("status", {}).get("warmPool") or {})


def _by_schedule(pool: dict[str, Any]) -> bool:
    return bool(pool) and pool["namespaces"][0].get("sizeFrom") == "Schedule"


def _cannot_preload(pool: dict[str, Any]) -> bool:
    return bool(pool) and pool["namespaces"][0].get("reason") == "PreloadFailed"


def is_watched(prometheus: PrometheusServer) -> None:
    """Waits until Prometheus knows what was not there before: a counter that appears from then on counts."""
    until("half a minute of scrapes", lambda: prometheus.query("ecm_leading offset 30s"), 60)


def loses_engines(gateway: Gateway, prometheus: PrometheusServer) -> None:
    """Three engines whose pods somebody deletes while they run code."""
    with ThreadPoolExecutor(3) as pool:
        tickets = list(pool.map(lambda _: make(gateway.as_user("hadoop")), range(3)))
    tasks = [submit(gateway, ticket, "import time; time.sleep(600)").data["taskId"] for ticket in tickets]
    names = [name_of(gateway, ticket) for ticket in tickets]
    is_watched(prometheus)
    for name in names:
        for pod in pods(name):
            kubectl.run("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--wait=false", "--grace-period=1")
    for ticket, task in zip(tickets, tasks, strict=True):
        until_holds("the task is lost", partial(task_body, gateway, ticket, task), _is_lost, 90)


def task_body(gateway: Gateway, ticket: str, task: str) -> dict[str, Any]:
    return gateway.request("GET", f"{BASE}/getTask?engineId={ticket}&taskId={task}").body


def _is_lost(body: dict[str, Any]) -> bool:
    return bool((body.get("data") or {}).get("status") == "Lost")


def floods_an_engine(gateway: Gateway, prometheus: PrometheusServer) -> None:
    """More tasks than wait in one engine; then its agent falls silent, and it is stopped."""
    ticket = make(gateway)
    submit(gateway, ticket, "import time; time.sleep(600)")
    answers = [submit(gateway, ticket, "1") for _ in range(30)]
    assert sum(not answer.ok for answer in answers) >= 10
    (pod,) = pods(name_of(gateway, ticket))
    uid = pod["metadata"]["uid"]
    assert processes.send(uid, b"linkis_ecm", signal.SIGSTOP) >= 1
    try:
        # After 30 s without a report; it would be lost after 70 s.
        until_holds("its silence is told", prometheus.fired, {"LinkisEcmEnginesSilent"}.issubset, 65)
    finally:
        processes.send(uid, b"linkis_ecm", signal.SIGCONT)
    gateway.terminate(ticket)


def is_refused(gateway: Gateway) -> None:
    """A user at a limit who asks on, and one whose client packs what it sends."""
    make(gateway, CROWDED)
    with gateway.as_user(CROWDED) as crowded:
        refused = [crowded.create(resources=SMALL) for _ in range(12)]
    assert all("limit" in answer.message.lower() for answer in refused)

    headers = {"Token-Code": gateway.token, "Token-User": "hasty", "Content-Encoding": "gzip"}
    for _ in range(60):
        connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=30)
        with closing(connection):
            connection.request("POST", f"{BASE}/executeCode", b"{}", headers | {"Content-Type": "application/json"})
            assert connection.getresponse().status == 415


def fails_to_start(engines: Engines, too_big: str, prometheus: PrometheusServer) -> None:
    is_watched(prometheus)
    for _ in range(3):
        engines.create(engineType="nosuchtype", startTimeout="5s")
    waiting = [engines.create(engineType=too_big, startTimeout="5m") for _ in range(3)]
    for name in waiting:
        # Else an engine that the scheduler has not looked at yet ends for another reason.
        until_holds("no node has room", partial(status, name), lambda told: told.get("reason") == "Unschedulable", 60)
    for name in waiting:
        engines.change(name, startTimeout="1s")


def takes_the_policy_away(engines: Engines, prometheus: PrometheusServer) -> None:
    """Deletes the binding of the admission policy until the alert fires; an engine asks the operator to look."""
    with without((KINDS[1], POLICY)):
        engines.create(resources=SMALL)
        until_holds("its absence is told", prometheus.fired, {"LinkisEcmAdmissionMissing"}.issubset, 60)
    until_they_count()


def locks_the_database(gateway: Gateway) -> None:
    operator = ("-n", RELEASE_NAMESPACE, f"deploy/{RELEASE}-operator", "-c", "operator")
    ticket = make(gateway)
    with ThreadPoolExecutor(1) as pool:
        locked = pool.submit(kubectl.must, "exec", *operator, "--", "python", "-c", LOCK)
        while not locked.done():
            # Each task changes the engine's state, and so its row.
            gateway.execute(ticket, "import time; time.sleep(1)")
        locked.result()
    gateway.terminate(ticket)


@pytest.fixture(scope="module")
def lived(
    installation: Installation, prometheus: PrometheusServer, too_big: str, warm: str, broken: str
) -> Iterator[PrometheusServer]:
    """Prometheus after all of that happened, and while one engine is still up."""
    engines = Engines("seen")
    # Before the others: while an engine waits for room, the pools of its namespace give way.
    starts_warm(engines, warm)
    with installation.forward() as port, Gateway("127.0.0.1", port, installation.token) as gateway:
        with ThreadPoolExecutor(8) as pool:
            work = [
                pool.submit(runs_tasks, gateway.as_user("hadoop")),
                pool.submit(loses_engines, gateway.as_user("hadoop"), prometheus),
                pool.submit(floods_an_engine, gateway.as_user("hadoop"), prometheus),
                pool.submit(is_refused, gateway.as_user("root")),
                pool.submit(fails_to_start, engines, too_big, prometheus),
                pool.submit(locks_the_database, gateway.as_user("hadoop")),
            ]
            for one in work:
                one.result()
        takes_the_policy_away(engines, prometheus)
        until_holds("it cannot be filled", partial(warm_pool, broken), _cannot_preload, 60)
        # The canary's round, each minute, is one of the panels.
        until_holds(
            "a round of the canary",
            lambda: prometheus.query("increase(ecm_canary_seconds_count[3m])"),
            lambda found: any(sample.value > 0 for sample in found),
            90,
        )
        yield prometheus
    # Not by the gateway: the last test has ended the one that the port led to.
    kubectl.run("delete", "ec", "--all", "-n", NAMESPACE, "--wait=false")


def test_each_panel_has_live_data(lived: PrometheusServer, capsys: pytest.CaptureFixture[str]) -> None:
    found = seen(lived, until("all is scraped", partial(scraped_at, lived, {"operator", "gateway"}, time.time())))
    with capsys.disabled():
        print(f"\n{as_table(found)}")
    dead = [(one.board, one.panel, one.expr) for one in found if one.largest is None and one.panel not in NOT_HERE]
    assert dead == []


def test_a_slow_bucket_names_the_ticket_of_an_engine(lived: PrometheusServer) -> None:
    for family in ("ecm_engine_start_seconds", "ecm_task_seconds", "ecm_gateway_engine_wait_seconds"):
        tickets = {labels["ticket"] for labels in lived.exemplars(f"{family}_bucket")}
        assert tickets, family
        assert all(uuid.UUID(ticket) for ticket in tickets)


def test_each_provoked_fault_has_fired_its_alert(lived: PrometheusServer, capsys: pytest.CaptureFixture[str]) -> None:
    fired = until_holds("the alerts", lived.fired, set(PROVOKED).issubset, 30)
    with capsys.disabled():
        print(f"\nfired, by faults that were provoked: {', '.join(sorted(fired))}")


COMMANDS = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def test_the_commands_of_the_runbooks_run(lived: PrometheusServer) -> None:
    pages = [(ROOT / "docs/runbooks" / alert.page).read_text() for alert in alerts()]
    found = sorted({line for page in pages for block in COMMANDS.findall(page) for line in block.splitlines()})
    path = f"{kubectl_binary().parent}:{helm().parent}:{os.environ['PATH']}"
    environment = {
        **os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig()), "NS": RELEASE_NAMESPACE, "ENGINES": NAMESPACE
    }  # fmt: skip

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], env=environment, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        return "" if done.returncode == 0 else f"{command}: {done.stderr.strip()[-500:]}"

    with ThreadPoolExecutor(4) as pool:
        assert [problem for problem in pool.map(run, found) if problem] == []
    assert len(found) > 15
    assert RUNBOOKS.startswith("https://")


def test_parts_that_are_gone_fire_their_alerts(lived: PrometheusServer) -> None:
    """The last one: nothing is scraped after it."""
    parts = ("operator", "gateway")
    down = {"LinkisEcmOperatorDown", "LinkisEcmGatewayDown"}
    until_holds("no part is down", lived.firing, down.isdisjoint, 30)
    try:
        for part in parts:
            kubectl.must("scale", "deployment", f"{RELEASE}-{part}", "-n", RELEASE_NAMESPACE, "--replicas=0")
        until_holds("both alerts", lived.firing, down.issubset, 60)
    finally:
        for part in parts:
            kubectl.must("scale", "deployment", f"{RELEASE}-{part}", "-n", RELEASE_NAMESPACE, "--replicas=1")
        for part in parts:
            until(f"{part} is back", partial(replicas_ready, part), 120)


def replicas_ready(part: str) -> int:
    found = kubectl.get("deployment", f"{RELEASE}-{part}", "-n", RELEASE_NAMESPACE)
    return int(found.get("status", {}).get("readyReplicas") or 0)
