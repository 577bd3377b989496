"""Engines that run a plain process, without an agent, on the real node: the kubelet's checks, SIGTERM, exit codes."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.shared.engines import Engines
from e2e.shared.netprobe import from_pod, idle, start
from tools.cluster.tools import images
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.waiting import (
    NAMESPACE,
    RELEASE_NAMESPACE,
    operator_pods,
    pods,
    status,
    until_holds,
    until_row,
    until_state,
)
from tools.testkit.gateway.client import Gateway

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]
SAMPLE = Path(__file__).parents[2] / "manifests/samples/process.yaml"
TYPE = "e2e_process"
# A server as programs write them: it answers its health check, ends on SIGTERM, and does what the test's files say.
SERVER = """
import http.server, os, signal, sys, threading, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists("/tmp/unready") else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

signal.signal(signal.SIGTERM, lambda *_: (print("drained", flush=True), os._exit(0)))
threading.Thread(target=http.server.HTTPServer(("", 8080), Handler).serve_forever, daemon=True).start()
while not os.path.exists("/tmp/go"):
    time.sleep(0.05)
what, shell = open("/tmp/go").read().split()
while os.path.exists(f"/proc/{shell}"):
    time.sleep(0.01)
print("last words:", what, flush=True)
if what == "grow":
    grown = bytearray(400 << 20)
    grown[::4096] = b"1" * len(grown[::4096])
