"""Starts a whole installation on loopback, each part in a process of its own, and says how each one does.

The processes are the product's: the operator with kopf, the gateway with its logins by token, OpenID Connect and
Kubernetes, agents with kernels. Only the cluster is a fake one. Limits are the product's defaults. Must not attack.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from linkis_ecm.model.agent_key import Enrolment, agent_key
from tools.cluster.pki import Authority
from tools.loopback.cluster import NAMESPACE, host_of
from tools.testkit.agents.keys import NONCE
from tools.testkit.fakes.apiserver import write_kubeconfig
from tools.testkit.gateway.harness import EM, KEY, PLUGIN, TOKEN
from tools.testkit.servers.orphans import start
from tools.testkit.servers.serving import serving

PATIENCE = 60.0
PART = ("-m", "tools.loopback.part")
AGENT_PORT = 9105
# The audience of tokens of the OpenID Connect issuer, whom an attacker may play.
AUDIENCE = "linkis-ecm-gateway"
# More engines of one user are refused: what a fuzzer makes stays in bounds.
LIMITS = {"user": {"engines": 20}}
API = "/apis/linkis.apache.org/v1alpha1"


@dataclass
class Part:
    """One process of the product, and where it listens."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.process.poll() is None

    def memory(self, what: str = "VmRSS") -> int:
        """Bytes in memory now; VmHWM is the highest since the last `forget_peak`. 0 where the process is gone."""
        return memory_of(self.pid, what)

    def forget_peak(self) -> None:
        """The highest memory counts from now on (proc(5), clear_refs)."""
        forget_peak(self.pid)


def memory_of(pid: int, what: str = "VmRSS") -> int:
    """Bytes of a process, by a name in its status (proc(5)); 0 where it is gone."""
    with contextlib.suppress(OSError):
        found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) * 1024 if found is not None else 0
    return 0


def forget_peak(pid: int) -> None:
    """VmHWM of that process counts from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass
class Engine:
    """An engine of the installation, and what its agent is known by."""

    name: str
    user: str
    uid: str
    pod_uid: str
    address: str
    key: str
    # Of its status, once it is Idle.
    instance: str = ""
    log_dir: str = ""
    sequence: int = 0

    def report(self, state: str = "Idle", **more: Any) -> dict[str, Any]:
        """The body of its agent's next report."""
        self.sequence += 1
        return {
            "namespace": NAMESPACE, "name": self.name, "uid": self.uid, "attempt": 0, "sequence": self.sequence,
            "state": state, "podUid": self.pod_uid, "enrolment": NONCE, "timings": {}, "usage": {}, "metrics": {},
        } | more  # fmt: skip

    @property
    def query(self) -> str:
        """As its agent's uploads name it."""
        return (
            f"namespace={NAMESPACE}&name={self.name}&uid={self.uid}&attempt=0&podUid={self.pod_uid}&enrolment={NONCE}"
        )


