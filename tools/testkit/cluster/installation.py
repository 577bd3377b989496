"""Installs the chart on the cluster and reaches its gateway: what the e2e tests, the demo and the benchmark share.

Must not assert anything about the product: that is for those who call it.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from linkis_ecm.engine.admission.in_force import MARGIN, SKEW
from linkis_ecm.engine.times import parse_time
from tools.cluster.tools import dns_block, helm, images, kubeconfig, refresh_volumes
from tools.cluster.tools import kubectl as kubectl_binary
from tools.testkit.cluster import kubectl

ROOT = Path(__file__).parents[3]
RELEASE = "linkis-ecm"
# Where the demo, the e2e tests and the benchmark install. Engine plugins are cluster-scoped, so each of these takes the
# others' place; what stands beside another release leaves out what is of the cluster.
OURS = ("linkis", "ecm-e2e", "ecm-bench", "ecm-db", "ecm-shards")
# Releases beside the first one of the e2e tests: one for each process of a run (pytest-xdist).
BESIDE = re.compile(r"ecm-e2e-(gw\d+|own)")
# What the first release has for the whole cluster: the engine plugins and the roles of users.
OF_THE_CLUSTER = ("userRoles.create=false", "engines.python.enabled=false")


@dataclass(frozen=True)
class Installation:
    """A release in a namespace; `token` is one that may speak for every user."""

    namespace: str
    token: str

    @property
    def engines(self) -> str:
        """The namespace of its engines."""
        return engines_of(self.namespace)

    def forward(self, service: str = "gateway", port: int = 9102, *, local: int = 0) -> PortForward:
        """A port of this machine's loopback that leads to a service of the release: `local`, or any that is free."""
        return PortForward(self.namespace, f"service/{RELEASE}-{service}", port, local=local)


def engines_of(namespace: str) -> str:
    """Where the engines of a release in that namespace live."""
    return f"{namespace}-engines"


def dns() -> list[str]:
    """The value that names the node's DNS where that is no pod; empty where it is one."""
    block = dns_block()
    return [f"networkPolicy.dns[0].ipBlock.cidr={block}"] if block else []


