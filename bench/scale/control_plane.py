"""A Kubernetes control plane of one's own on loopback: etcd, API server, controllers, scheduler. No node, no root.

For what needs a real API server and makes thousands of objects in it: the objects go with the folder, and the
processes with this one. Its nodes and their pods are played by somebody else, such as kwok. Must not be used on a
machine that others use, too: etcd asks nobody on loopback for a certificate.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.cluster import binaries
from tools.cluster.pki import Authority, write_kubeconfig
from tools.cluster.progress import ClusterError
from tools.testkit.servers.orphans import start
from tools.testkit.servers.ports import reserved

HOST = "127.0.0.1"
# Two busy cores take seconds for each part.
PART_SECONDS = 120.0
_LOGS = "look at the lines above"


@dataclass(frozen=True)
class ControlPlane:
    """One that runs: the administrator's access, and the process ids of its parts by name."""

    kubeconfig: Path
    pids: dict[str, int]


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Runs one in `folder`, which must not exist. Raises ClusterError."""
    built = {name: str(binaries.build(name)) for name in ("etcd", "kube", "kubectl")}
    with ExitStack() as stack:
        held = [stack.enter_context(reserved()) for _ in range(3)]
        client, peer, secure = (one.getsockname()[1] for one in held)
        kubeconfig = _write_pki(folder, secure)
        lines = commands(folder, built["etcd"], built["kube"], client=client, peer=peer, secure=secure)
        kubectl = [built["kubectl"], "--kubeconfig", str(kubeconfig), "--request-timeout=5s"]
        # What a part needs to be there before the next one is started.
        signs = {
            "kube-apiserver": ["get", "--raw", "/readyz"],
            "kube-scheduler": ["get", "serviceaccount", "default", "-n", "default"],
        }
        pids = {}
        for name, command in lines.items():
            log = folder / f"{name}.log"
            process = start(command, stdout=stack.enter_context(log.open("wb")), stderr=subprocess.STDOUT)
            stack.callback(_end, process)
            pids[name] = process.pid
            if name in signs:
                _wait(name, [*kubectl, *signs[name]], process, log)
        yield ControlPlane(kubeconfig, pids)


def _write_pki(folder: Path, port: int) -> Path:
    """Certificates and the administrator's kubeconfig. All components are administrators: nobody else is here."""
    folder.mkdir()
    authority = Authority(folder / "pki")
    authority.issue("apiserver", common_name="kube-apiserver", dns=["localhost"], addresses=[HOST])
    authority.signing_key("service-accounts")
    admin = authority.issue("admin", common_name="admin", groups=["system:masters"])
    return write_kubeconfig(
        folder / "kubeconfig", server=f"https://{HOST}:{port}", authority=authority.pair.certificate, client=admin
    )


def commands(folder: Path, etcd: str, kube: str, *, client: int, peer: int, secure: int) -> dict[str, list[str]]:
    """The components' command lines, in the order in which they start."""
    pki = folder / "pki"
    access = [f"--kubeconfig={folder}/kubeconfig", "--leader-elect=false", "--secure-port=0"]
    return {
        "etcd": [
            etcd,
            f"--data-dir={folder}/etcd",
            f"--listen-client-urls=http://{HOST}:{client}",
            f"--advertise-client-urls=http://{HOST}:{client}",
            f"--listen-peer-urls=http://{HOST}:{peer}",
            f"--initial-advertise-peer-urls=http://{HOST}:{peer}",
            f"--initial-cluster=default=http://{HOST}:{peer}",
            # As the node's (tools/cluster/layout.py): the disk is not what is measured.
            "--unsafe-no-fsync",
            "--logger=zap",
            "--log-level=warn",
        ],
        "kube-apiserver": [
            kube,
            "kube-apiserver",
            f"--bind-address={HOST}",
            f"--secure-port={secure}",
            # An address of loopback cannot be an endpoint, and nobody here asks for the Service.
            "--endpoint-reconciler-type=none",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--etcd-servers=http://{HOST}:{client}",
            f"--service-account-key-file={pki}/service-accounts.pub",
            f"--service-account-signing-key-file={pki}/service-accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--profiling=false",
        ],
        "kube-controller-manager": [
            kube,
            "kube-controller-manager",
            *access,
            f"--service-account-private-key-file={pki}/service-accounts.key",
            f"--root-ca-file={pki}/ca.crt",
            "--use-service-account-credentials=true",
        ],
        "kube-scheduler": [kube, "kube-scheduler", *access],
    }


def _wait(name: str, question: Sequence[str], process: subprocess.Popen[Any], log: Path) -> None:
    """Until the question's command ends well."""
    deadline = time.monotonic() + PART_SECONDS
    while subprocess.run(question, capture_output=True, check=False, timeout=30).returncode:
        if process.poll() is not None:
            raise ClusterError(f"{name} ended at once", remedy=_LOGS, log=log)
        if time.monotonic() > deadline:
            raise ClusterError(f"{name} is not ready after {PART_SECONDS:.0f} s", remedy=_LOGS, log=log)
        time.sleep(0.2)


def _end(process: subprocess.Popen[Any]) -> None:
    """At once: what it would write at its end goes with the folder."""
    process.kill()
    process.wait()