@dataclass
class Installation:
    """Everything that runs, and calls to its cluster."""

    folder: Path
    network: str
    api_port: int
    issuer_port: int
    health_port: int
    parts: dict[str, Part] = field(default_factory=dict)
    trust: ssl.SSLContext | None = None

    @property
    def gateway(self) -> Part:
        return self.parts["gateway"]

    @property
    def operator(self) -> Part:
        return self.parts["operator"]

    def address(self, number: int) -> str:
        """An address of this installation's own part of loopback."""
        return f"{self.network}.{number}"

    def kube(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One call to the cluster's API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def engine(self, name: str, user: str) -> Engine:
        """The engine of that name once it has a pod; made where it is not there. An ended one is replaced."""
        path = f"{API}/namespaces/{NAMESPACE}/engineconns"
        status, found = self.kube("GET", f"{path}/{name}")
        if status == 200 and found.get("status", {}).get("engineState") in ("Failed", "Success", "ShuttingDown"):
            self.kube("DELETE", f"{path}/{name}")
            until(f"{name} is gone", lambda: self.kube("GET", f"{path}/{name}")[0] == 404)
            until("its pod is gone", lambda: self._pod(name) is None)
            status = 404
        if status == 404:
            body = {
                "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
                "spec": {"engineType": "python", "user": user, "creator": "IDE"},
            }  # fmt: skip
            status, found = self.kube("POST", path, body)
            if status != 201:
                raise RuntimeError(f"{name} cannot be made: {found}")
        pod: dict[str, Any] = until(f"{name} has a pod", lambda: self._pod(name))
        uid, pod_uid = found["metadata"]["uid"], pod["metadata"]["uid"]
        ip = pod["status"]["podIP"]
        return Engine(
            name, user, uid, pod_uid, f"{ip}:{AGENT_PORT}", agent_key(KEY, Enrolment(pod_uid, uid, 0, NONCE)),
        )  # fmt: skip

    def _pod(self, name: str) -> dict[str, Any] | None:
        items = self.kube("GET", f"/api/v1/namespaces/{NAMESPACE}/pods")[1]["items"]
        mine = [
            pod
            for pod in items
            if any(owner["name"] == name for owner in pod["metadata"].get("ownerReferences", []))
            and pod["status"].get("podIP")
        ]
        return mine[0] if mine else None

    def status(self, name: str) -> dict[str, Any]:
        """An engine's status; empty where it has none, or is not there."""
        code, found = self.kube("GET", f"{API}/namespaces/{NAMESPACE}/engineconns/{name}")
        status: dict[str, Any] = found.get("status", {}) if code == 200 else {}
        return status

    def ready(self, name: str, user: str) -> Engine:
        """An engine with a real agent, Idle."""
        engine = self.engine(name, user)
        until(f"{name} is Idle", lambda: self.status(name).get("engineState") in ("Idle", "Busy"))
        return self._with_status(engine)

    def hostile(self, number: int, user: str = "mallory") -> Engine:
        """An engine whose agent is whoever listens at its address; it has reported once that it is Idle."""
        engine = self.engine(f"hostile-{number}", user)

        def taken() -> bool:
            return self.report(engine) in (200, 204)

        until(f"{engine.name} has reported", taken)
        until(f"{engine.name} is Idle", lambda: self.status(engine.name).get("engineState") in ("Idle", "Busy"))
        return self._with_status(engine)

    def _with_status(self, engine: Engine) -> Engine:
        status = self.status(engine.name)
        engine.log_dir, engine.instance = status["logDirSuffix"], status["serviceInstance"]
        return engine

    def report(self, engine: Engine, **more: Any) -> int:
        """One report of an engine's agent to the operator; the answer's HTTP status."""
        source = (engine.address.rpartition(":")[0], 0)
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.operator.port, timeout=10, source_address=source
        )  # fmt: skip
        try:
            headers = {"Authorization": f"Bearer {engine.key}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/report", json.dumps(engine.report(**more)), headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def agent_pid(self, engine: Engine) -> int:
        """The process of a real agent: the one that works in the pod's folder; 0 where there is none."""
        wanted = self.folder / f"pod-{engine.pod_uid}"
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                is_agent = folder.name.isdecimal() and b"linkis_ecm.agent\0" in (folder / "cmdline").read_bytes()
                if is_agent and Path(os.readlink(folder / "cwd")).is_relative_to(wanted):
                    return int(folder.name)
        return 0


def until(what: str, look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What `look` gives once it is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)
    return found


def http_status(port: int, path: str, *, trust: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> int:
    """The status of a GET; 0 where nobody answers."""
    connection = (
        http.client.HTTPConnection(host, port, timeout=10)
        if trust is None
        else http.client.HTTPSConnection(host, port, timeout=10, context=trust)
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _answers(part: Part, port: int, trust: ssl.SSLContext | None) -> bool:
    if not part.alive():
        raise RuntimeError(f"{part.name} has ended: {part.log.read_text()[-2000:]}")
    return http_status(port, "/readyz", trust=trust) == 200


@contextmanager
def installation(
    folder: Path,
    *,
    tls: bool = False,
    gateway: Mapping[str, str] | None = None,
    plugin: Mapping[str, Any] | None = None,
    operator_command: Sequence[str] = PART,
) -> Iterator[Installation]:
    """A whole one in `folder`; with a second gateway that speaks TLS if `tls`. `gateway`: more of its environment;
    `plugin`: more of its EngineConnPlugin's spec. `operator_command`: what Python is started with to be the
    operator."""
    # Nobody else's on this machine: addresses of agents are fixed, and so is their port.
    network = f"127.{random.SystemRandom().randint(16, 250)}.{random.SystemRandom().randint(1, 250)}"
    (folder / "key").write_bytes(KEY)
    (folder / "tokens.json").write_text(json.dumps({TOKEN: {"users": ["*"]}}))
    with ExitStack() as stack:
        # So that the processes started here end with this one.
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        stack.callback(signal.signal, signal.SIGTERM, before)
        held = {name: stack.enter_context(_reserved()) for name in ("gateway", "report", "health", "issuer", "tls")}
        ports = {name: one.getsockname()[1] for name, one in held.items()}
        held["issuer"].close()
        told = json.dumps({"folder": str(folder), "network": network})
        cluster = stack.enter_context(serving("tools.loopback.cluster", told))
        made = Installation(folder, network, cluster.port, ports["issuer"], ports["health"])
        made.kube("POST", f"{API}/engineconnplugins", _plugin(plugin or {}))
        common = {
            "KUBECONFIG": str(write_kubeconfig(folder / "kubeconfig", f"http://127.0.0.1:{cluster.port}")),
            "ECM_DATABASE_URL": f"sqlite:///{folder}/ecm.sqlite3", "ECM_TOKEN_KEY_FILE": str(folder / "key"),
            "ECM_ARCHIVE_URL": f"file://{folder}/archive", "ECM_INSTANCE": EM, "ECM_LIMITS": json.dumps(LIMITS),
            "ECM_POD_NAMESPACE": "default", "ECM_WATCH_NAMESPACES": NAMESPACE,
        }  # fmt: skip
        operator = {
            "ECM_REPORT_URL": f"http://127.0.0.1:{ports['report']}", "ECM_REPORT_PORT": str(ports["report"]),
            "ECM_HEALTH_PORT": str(ports["health"]), "ECM_POD_NAME": "one",
        }  # fmt: skip
        _start(made, stack, "operator", "operator", ports["report"], common | operator, operator_command)
        until("the operator is ready", partial(_answers, made.operator, ports["health"], None))
        issuer = f"http://127.0.0.1:{ports['issuer']}"
        serves = {
            "ECM_GATEWAY_HOST": "127.0.0.1", "ECM_NAMESPACE": NAMESPACE, "ECM_ADMINS": "root",
            "ECM_TOKENS_FILE": str(folder / "tokens.json"), "ECM_AUTH_KUBERNETES": "true",
            "ECM_OIDC_ISSUER": issuer, "ECM_OIDC_AUDIENCE": AUDIENCE, "ECM_OIDC_JWKS_URL": f"{issuer}/jwks",
        }  # fmt: skip
        plain = {"ECM_GATEWAY_PORT": str(ports["gateway"])}
        _start(made, stack, "gateway", "gateway", ports["gateway"], common | serves | plain | dict(gateway or {}))
        if tls:
            authority = Authority(folder / "pki")
            pair = authority.issue("gateway", common_name="gateway", addresses=["127.0.0.1"])
            made.trust = ssl.create_default_context(cafile=str(authority.pair.certificate))
            files = {"ECM_TLS_CERT_FILE": str(pair.certificate), "ECM_TLS_KEY_FILE": str(pair.key)}
            secure = {"ECM_GATEWAY_PORT": str(ports["tls"])} | files
            _start(made, stack, "tls", "gateway", ports["tls"], common | serves | secure)
        for part in made.parts.values():
            if part.name != "operator":
                trust = made.trust if part.name == "tls" else None
                until(f"{part.name} is ready", partial(_answers, part, part.port, trust))
        yield made


def _reserved() -> socket.socket:
    """As tools.testkit.servers.ports.reserved, below the ports that the system gives to connections: the many
    connections from addresses of their own (tools.loopback.sockets) hold those for every address."""
    choice = random.SystemRandom()
    while True:
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(("127.0.0.1", choice.randint(20_000, 32_000)))
        except OSError:
            held.close()
            continue
        return held


def _start(
    made: Installation,
    stack: ExitStack,
    name: str,
    part: str,
    port: int,
    environment: Mapping[str, str],
    command: Sequence[str] = PART,
) -> None:
    path = made.folder / f"{name}.log"
    with path.open("wb") as log:
        process = start(
            [sys.executable, *command, part],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    made.parts[name] = Part(name, process, port, path)
    stack.callback(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _plugin(more: Mapping[str, Any]) -> dict[str, Any]:
    # What a fuzzer makes and nobody runs ends soon; the installation's own engines live on.
    spec = PLUGIN["spec"] | {"idleTimeout": "0s", "startTimeout": "30s", "ttlAfterFinished": "30s", **more}
    body = {"metadata": {"name": PLUGIN["metadata"]["name"]}, "spec": spec}
    return {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin"} | body


__all__ = ["Engine", "Installation", "Part", "forget_peak", "host_of", "installation", "memory_of", "until"]
