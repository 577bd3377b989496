"""What is seen of engines, pods and rows on a real cluster, and waiting for it. Must not change anything there."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from typing import Any

from tools.testkit.cluster import kubectl

# The release that the e2e tests share; the plugins and the users' roles of the cluster are its own.
FIRST = "ecm-e2e"
# With this variable each process of a run has a release of its own beside the first one: see tools/checks.py.
OWN = "ECM_E2E_OWN_RELEASE"
# Of the release of this process, and of its engines.
RELEASE_NAMESPACE = f"{FIRST}-{os.environ.get('PYTEST_XDIST_WORKER', 'own')}" if os.environ.get(OWN) else FIRST
NAMESPACE = f"{RELEASE_NAMESPACE}-engines"
# What kubectl exec says while the kubelet is on its way back after a test has killed it: the API server's words where
# it passes a connection on, and where it translates one (streamtranslator.go, which has them of client-go's spdy.go).
# The last ones are containerd's, of a container that ended or begins while it is asked.
NO_EXEC = (
    "unable to upgrade connection", "error dialing backend", "error sending request", "container not created",
    "failed to exec in container", "OCI runtime exec failed",
    # The container ended while it was asked: a killed look says nothing of the row.
    "command terminated with exit code 137",
)  # fmt: skip


def until(what: str, probe: Callable[[], Any], seconds: float = 90) -> Any:
    """Asks until the answer is truthy."""
    return until_holds(what, probe, bool, seconds)


def until_holds(what: str, look: Callable[[], Any], holds: Callable[[Any], Any], seconds: float = 90) -> Any:
    """Looks every 0.2 s until something holds of what is seen; fails with what was seen last when the time is over."""
    deadline = time.monotonic() + seconds
    while not holds(seen := look()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s; seen last: {seen!r:.2000}"
        time.sleep(0.2)
    return seen


def status(name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    """An EngineConn's status."""
    found = kubectl.find("ec", name, namespace)
    if found is None:
        raise RuntimeError(f"there is no EngineConn {name} in {namespace}")
    return dict(found.get("status") or {})


def until_state(name: str, *states: str, seconds: float = 90, namespace: str = NAMESPACE) -> dict[str, Any]:
    """The engine's status once it is in one of the states."""
    found: dict[str, Any] = until_holds(
        f"{name} is {' or '.join(states)}",
        lambda: status(name, namespace),
        lambda s: s.get("engineState") in states,
        seconds,
    )
    return found


def record(ticket: str, namespace: str = RELEASE_NAMESPACE) -> dict[str, Any] | None:
    """The engine's row and transitions, read by the operator's own image from the database of that release.

    None where there is no row yet, and while nobody can look: between two pods or containers of the operator, or two
    kubelets.
    """
    pod = _running_operator(namespace)
    if pod is None:
        return None
    answer = kubectl.run(
        "exec", "-n", namespace, pod, "-c", "operator", "--", "python", "-m", "linkis_ecm", "record", ticket
    )
    if answer.code == 0:
        loaded: dict[str, Any] = json.loads(answer.out)
        return loaded
    if "no record has the ticket" in answer.err or any(words in answer.err for words in NO_EXEC):
        return None
    if pod != _running_operator(namespace):
        return None  # it went while it was asked
    raise RuntimeError(f"the record of {ticket} cannot be read: {answer.err.strip()}")


def until_row(
    ticket: str, *words: str, final: bool | None = None, seconds: float = 90, namespace: str = RELEASE_NAMESPACE
) -> dict[str, Any]:
    """The record once its row has one of the words as status and, where that is asked, is final or is not."""

    def holds(found: dict[str, Any] | None) -> bool:
        return found is not None and found["record"]["status"] in words and (final is None or found["final"] is final)

    found: dict[str, Any] = until_holds(
        f"the row of {ticket} says {' or '.join(words)}", lambda: record(ticket, namespace), holds, seconds
    )
    return found


def operator_pods(namespace: str = RELEASE_NAMESPACE, *, leaving: bool = False) -> list[dict[str, Any]]:
    """The release's operator pods, those on their way out only if asked for."""
    return _pods_of("operator", namespace, leaving=leaving)


def gateway_pods(namespace: str = RELEASE_NAMESPACE, *, leaving: bool = False) -> list[dict[str, Any]]:
    """The release's gateway pods, those on their way out only if asked for."""
    return _pods_of("gateway", namespace, leaving=leaving)


def _pods_of(part: str, namespace: str, *, leaving: bool) -> list[dict[str, Any]]:
    items = kubectl.listed("pods", namespace, f"linkis.apache.org/{part}=true")
    return [pod for pod in items if leaving or "deletionTimestamp" not in pod["metadata"]]


def is_ready(pod: dict[str, Any]) -> bool:
    """It listens and has read the cluster, by its own probes."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def _running_operator(namespace: str) -> str | None:
    """A pod whose operator runs: not `deployment/…`, for that may be the one that is just being replaced."""
    for pod in operator_pods(namespace):
        for container in pod["status"].get("containerStatuses", []):
            if container["name"] == "operator" and "running" in container["state"]:
                return str(pod["metadata"]["name"])
    return None


def pods(name: str) -> list[dict[str, Any]]:
    """The pods of an engine, by their owner."""
    items = kubectl.listed("pods", NAMESPACE)
    return [pod for pod in items if any(o["name"] == name for o in pod["metadata"].get("ownerReferences", []))]


class Gate:
    """Code that runs until it is let go: any time is too short for one machine and too long for another."""

    def __init__(self) -> None:
        self._file = f"/tmp/{uuid.uuid4().hex}"

    @property
    def code(self) -> str:
        return f"import os, time\nwhile not os.path.exists({self._file!r}): time.sleep(0.1)\n"

    def open(self, engine: str) -> None:
        (pod,) = [pod for pod in pods(engine) if pod["status"]["phase"] == "Running"]
        kubectl.must("exec", "-n", NAMESPACE, pod["metadata"]["name"], "--", "touch", self._file)
