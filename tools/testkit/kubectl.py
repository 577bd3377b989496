"""kubectl for tests and the demo: one call, its output, a bound on its time. Must not interpret what it says."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from tools.cluster.tools import kubeconfig, kubectl


@dataclass(frozen=True)
class Answer:
    """What kubectl printed, and its exit code."""

    code: int
    out: str
    err: str


def run(*arguments: str, stdin: str | None = None, seconds: float = 120) -> Answer:
    """Runs kubectl against the cluster of `make cluster`."""
    done = subprocess.run(
        [str(kubectl()), "--kubeconfig", str(kubeconfig()), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def must(*arguments: str, stdin: str | None = None, seconds: float = 120) -> str:
    """As `run`; raises RuntimeError with kubectl's words where it fails."""
    answer = run(*arguments, stdin=stdin, seconds=seconds)
    if answer.code:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {answer.err.strip()}")
    return answer.out


def get(*arguments: str) -> dict[str, Any]:
    """`kubectl get … -o json`, parsed."""
    loaded: dict[str, Any] = json.loads(must("get", *arguments, "-o", "json"))
    return loaded
