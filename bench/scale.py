"""`python -m bench.scale [engines]`: 10,000 engines on kwok's nodes, with a real API server, operator and database.

kwok stands in for the kubelet, this program for the agents: it reports each pod that runs as Idle. Measured: how fast
engines become pods (beside raw pods in the same run), the operator's memory, and how long a new operator takes until it
is in step, with how many writes. Runs inside the node's network namespace; all that it makes it takes away.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench.table import Table
from linkis_ecm.kube.client import ApiError, KubeClient
from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import ENGINECONNS, NAMESPACES, NODES, PLUGINS, PODS
from linkis_ecm.model.agent_key import Enrolment, agent_key, master_key
from tools.cluster import binaries, tools
from tools.testkit import kubectl
from tools.testkit.keys import NONCE

STAGES = Path(__file__).parent / "kwok.yaml"
NAMESPACE = "ecm-scale"
RAW = "ecm-scale-raw"
PLUGIN = "scale-kwok"
ENGINES = 10_000
RAW_PODS = 2_000
# Kubernetes's own bound for a node is 110; kwok's have no kubelet that would suffer.
PODS_PER_NODE = 250
WRITERS = 16
RATE_GOAL, RATIO_GOAL = 40.0, 0.8
MEMORY_GOAL = 512 << 20
SYNC_GOAL = 20.0
REPORT_PORT, HEALTH_PORT = 19103, 19104
# 10,000 agents each 10 s would be this program's load, not the operator's: once a minute.
REPORT_PERIOD = 60
PATIENCE = 1200.0


async def each(count: int, work: Callable[[int], Awaitable[None]]) -> None:
    """`work(n)` for all n, WRITERS at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(worker())


def engine_pod(name: str) -> dict[str, Any]:
    """A pod as an engine's, for the raw measure."""
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": RAW, "labels": {"raw": "true"}},
        "spec": {
            "nodeSelector": {"type": "kwok"}, "automountServiceAccountToken": False, "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "engine", "image": "none", "env": [{"name": f"V{n}", "value": "x"} for n in range(13)],
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "1Mi"}},
                "volumeMounts": [{"name": "log", "mountPath": "/var/log/engine"}],
            }],
            "volumes": [{"name": "log", "emptyDir": {}}],
        },
    }  # fmt: skip


def engine(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn",
        "metadata": {"name": f"e{number:05d}", "namespace": NAMESPACE},
        "spec": {"plugin": PLUGIN, "user": f"user{number % 50}"},
    }  # fmt: skip


PLUGIN_BODY = {
    "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin", "metadata": {"name": PLUGIN},
    "spec": {
        "engineType": "kwok", "engineVersion": "1", "image": "none", "runTypes": ["python"],
        "defaultResources": {"cpu": "1m", "memory": "1Mi"}, "idleTimeout": "0s", "startTimeout": "60m",
        "podTemplate": {"spec": {"nodeSelector": {"type": "kwok"}}},
    },
}  # fmt: skip


def node(number: int) -> dict[str, Any]:
    amount = {"cpu": "64", "memory": "512Gi", "pods": str(PODS_PER_NODE)}
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": f"kwok-{number}", "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"type": "kwok", "kubernetes.io/hostname": f"kwok-{number}"},
        },
        "status": {"allocatable": amount, "capacity": amount},
    }  # fmt: skip