def install(namespace: str, *settings: str, seconds: float = 180, beside: bool = False) -> Installation:
    """`helm upgrade --install` with this checkout's images; returns when the release is ready.

    The other releases of our own runs are removed first; with `beside` they stay.
    """
    tags = images()
    refresh_volumes()
    if not beside:
        make_room(namespace)
    # Helm installs a chart's CRDs, and never changes them after that.
    kubectl.must("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    # It waits for those that it has installed, and not for ours: it would know no such kind.
    kubectl.must("wait", "--for=condition=Established", "-f", str(ROOT / "crds"), "--timeout=60s")
    repository, _, tag = tags["ecm"].rpartition(":")
    values = [
        f"image.repository={repository}",
        f"image.tag={tag}",
        f"engines.python.image={tags['engine-python']}",
        f"engineNamespaces[0].name={engines_of(namespace)}",
        # The node's volumes hold 5 Gi.
        "archive.persistence.size=2Gi",
        *dns(),
        *settings,
    ]
    command = [str(helm()), "upgrade", "--install", RELEASE, str(ROOT / "helm/linkis-ecm")]
    command += ["--namespace", namespace, "--create-namespace", "--kubeconfig", str(kubeconfig())]
    command += ["--wait", "--timeout", f"{seconds:.0f}s"]
    for value in values:
        command += ["--set", value]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    if done.returncode:
        pods = kubectl.run("get", "pods", "-n", namespace, "-o", "wide").out
        selector = f"app.kubernetes.io/instance={RELEASE}"
        logs = kubectl.run("logs", "-n", namespace, "-l", selector, "--prefix", "--tail=30").out
        raise RuntimeError(f"helm: {done.stderr.strip()}\n{pods}\n{logs}")
    kubectl.must("label", "namespace", namespace, "--overwrite", "pod-security.kubernetes.io/enforce=restricted")
    until_policies_count(namespace)
    return installed(namespace)


def until_policies_count(namespace: str) -> None:
    """Waits until an operator that has just begun takes engines, which it does some seconds after the release's
    admission policies were last written (engine/admission/in_force.py)."""
    kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings"
    policies = [
        one["metadata"]
        for one in kubectl.get(kinds, "-l", f"app.kubernetes.io/instance={RELEASE}", "--show-managed-fields")["items"]
        if one["metadata"]["annotations"]["meta.helm.sh/release-namespace"] == namespace
    ]
    written = [found for one in policies for wrote in one["managedFields"] if (found := parse_time(wrote["time"]))]
    if written:
        left = max(written) + MARGIN + SKEW - datetime.now(UTC)
        time.sleep(min(max(0.0, left.total_seconds()), (MARGIN + SKEW).total_seconds()))


def installed(namespace: str) -> Installation:
    """The release that is in a namespace."""
    secret = kubectl.get("secret", f"{RELEASE}-auth", "-n", namespace)
    tokens = json.loads(base64.b64decode(secret["data"]["tokens.json"]))
    return Installation(namespace, next(iter(tokens)))


def make_room(namespace: str) -> None:
    """Removes the release that another of our own runs left on the cluster.

    Raises RuntimeError where somebody else's release is there: its operator would take this run's engines.
    """
    command = [str(helm()), "list", "--all-namespaces", "--output", "json", "--kubeconfig", str(kubeconfig())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    for release in json.loads(done.stdout):
        if not release["chart"].startswith("linkis-ecm-") or release["namespace"] == namespace:
            continue
        ours = release["namespace"] in OURS or BESIDE.fullmatch(release["namespace"])
        if not ours or release["name"] != RELEASE:
            raise RuntimeError(
                f"release {release['name']} of linkis-ecm is in namespace {release['namespace']} of this cluster, and"
                " a cluster carries one: use another cluster, or `helm uninstall` it"
            )
        print(f"  removing the release in namespace {release['namespace']}: a cluster carries one", flush=True)
        uninstall(release["namespace"])


def uninstall(namespace: str) -> None:
    """Removes the release, its namespace and that of its engines; the CRDs stay, as with any chart."""
    kubectl.run("delete", "ec", "--all", "-n", engines_of(namespace), "--timeout=60s")
    done = helm_uninstall(namespace)
    if done.returncode:
        print(f"  helm uninstall in {namespace}: {done.stderr.strip()}", flush=True)
    kubectl.run("delete", "namespace", engines_of(namespace), namespace, "--timeout=90s")


def helm_uninstall(namespace: str) -> subprocess.CompletedProcess[str]:
    """What helm says. It waits for the pods' end, which takes their grace and more on a busy node."""
    command = [str(helm()), "uninstall", RELEASE, "--namespace", namespace, "--kubeconfig", str(kubeconfig())]
    # Helm's own bound first: it says what it waited for.
    return subprocess.run(
        [*command, "--wait", "--timeout=180s"], capture_output=True, text=True, check=False, timeout=210
    )


def guards(namespace: str) -> dict[str, str]:
    """The uids of the release's NetworkPolicies in that namespace, by name."""
    items = kubectl.get("networkpolicy", "-n", namespace, "-l", f"app.kubernetes.io/instance={RELEASE}")["items"]
    return {one["metadata"]["name"]: one["metadata"]["uid"] for one in items}


class PortForward:
    """`kubectl port-forward` as a context manager; yields the local port."""

    def __init__(self, namespace: str, target: str, port: int, *, local: int = 0) -> None:
        ports = f"{local or ''}:{port}"
        self._arguments = ["port-forward", "-n", namespace, target, ports, "--address", "127.0.0.1"]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> int:
        command = [str(kubectl_binary()), "--kubeconfig", str(kubeconfig()), *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout is not None
        said = []
        # It may warn of something first.
        for line in self._process.stdout:
            if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                return int(found[1])
            said.append(line.strip())
        self.__exit__()
        raise RuntimeError(f"kubectl port-forward: {' '.join(said)}")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:  # it waits for a connection's end
                self._process.kill()
                self._process.wait(10)
            if self._process.stdout is not None:
                self._process.stdout.close()


@contextmanager
def stopwatch(out: dict[str, float], name: str) -> Iterator[None]:
    """Notes under `name` how many seconds the block took."""
    begun = time.monotonic()
    try:
        yield
    finally:
        out[name] = time.monotonic() - begun
