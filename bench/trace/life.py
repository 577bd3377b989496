"""The trace of an engine's life in the operator: from its creation to Idle, one engine at a time.

Operator and API's client are the real ones, on loopback; the API server is the tests' one, pods run at once, and the
agent is this process, which reports when there is a pod. Must not judge.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from bench.clean import scratch
from bench.trace import launch
from bench.trace.hops import hops, lines
from bench.trace.processes import Usage, usage
from bench.trace.ring import read
from tools.loopback.cluster import NAMESPACE
from tools.loopback.installation import API, Installation, installation

# Names that have an address of their own on loopback (tools.loopback.cluster).
NAMES = 20
PATIENCE = 60.0
# Between two looks of this process, which stands for client and agent.
LOOK = 0.004


def trace(count: int) -> list[str]:
    """The lines of the table, of `count` engines."""
    with scratch() as folder:
        os.environ[launch.FOLDER] = str(folder)
        lives: list[tuple[int, int]] = []
        used: list[Usage] = []
        with installation(folder, operator_command=launch.command("operator")) as made:
            for number in range(count + 1):
                before = usage(made.operator.pid)
                begin = time.monotonic_ns()
                engine = f"hostile-{number % NAMES + 1}"
                _until_idle(made, engine)
                lives.append((begin, time.monotonic_ns()))
                used.append(usage(made.operator.pid) - before)
                _remove(made, engine)
        # The first one finds caches empty and modules unread.
        lives, used = lives[1:], used[1:]
        stamps = [stamp for path in folder.glob("operator-*.ring") for stamp in read(path)]
        each = {"operator": (sum(one.ran for one in used) / count * 1e6, sum(one.waited for one in used) / count * 1e6)}
        return lines("an engine's life in the operator, µs", hops(lives, stamps, "client: Idle is seen"), each, "life")


def _until_idle(made: Installation, name: str) -> None:
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
        "spec": {"engineType": "python", "user": "alice", "creator": "IDE"},
    }  # fmt: skip
    status, found = made.kube("POST", f"{API}/namespaces/{NAMESPACE}/engineconns", body)
    if status != 201:
        raise RuntimeError(f"{name} cannot be made: {found}")
    _until(lambda: any(pod["status"].get("podIP") for pod in _pods(made)))
    engine = made.engine(name, "alice")
    _until(lambda: made.report(engine) in (200, 204))
    _until(lambda: made.status(name).get("engineState") == "Idle")


def _remove(made: Installation, name: str) -> None:
    path = f"{API}/namespaces/{NAMESPACE}/engineconns/{name}"
    made.kube("DELETE", path)
    _until(lambda: made.kube("GET", path)[0] == 404)
    _until(lambda: not _pods(made))


def _pods(made: Installation) -> list[dict[str, Any]]:
    pods: list[dict[str, Any]] = made.kube("GET", f"/api/v1/namespaces/{NAMESPACE}/pods")[1]["items"]
    return pods


def _until(ready: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE:g} s")
        time.sleep(LOOK)
