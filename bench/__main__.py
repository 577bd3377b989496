"""`python -m bench`: starts, calls, writes and downloads on the real cluster, against floors of the same run.

Runs itself inside the node's network namespace, where Services and pods are reached by their addresses. Every loop is
bounded. It removes the release that the cluster has. Prints numbers and ratios; judges by exit code only whether a goal
was missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from bench import clean
from bench.clean import FLOORS, NAMESPACE
from bench.figures.table import Table
from bench.floods import __main__ as floods
from linkis_ecm.process.scrape import FRESH_SECONDS
from tools.cluster import tools
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import RELEASE, engines_of
from tools.testkit.gateway.client import Gateway
from tools.testkit.servers.orphans import start

ENGINES = engines_of(NAMESPACE)
STARTS = 20
CALLS = 300
DOWNLOAD = 1 << 30


def p50(values: list[float]) -> float:
    return statistics.median(values)


def p90(values: list[float]) -> float:
    return statistics.quantiles(values, n=10)[-1]


def pod(name: str, image: str, *command: str) -> str:
    """A pod that only runs a command, as restricted as an engine's."""
    body: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": FLOORS},
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": False, "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "c", "image": image, "command": list(command), "imagePullPolicy": "IfNotPresent",
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }  # fmt: skip
    return json.dumps(body)


def raw_pods(image: str) -> list[float]:
    """Seconds from creating a pod that only sleeps to its Ready, one at a time, seen by one watch."""
    ready = "custom-columns=N:.metadata.name,R:.status.conditions[?(@.type=='Ready')].status"
    command = [str(tools.kubectl()), "--kubeconfig", str(tools.kubeconfig()), "get", "pods", "-n", FLOORS]
    watch = start([*command, "--watch", "--no-headers", "-o", ready], stdout=subprocess.PIPE, text=True)
    assert watch.stdout is not None
    took = []
    with clean.api_proxy() as api, contextlib.ExitStack() as stack:
        stack.callback(clean.stop, watch)
        url = f"{api}/api/v1/namespaces/{FLOORS}/pods"
        for number in range(STARTS):
            name = f"raw-{number}"
            body = pod(name, image, "sleep", "600").encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            begun = time.perf_counter()
            urllib.request.urlopen(request, timeout=30).close()
            for line in watch.stdout:
                if line.split() == [name, "True"]:
                    break
            took.append(time.perf_counter() - begun)
            kubectl.must("delete", "pod", name, "-n", FLOORS, "--grace-period=0", "--force")
    return took


