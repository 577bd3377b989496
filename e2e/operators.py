"""The operator's pod and its death, for the tests that kill it. Must not wait for engines."""

from __future__ import annotations

import time
from typing import Any

from e2e import kubectl, processes
from e2e.cluster.tools import backend
from e2e.conftest import NAMESPACE


def operator_pod() -> dict[str, Any]:
    items = kubectl.get("pods", "-n", NAMESPACE, "-l", "linkis.apache.org/operator=true")["items"]
    (found,) = [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]
    pod: dict[str, Any] = found
    return pod


def restarts() -> int:
    statuses = operator_pod()["status"]["containerStatuses"]
    return int(next(s["restartCount"] for s in statuses if s["name"] == "operator"))


def renew_operator() -> None:
    """A new pod: the kubelet waits ever longer, up to minutes, before it starts a container that was killed again."""
    if restarts() == 0:
        return
    old = operator_pod()["metadata"]["name"]
    kubectl.must("delete", "pod", old, "-n", NAMESPACE, "--wait=true", "--timeout=60s")
    kubectl.must("rollout", "status", "-n", NAMESPACE, "deployment/linkis-ecm", "--timeout=60s")


def kill_operator() -> None:
    """kill -9 where processes can be seen, else the pod is deleted without grace; waits for the next one."""
    before, pod = restarts(), operator_pod()
    if backend() == "node":
        assert processes.kill(pod["metadata"]["uid"], b"linkis_ecm operator") == 1
        deadline = time.monotonic() + 60
        while restarts() == before:
            assert time.monotonic() < deadline, "the operator's container was not started again within 60 s"
            time.sleep(0.2)
    else:
        name = pod["metadata"]["name"]
        kubectl.must("delete", "pod", name, "-n", NAMESPACE, "--grace-period=0", "--force")
