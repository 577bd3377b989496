"""kubectl for tests and the demo: one call, its output, a bound on its time. Must not interpret what it says."""

from __future__ import annotations

import http
import json
import subprocess
from dataclasses import dataclass
from typing import Any

from tools.cluster.tools import kubeconfig, kubectl
from tools.testkit.cluster import api


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


def find(kind: str, name: str, namespace: str) -> dict[str, Any] | None:
    """An object of a kind that `api` reads; None where there is none. Raises RuntimeError where it cannot be read."""
    return _read(kind, namespace, name)


def listed(kind: str, namespace: str, labels: str = "") -> list[dict[str, Any]]:
    """All of a kind in a namespace, as `find`; those with the labels where that is asked."""
    found = _read(kind, namespace, labels=labels)
    return list((found or {}).get("items") or ())


def _read(kind: str, namespace: str, name: str = "", *, labels: str = "") -> dict[str, Any] | None:
    if not api.usable(kubeconfig()):
        return _kubectl_get(kind, namespace, name, labels)
    try:
        status, body = api.read(kubeconfig(), api.path_of(kind, namespace, name, labels=labels))
    except OSError as error:
        raise RuntimeError(f"{kind} {name} in {namespace}: {error}") from error
    if status == http.HTTPStatus.NOT_FOUND:
        return None
    if status != http.HTTPStatus.OK:
        raise RuntimeError(f"{kind} {name} in {namespace}: {status} {body.get('message', '')}")
    return body


def _kubectl_get(kind: str, namespace: str, name: str, labels: str) -> dict[str, Any] | None:
    which = [name] if name else ["-l", labels] if labels else []
    answer = run("get", kind, *which, "-n", namespace, "-o", "json")
    if answer.code and "NotFound" in answer.err:
        return None
    if answer.code:
        raise RuntimeError(f"{kind} {name} in {namespace}: {answer.err.strip()}")
    body: dict[str, Any] = json.loads(answer.out)
    return body