os._exit(int(what))
"""
HTTP = {"kind": "process", "port": 8080, "ready": {"http": {"path": "/"}, "periodSeconds": 1, "failureThreshold": 2}}


class Processes:
    """Makes plugins and engines of them by kubectl, and takes them away."""

    def __init__(self) -> None:
        self.engines = Engines("process")
        self.plugins: list[str] = []

    def plugin(self, launch: dict[str, Any], **more: Any) -> str:
        """A plugin by its name; by default it runs the server above in the operator's own image."""
        name = f"e2e-process-{uuid.uuid4().hex[:6]}"
        spec = {
            "engineType": TYPE, "engineVersion": name.rpartition("-")[2], "image": images()["ecm"],
            "imagePullPolicy": "IfNotPresent", "command": ["python3", "-u", "-c"], "args": [SERVER], "launch": launch,
            "defaultResources": {"cpu": "50m", "memory": "64Mi"}, "startTimeout": "60s",
        } | more  # fmt: skip
        body = {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin", "metadata": {"name": name}}
        kubectl.must("create", "-f", "-", stdin=json.dumps(body | {"spec": spec}))
        self.plugins.append(name)
        return name

    def engine(self, plugin: str, **spec: Any) -> str:
        return self.engines.create(plugin=plugin, **spec)

    def delete(self) -> None:
        """Take away all that were made."""
        self.engines.delete()
        if self.plugins:
            kubectl.run("delete", "ecp", *self.plugins, "--ignore-not-found", "--wait=false")

    def ready(self, launch: dict[str, Any], **spec: Any) -> str:
        """An engine of a plugin of its own, once it is Idle."""
        name = self.engine(self.plugin(launch), **spec)
        until_state(name, "Idle")
        return name


@pytest.fixture
def processes(installation: Any) -> Iterator[Processes]:
    made = Processes()
    yield made
    made.delete()


def go(name: str, what: str) -> None:
    """Tell the server what to do.

    The file comes with its content: the server may read it at any moment. It names the shell that wrote it, and the
    server waits for that shell's end: a container that ends kills what runs in it, and kubectl would tell of 137.
    """
    inside(name, f"echo {what} $$ > /tmp/new && mv /tmp/new /tmp/go")


def inside(engine: str, script: str) -> str:
    """What a line of shell prints in the engine's container."""
    (pod,) = [pod for pod in pods(engine) if pod["status"]["phase"] == "Running"]
    return kubectl.must("exec", "-n", NAMESPACE, pod["metadata"]["name"], "--", "sh", "-c", script)


def has_started(pods: list[dict[str, Any]]) -> bool:
    """A container of them runs, by the kubelet's word."""
    told = [one for pod in pods for one in pod["status"].get("containerStatuses", ())]
    return any("running" in one["state"] for one in told)


def conditions(engine: str) -> dict[str, str]:
    return {c["type"]: c["status"] for c in status(engine).get("conditions", [])}


@pytest.fixture
def client(installation: Any) -> Iterator[str]:
    """A pod of those that the release's values let reach processes."""
    name = f"client-{uuid.uuid4().hex[:6]}"
    start(idle(RELEASE_NAMESPACE, name, {"app": "process-client"}))
    yield name
    kubectl.run("delete", "pod", name, "-n", RELEASE_NAMESPACE, "--wait=false")


def test_the_sample_is_ready_by_its_port_and_its_users_reach_it(
    processes: Processes, gateway: Gateway, client: str
) -> None:
    plugin, engine = yaml.safe_load_all(SAMPLE.read_text())
    plugin["spec"] |= {"image": images()["ecm"], "imagePullPolicy": "IfNotPresent"}
    processes.plugins.append(plugin["metadata"]["name"])
    processes.engines.add(engine["metadata"]["name"])
    kubectl.must("apply", "-f", "-", stdin=json.dumps(plugin))
    kubectl.must("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(engine))
    kubectl.must("wait", "-n", NAMESPACE, "ec/first-web", "--for=condition=Ready", "--timeout=90s")
    found = status("first-web")
    assert (found["engineState"], found["reason"]) == ("Idle", "ProcessReady")
    assert found["serviceInstance"].endswith(f".linkis-engines.{NAMESPACE}:8080")
    assert found["address"].endswith(":8080")
    phases = [found["startup"][phase] for phase in ("accepted", "scheduled", "containerStarted", "ready")]
    assert phases == sorted(phases)
    assert "ECM_" not in inside("first-web", "env")
    (pod,) = pods("first-web")
    assert "9105" not in json.dumps(pod["spec"])
    host, _, port = found["address"].rpartition(":")
    target = ("get /", host, int(port))
    assert from_pod(RELEASE_NAMESPACE, client, [target]) == {target: "200"}
    # A process asks nobody who he is: the policy lets through whom the values name, and not even the operator.
    (operator,) = operator_pods()
    assert from_pod(RELEASE_NAMESPACE, operator["metadata"]["name"], [target], "operator") == {target: "silent"}
    ticket = found["ticketId"]
    assert gateway.status(ticket).data["status"] == "Idle"
    refused = gateway.execute(ticket, "1")
    assert refused.http == 400
    assert "runs a process" in refused.message
    until_row(ticket, "Idle", final=False)
    # It ignores SIGTERM, as any first process of a container does that has no handler: the kubelet kills it.
    begun = time.monotonic()
    assert gateway.terminate(ticket).ok
    ended = until_state("first-web", "Success")
    assert ended["reason"] == "StoppedByUser"
    assert time.monotonic() - begun >= 2, "it had its grace"
    until_row(ticket, "ShuttingDown", final=True)
    until_holds("no pod", lambda: pods("first-web"), lambda left: not left)


def test_a_process_that_ends_on_sigterm_is_stopped_at_once(processes: Processes, gateway: Gateway) -> None:
    name = processes.ready(HTTP, stopGrace="5m")
    ticket = status(name)["ticketId"]
    assert gateway.terminate(ticket).ok
    # Far below the grace: the process itself has ended.
    assert until_state(name, "Success", seconds=60)["reason"] == "StoppedByUser"
    until_row(ticket, "ShuttingDown", final=True)


def test_a_process_that_does_not_answer_for_a_while_stays_and_says_so(processes: Processes) -> None:
    name = processes.ready(HTTP)
    since = status(name)["stateSince"]
    assert conditions(name)["Ready"] == "True"
    inside(name, "touch /tmp/unready")
    until_holds("Ready is False", lambda: conditions(name), lambda found: found["Ready"] == "False")
    found = status(name)
    assert (found["engineState"], found["reason"]) == ("Idle", "ProcessNotReady")
    inside(name, "rm /tmp/unready")
    until_holds("Ready is True", lambda: conditions(name), lambda found: found["Ready"] == "True")
    found = status(name)
    assert (found["engineState"], found["reason"], found["stateSince"]) == ("Idle", "ProcessReady", since)


@pytest.mark.parametrize("launch", [HTTP, {"kind": "process", "port": 8080}, {"kind": "process"}], ids=str)
@pytest.mark.parametrize(("code", "state", "reason"), [("0", "Success", "Completed"), ("3", "Failed", "ProcessExited")])
def test_an_exit_code_tells_the_end_and_the_log_is_kept(
    processes: Processes, gateway: Gateway, launch: dict[str, Any], code: str, state: str, reason: str
) -> None:
    name = processes.ready(launch)
    ticket = status(name)["ticketId"]
    go(name, code)
    found = until_state(name, state)
    assert found["reason"] == reason
    if code != "0":
        assert "Its exit code was 3." in found["message"]
        assert "last words: 3" in found["message"]
    assert "container.log" in found["postMortem"]["files"]
    until_row(ticket, state, final=True)
    lines = gateway.logs(ticket, logType="stdout", fromLine=1, lines=50).data["logs"]
    assert any(f"last words: {code}" in line for line in lines), lines


def test_a_process_over_its_memory_is_told_as_such(processes: Processes) -> None:
    name = processes.ready(HTTP)
    go(name, "grow")
    found = until_state(name, "Failed")
    assert found["reason"] == "OOMKilled"
    assert "64 MiB" in found["message"]


def test_a_process_that_never_answers_times_out_and_its_pod_goes(processes: Processes) -> None:
    launch = {"kind": "process", "port": 8081}
    name = processes.engine(processes.plugin(launch))
    until_holds("its container runs", lambda: pods(name), has_started)
    # From its creation on. Before its container runs the reason would be another one.
    processes.engines.change(name, startTimeout="15s")
    found = until_state(name, "Failed")
    assert found["reason"] == "ProcessNeverAnswered"
    assert "port 8081 takes no connection" in found["message"]
    until_holds("no pod", lambda: pods(name), lambda left: not left)


def test_a_crashed_process_is_restarted_by_its_policy(processes: Processes) -> None:
    name = processes.ready(HTTP, restartPolicy={"type": "OnFailure", "maxAttempts": 2})
    go(name, "7")
    again = until_holds("attempt 1", lambda: status(name), lambda found: found.get("attempt") == 1)
    assert again["lastEnd"]["reason"] == "ProcessExited"
    until_state(name, "Idle", seconds=120)
    go(name, "7")
    until_state(name, "Failed")
    assert conditions(name)["DeadLettered"] == "True"


def test_a_process_lives_on_without_its_plugin_and_ends_by_its_age(processes: Processes) -> None:
    plugin = processes.plugin(HTTP, idleTimeout="1s")
    name = processes.engine(plugin)
    until_state(name, "Idle")
    kubectl.must("delete", "ecp", plugin)
    processes.engines.change(name, maxLifetime="45s")
    found = until_state(name, "Success", seconds=120)
    assert found["reason"] == "LifetimeOver"


def test_a_job_is_refused_in_words(processes: Processes) -> None:
    name = processes.engine(processes.plugin(HTTP), mode="once", code="1")
    found = until_state(name, "Failed")
    assert found["reason"] == "InvalidSpec"
    assert "launch.kind is process" in found["message"]