def bare_kernels(image: str) -> dict[str, list[float]]:
    """Starts and calls of a bare ipykernel in such a pod."""
    script = (Path(__file__).parent / "processes/bare.py").read_text()
    kubectl.must("create", "-f", "-", stdin=pod("bare", image, "python", "-c", script, "10"))
    kubectl.must("wait", "-n", FLOORS, "pod/bare", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=100s")
    loaded: dict[str, list[float]] = json.loads(kubectl.must("logs", "-n", FLOORS, "bare").splitlines()[-1])
    return loaded


def service_address(name: str) -> str:
    address: str = kubectl.get("service", name, "-n", NAMESPACE)["spec"]["clusterIP"]
    return address


def metric(address: str, port: int, name: str) -> float:
    """The sum of a metric's series; raises LookupError where there is none, which is not 0."""
    with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = [float(line.split()[-1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line)]
    if not found:
        raise LookupError(f"{address}:{port} has no metric {name}")
    return sum(found)


def writes(operator: str) -> float:
    """What the operator wrote to the API server about engines and pods, until now."""
    # Before that, a scrape may answer as it did the last time.
    time.sleep(FRESH_SECONDS)
    with urllib.request.urlopen(f"http://{operator}:9104/metrics", timeout=10) as answer:
        text = answer.read().decode()
    wanted = r'ecm_kube_requests_total\{.*resource="(engineconns|engineconns/status|pods)".*\}'
    lines = [line for line in text.splitlines() if re.match(wanted, line)]
    if not any('verb="list"' in line for line in lines):
        raise LookupError(f"the operator's requests are not counted as expected: {lines}")
    return sum(float(line.split()[-1]) for line in lines if re.search(r'verb="(create|patch|delete)"', line))


def cold_starts(gateway: Gateway, operator: str) -> tuple[list[float], list[dict[str, int]], list[float]]:
    """create → first result of 1+1, one at a time; the phases; the operator's writes for each whole life."""
    took, phases, spent = [], [], []
    before = writes(operator)
    for _ in range(STARTS):
        ticket = str(uuid.uuid4())
        begun = time.perf_counter()
        made = gateway.create(ticketId=ticket).data
        result = gateway.execute(ticket, "1+1").data
        took.append(time.perf_counter() - begun)
        assert result["outputs"][0]["text"] == "2"
        phases.append(made["startupMillis"])
        gateway.terminate(ticket)
        kubectl.must(
            "wait",
            "-n",
            ENGINES,
            f"ec/{made['name']}",
            "--for=jsonpath={.status.engineState}=Success",
            "--timeout=30s",
        )
        kubectl.must("delete", "ec", made["name"], "-n", ENGINES)
        after = writes(operator)
        spent.append(after - before)
        before = after
    return took, phases, spent


def calls(gateway: Gateway, ticket: str) -> list[float]:
    took = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        gateway.execute(ticket, "1+1")
        took.append(time.perf_counter() - begun)
    return took


def download(gateway: Gateway, metrics: str, info: dict[str, Any]) -> tuple[float, float, int]:
    """A log of 1 GiB: seconds, growth of the gateway's memory in MiB, bytes that came. `metrics` is its address."""
    code = (
        "with open('/var/log/engine/stdout', 'ab') as f:\n"
        "    for _ in range(1024): f.write((b'x' * 127 + b'\\n') * 8192)\n"
    )
    assert gateway.execute(info["ticketId"], code).data["status"] == "Succeed"
    before = metric(metrics, 9106, "process_resident_memory_bytes")
    peak, size = before, 0
    begun = time.perf_counter()
    pieces = gateway.stream(
        emInstance=info["ecmInstance"], instance=info["serviceInstance"], logDirSuffix=info["logDirSuffix"],
        logType="stdout",
    )  # fmt: skip
    for number, piece in enumerate(pieces):
        size += len(piece)
        if number % 64 == 0:
            peak = max(peak, metric(metrics, 9106, "process_resident_memory_bytes"))
    seconds = time.perf_counter() - begun
    return seconds, (peak - before) / 2**20, size


def restart(operator: str) -> tuple[int, float]:
    """200 settled engines, then a new operator: how many engines, and its writes in 30 s."""
    items = [
        {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn",
         "metadata": {"name": f"settled-{n}", "namespace": ENGINES},
         "spec": {"engineType": "python", "user": "hadoop", "desiredState": "Stopped"}}
        for n in range(200)
    ]  # fmt: skip
    kubectl.must("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    kubectl.must("wait", "-n", ENGINES, "ec", "--all", "--for=jsonpath={.status.engineState}=Success", "--timeout=120s")
    kubectl.must("rollout", "restart", "-n", NAMESPACE, f"deployment/{RELEASE}-operator")
    kubectl.must("rollout", "status", "-n", NAMESPACE, f"deployment/{RELEASE}-operator", "--timeout=120s")
    deadline = time.monotonic() + 30
    while metric(operator, 9104, "ecm_leading") != 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(30)
    assert metric(operator, 9104, "ecm_leading") == 1
    return len(items), writes(operator)


def main() -> int:
    tags = tools.images()
    table = Table(46, 12, 10)
    tell = table.tell
    print("what                                             measured       goal", flush=True)
    # Without the canary, whose three writes a minute are no engine's.
    with clean.release("canary=false") as release:
        raw = raw_pods(tags["engine-python"])
        bare = bare_kernels(tags["engine-python"])
        tell("raw pod, create → Ready, p50", f"{p50(raw) * 1000:.0f} ms")
        tell("bare ipykernel in a pod, start → result, p50", f"{p50(bare['starts']) * 1000:.0f} ms")
        address, operator = service_address(f"{RELEASE}-gateway"), service_address(f"{RELEASE}-operator")
        with Gateway(address, 9102, release.token) as gateway:
            took, phases, spent = cold_starts(gateway, operator)
            tell("engine, create → first result, p50", f"{p50(took) * 1000:.0f} ms")
            tell("engine, create → first result, p90", f"{p90(took) * 1000:.0f} ms")
            for phase in phases[0]:
                tell(f"  of it until {phase}, p50", f"{p50([float(p.get(phase, 0)) for p in phases]):.0f} ms")
            ratio = p50(took) / (p50(raw) + p50(bare["starts"]))
            floor = p50(raw) + p50(bare["starts"])
            table.judge(
                "start",
                "start to raw pod + bare kernel, p50",
                ratio,
                at_most=0.85,
                floor=floor * 1000,
                floor_unit="ms",
                samples=[one / floor for one in took],
            )
            table.judge(
                "life-writes", "API writes of a whole life, most", max(spent), "writes", at_most=4, samples=spent
            )
            info = gateway.create().data
            gateway.execute(info["ticketId"], "1+1")
            called = calls(gateway, info["ticketId"])
            tell("bare jupyter_client, warm 1+1, p50", f"{p50(bare['calls']) * 1000:.2f} ms")
            tell("executeCode through the gateway, p50", f"{p50(called) * 1000:.2f} ms")
            ratio = p50(called) / p50(bare["calls"])
            floor = p50(bare["calls"])
            table.judge(
                "cluster-call-p50",
                "1+1 on the cluster to jupyter_client, p50",
                ratio,
                at_most=1.2,
                floor=floor * 1000,
                floor_unit="ms",
                samples=[one / floor for one in called],
            )
            seconds, grown, size = download(gateway, service_address(f"{RELEASE}-gateway-metrics"), info)
            tell("log of 1 GiB, downloaded in", f"{seconds:.1f} s")
            tell("its bytes", f"{size / 2**30:.3f} GiB", "≥ 1", met=size >= DOWNLOAD)
            table.judge("cluster-log-memory", "log of 1 GiB: the gateway grew by", grown, "MiB", at_most=32)
            gateway.terminate(info["ticketId"])
        count, wrote = restart(operator)
        table.judge("restart-writes", f"writes of a new operator over {count} settled", wrote, "writes", at_most=0)
    return table.finish()


if __name__ == "__main__":
    if sys.argv[1:2] == ["floods"]:
        sys.exit(floods.main(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--inside", action="store_true", help="it runs in the node's network namespace already")
    parser.add_argument("--running", action="store_true", help="the cluster runs: start nothing of it")
    given = parser.parse_args()
    if given.inside:
        sys.exit(main())
    # What starts a part of the node anew is its parent, and some parents end all that they started (bench.all.keeper).
    if not given.running:
        tools.up()
    sys.exit(clean.run_inside("bench", ["--inside"], seconds=900))
