"""What takes part in the benchmark of scale beside the control plane: bodies, agents, the operator, kwok.

kwok stands in for the kubelet, `Agents` for the engines' agents. Must not measure.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench.clean import stop
from linkis_ecm.model.agent_key import Enrolment, agent_key
from tools.cluster import binaries
from tools.testkit.agents.keys import NONCE
from tools.testkit.servers.orphans import start
from tools.testkit.servers.ports import reserved

STAGES = Path(__file__).parent / "kwok.yaml"
NAMESPACE = "ecm-scale"
RAW = "ecm-scale-raw"
PLUGIN = "scale-kwok"
# Kubernetes's own bound for a node is 110; kwok's have no kubelet that would suffer.
PODS_PER_NODE = 250
# 10,000 agents each 10 s would be this program's load, not the operator's: once a minute.
REPORT_PERIOD = 60
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, of user and system; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


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
        "defaultResources": {"cpu": "1m", "memory": "32Mi"}, "idleTimeout": "0s", "startTimeout": "60m",
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

    def __init__(self, key: bytes, port: int) -> None:
        self._key = key
        self._url = f"http://127.0.0.1:{port}/v1/report"
        self.known: dict[str, dict[str, Any]] = {}
        self.reported: set[str] = set()
        # Answers by their status, for what is refused.
        self.answers: Counter[int] = Counter()
        self._sequences: dict[str, int] = {}
        # uids of pods whose report is due now.
        self._due: asyncio.Queue[str] = asyncio.Queue()

    def pod_changed(self, kind: str, pod: dict[str, Any]) -> None:
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            self.known.pop(uid, None)
        elif uid not in self.known and pod["status"].get("phase") == "Running":
            env = {item["name"]: item.get("value", "") for item in pod["spec"]["containers"][0]["env"]}
            self.known[uid] = env
            self._due.put_nowait(uid)

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=8)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(self._work(session))

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            uid = await self._due.get()
            env = self.known.get(uid)
            if env is None:
                continue
            # Each report is one more than the last: the operator refuses a number that is far beyond it.
            self._sequences[uid] = sequence = self._sequences.get(uid, 0) + 1
            body = {
                "namespace": env["ECM_NAMESPACE"], "name": env["ECM_NAME"], "uid": env["ECM_UID"],
                "attempt": int(env["ECM_ATTEMPT"]), "sequence": sequence, "state": "Idle",
                "podUid": uid, "enrolment": NONCE, "timings": {}, "usage": {}, "metrics": {},
            }  # fmt: skip
            enrolment = Enrolment(uid, env["ECM_UID"], int(env["ECM_ATTEMPT"]), NONCE)
            again = 1.0
            try:
                async with session.post(
                    self._url, json=body,
                    headers={"Authorization": f"Bearer {agent_key(self._key, enrolment)}"},
                    timeout=aiohttp.ClientTimeout(total=10),
                ) as answer:  # fmt: skip
                    self.answers[answer.status] += 1
                    if answer.status == 204:
                        self.reported.add(uid)
                        again = float(REPORT_PERIOD)
            except (aiohttp.ClientError, TimeoutError):
                pass
            asyncio.get_running_loop().call_later(again, self._due.put_nowait, uid)


class OperatorProcess:
    """The operator as its image runs it, with this machine's files. `profile`: where cProfile's figures go."""

    def __init__(self, folder: Path, key: bytes, kubeconfig: Path, profile: Path | None = None) -> None:
        key_file = folder / "key"
        key_file.write_bytes(key)
        self.log = folder / "operator.log"
        self._profile = profile
        self._profiled = False
        # Held for as long as this process runs: the operator binds them anew after each start.
        self._held = [reserved(), reserved()]
        self.report_port, self.health_port = (one.getsockname()[1] for one in self._held)
        self._env = os.environ | {
            "ECM_DATABASE_URL": f"sqlite:///{folder}/ecm.sqlite3", "ECM_INSTANCE": "bench:9102",
            "ECM_REPORT_URL": "http://localhost:9103", "ECM_TOKEN_KEY_FILE": str(key_file),
            "ECM_POD_NAMESPACE": NAMESPACE,
            "ECM_POD_NAME": "bench", "ECM_WATCH_NAMESPACES": NAMESPACE, "ECM_REPORT_PORT": str(self.report_port),
            "ECM_HEALTH_PORT": str(self.health_port), "ECM_REPORT_PERIOD": str(REPORT_PERIOD),
            "ECM_ARCHIVE_URL": f"file://{folder}/archive", "ECM_CANARY": "0", "KUBECONFIG": str(kubeconfig),
            # All agents of the benchmark have one address.
            "ECM_PEER_CONNECTIONS": "0",
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it. The first one is profiled where that is asked for."""
        self._profiled = self._profile is not None
        profiled = [] if self._profile is None else ["-m", "cProfile", "-o", str(self._profile)]
        self._profile = None
        with self.log.open("ab") as log:
            self.process = start(
                [sys.executable, *profiled, "-m", "linkis_ecm", "operator"], env=self._env, stdout=log, stderr=log
            )

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends that signal; returns when it is gone."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    @property
    def is_profiled(self) -> bool:
        """Whether the one that runs is. It must be ended by SIGTERM, or there are no figures."""
        return self._profiled

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far."""
        assert self.process is not None
        return cpu_seconds(self.process.pid)

    def memory(self, what: str = "VmRSS") -> int:
        """Bytes; VmHWM is the peak."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{what}:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) * 1024

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}

    def writes(self) -> float:
        wanted = re.compile(r'ecm_kube_requests_total\{.*resource="(engineconns|engineconns/status|pods|events)".*\}')
        counted = {name: value for name, value in self.metrics().items() if wanted.match(name)}
        if not counted:
            raise LookupError("the operator counts no requests")
        return sum(value for name, value in counted.items() if re.search(r'verb="(create|patch|delete)"', name))


@contextmanager
def kwok(folder: Path, kubeconfig: Path) -> Iterator[subprocess.Popen[bytes]]:
    """kwok's controller for nodes that carry its annotation."""
    with (folder / "kwok.log").open("wb") as log:
        process = start(
            [str(binaries.build("kwok")), f"--kubeconfig={kubeconfig}", f"--config={STAGES}",
             "--manage-all-nodes=false",
             "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake", "--cidr=10.200.0.0/16",
             "--node-ip=127.0.0.1", "--node-lease-duration-seconds=40"],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield process
        finally:
            stop(process)