class Agents:
    """Reports each running engine's pod as Idle, at once and each REPORT_PERIOD."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.known: dict[str, dict[str, Any]] = {}
        self.told: set[str] = set()
        self._due: asyncio.PriorityQueue[tuple[float, str]] = asyncio.PriorityQueue()

    def seen(self, kind: str, pod: dict[str, Any]) -> None:
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            self.known.pop(uid, None)
        elif uid not in self.known and pod["status"].get("phase") == "Running":
            env = {item["name"]: item.get("value", "") for item in pod["spec"]["containers"][0]["env"]}
            self.known[uid] = env
            self._due.put_nowait((time.monotonic(), uid))

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=8)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(self._work(session))

    async def _work(self, session: aiohttp.ClientSession) -> None:
        sequence = 0
        while True:
            due, uid = await self._due.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            env = self.known.get(uid)
            if env is None:
                continue
            sequence += 1
            body = {
                "namespace": env["ECM_NAMESPACE"], "name": env["ECM_NAME"], "uid": env["ECM_UID"],
                "attempt": int(env["ECM_ATTEMPT"]), "sequence": int(time.time() * 1000), "state": "Idle",
                "podUid": uid, "enrolment": NONCE, "timings": {}, "usage": {}, "metrics": {},
            }  # fmt: skip
            enrolment = Enrolment(uid, env["ECM_UID"], int(env["ECM_ATTEMPT"]), NONCE)
            again = 1.0
            try:
                async with session.post(
                    f"http://127.0.0.1:{REPORT_PORT}/v1/report", json=body,
                    headers={"Authorization": f"Bearer {agent_key(self._key, enrolment)}"},
                    timeout=aiohttp.ClientTimeout(total=10),
                ) as answer:  # fmt: skip
                    if answer.status == 204:
                        self.told.add(uid)
                        again = float(REPORT_PERIOD)
            except (aiohttp.ClientError, TimeoutError):
                pass
            self._due.put_nowait((time.monotonic() + again, uid))


class OperatorProcess:
    """The operator as its image runs it, with this machine's files."""

    def __init__(self, folder: Path, key: bytes) -> None:
        key_file = folder / "key"
        key_file.write_bytes(key)
        self.log = (folder / "operator.log").open("ab")
        self._env = os.environ | {
            "ECM_DATABASE_URL": f"sqlite:///{folder}/ecm.sqlite3", "ECM_INSTANCE": "bench:9102",
            "ECM_REPORT_URL": "http://bench:9103", "ECM_TOKEN_KEY_FILE": str(key_file), "ECM_POD_NAMESPACE": NAMESPACE,
            "ECM_POD_NAME": "bench", "ECM_WATCH_NAMESPACES": NAMESPACE, "ECM_REPORT_PORT": str(REPORT_PORT),
            "ECM_HEALTH_PORT": str(HEALTH_PORT), "ECM_REPORT_PERIOD": str(REPORT_PERIOD),
            "ECM_ARCHIVE_URL": f"file://{folder}/archive", "ECM_CANARY": "0", "KUBECONFIG": str(tools.kubeconfig()),
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "linkis_ecm", "operator"], env=self._env, stdout=self.log, stderr=self.log
        )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)

    def memory(self, what: str = "VmRSS") -> int:
        """Bytes; VmHWM is the peak."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{what}:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) * 1024

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{HEALTH_PORT}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}

    def writes(self) -> float:
        wanted = re.compile(r'ecm_kube_requests_total\{.*resource="(engineconns|engineconns/status|pods|events)".*\}')
        told = {name: value for name, value in self.metrics().items() if wanted.match(name)}
        if not told:
            raise LookupError("the operator counts no requests")
        return sum(value for name, value in told.items() if re.search(r'verb="(create|patch|delete)"', name))


@asynccontextmanager
async def kwok() -> AsyncIterator[None]:
    """kwok's controller for nodes that carry its annotation."""
    with (Path(tempfile.gettempdir()) / "ecm-kwok.log").open("wb") as log:
        process = subprocess.Popen(
            [str(binaries.build("kwok")), f"--kubeconfig={tools.kubeconfig()}", f"--config={STAGES}",
             "--manage-all-nodes=false",
             "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake", "--cidr=10.200.0.0/16",
             "--node-ip=127.0.0.1", "--node-lease-duration-seconds=40"],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


async def until(what: str, probe: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Seconds until the answer is true."""
    begun = time.monotonic()
    while not probe():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


async def raw_rate(client: KubeClient, count: int) -> float:
    """Raw pods created per second, by as many writers as the operator has workers."""
    begun = time.monotonic()

    async def one(number: int) -> None:
        await client.create(PODS, engine_pod(f"raw-{number}"))

    await each(count, one)
    return count / (time.monotonic() - begun)


async def measure(count: int) -> int:
    table = Table(58, 14, 12)
    tell = table.tell

    key = base64.b64encode(secrets.token_bytes(48))
    agents = Agents(master_key(key))
    with tempfile.TemporaryDirectory() as name:
        operator = OperatorProcess(Path(name), key)
        async with await KubeClient.connect(str(tools.kubeconfig())) as client, kwok():
            nodes = count // PODS_PER_NODE + RAW_PODS // PODS_PER_NODE + 2
            await each(nodes, lambda n: _created(client, NODES, node(n)))
            raw = await raw_rate(client, RAW_PODS)
            tell(f"raw pods created, {RAW_PODS}", f"{raw:.0f} /s")
            kubectl.must("delete", "namespace", RAW, "--timeout=300s", seconds=330)
            seen: dict[str, float] = {}

            def on_pod(kind: str, pod: dict[str, Any]) -> None:
                seen.setdefault(pod["metadata"]["uid"], time.monotonic())
                agents.seen(kind, pod)

            pods = Reflector(client, PODS, namespace=NAMESPACE, transform=dict, on_event=on_pod)
            ready = [0]

            def on_engine(kind: str, item: dict[str, Any]) -> None:
                if (item.get("status") or {}).get("engineState") == "Idle":
                    idle.add(item["metadata"]["uid"])
                    ready[0] = len(idle)

            idle: set[str] = set()
            engines = Reflector(client, ENGINECONNS, namespace=NAMESPACE, transform=dict, on_event=on_engine)
            tasks = [asyncio.create_task(work) for work in (pods.run(), engines.run(), agents.run())]
            try:
                operator.start()
                await until("the operator leads", lambda: _leads(operator), 60)
                begun = time.monotonic()
                await each(count, lambda n: _created(client, ENGINECONNS, engine(n)))
                asked = time.monotonic() - begun
                await until("all pods are created", lambda: len(seen) >= count)
                rate = count / (max(seen.values()) - begun)
                tell(f"EngineConns created by the bench, {count}", f"{count / asked:.0f} /s")
                met = rate >= RATE_GOAL or rate >= RATIO_GOAL * raw
                tell("engines that became pods", f"{rate:.0f} /s", "≥ 40", met=met)
                tell("ratio to raw pods", f"{rate / raw:.2f}", "or ≥ 0.8", met=met)
                await until("all engines are Idle", lambda: ready[0] >= count)
                tell("all engines Idle after", f"{time.monotonic() - begun:.0f} s")
                peak = operator.memory("VmHWM")
                tell("the operator's memory, peak", f"{peak / 2**20:.0f} MiB", "< 512", met=peak < MEMORY_GOAL)
                tell("its memory now", f"{operator.memory() / 2**20:.0f} MiB")
                operator.kill()
                operator.start()
                took = await until("a new operator is in step", lambda: _in_step(operator, count), 300)
                tell("a killed operator's successor in step after", f"{took:.1f} s", "< 20", met=took < SYNC_GOAL)
                await asyncio.sleep(15)
                wrote = operator.writes()
                tell("its writes", f"{wrote:.0f}", "0", met=wrote == 0)
                peak = operator.memory("VmHWM")
                tell("its memory, peak", f"{peak / 2**20:.0f} MiB", "< 512", met=peak < MEMORY_GOAL)
            finally:
                operator.kill()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                print(Path(name, "operator.log").read_text()[-3000:], file=sys.stderr)
    return table.exit_code


async def _created(client: KubeClient, resource: Any, body: dict[str, Any]) -> None:
    await client.create(resource, body)


def _leads(operator: OperatorProcess) -> bool:
    try:
        return operator.metrics().get("ecm_leading") == 1
    except OSError:
        return False


def _in_step(operator: OperatorProcess, count: int) -> bool:
    """It leads, has every engine in its cache, and nothing waits for a pass or for the database."""
    try:
        told = operator.metrics()
    except OSError:
        return False
    engines = sum(value for name, value in told.items() if name.startswith("ecm_engines{"))
    passes = told.get('ecm_reconcile_seconds_count{controller="engine"}', 0)
    return (
        told.get("ecm_leading") == 1 and engines >= count and passes >= count
        and told.get('ecm_queue_depth{controller="engine"}') == 0 and told.get("ecm_sink_depth") == 0
    )  # fmt: skip


async def clean(client: KubeClient) -> None:
    """Everything that a run makes."""
    for space in (RAW, NAMESPACE):
        kubectl.run("delete", "namespace", space, "--ignore-not-found", "--timeout=600s", seconds=630)
    kubectl.run("delete", "ecp", PLUGIN, "--ignore-not-found")
    kubectl.run("delete", "nodes", "-l", "type=kwok", "--ignore-not-found", seconds=120)


async def run(count: int) -> int:
    kubectl.must("apply", "--server-side", "--force-conflicts", "-f", str(Path(__file__).parents[1] / "crds"))
    async with await KubeClient.connect(str(tools.kubeconfig())) as client:
        await clean(client)
        for space in (RAW, NAMESPACE):
            await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
        try:
            await client.create(PLUGINS, PLUGIN_BODY)
        except ApiError as error:
            raise RuntimeError(f"the plugin cannot be made: {error}") from error
        try:
            return await measure(count)
        finally:
            await clean(client)


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument.isdecimal()]
    if "--inside" in sys.argv:
        sys.exit(asyncio.run(run(int(arguments[0]) if arguments else ENGINES)))
    tools.up()
    binaries.build("kwok")
    inside = tools.in_cluster_network([sys.executable, "-m", "bench.scale", *arguments, "--inside"])
    sys.exit(subprocess.run(inside, check=False, timeout=3600).returncode)
