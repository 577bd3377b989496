"""What the e2e tests share: one installation of the chart and its gateway, for the whole run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e import kubectl
from e2e.faulttable import TABLE
from e2e.gateway import Gateway
from e2e.installation import RELEASE, Installation, install, uninstall

NAMESPACE = "ecm-e2e"


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    yield install(NAMESPACE, "auth.admins={root}", "auth.kubernetes.enabled=true")
    uninstall(NAMESPACE)


# For each test its own: a forward leads to one pod, and tests kill pods.
@pytest.fixture
def port(installation: Installation) -> Iterator[int]:
    with installation.forward() as local:
        yield local


@pytest.fixture
def gateway(installation: Installation, port: int) -> Iterator[Gateway]:
    with Gateway("127.0.0.1", port, installation.token) as client:
        yield client


def record(ticket: str) -> dict[str, Any]:
    """The engine's row and transitions, read by the operator's own image from the database."""
    out = kubectl.must(
        "exec", "-n", NAMESPACE, f"deployment/{RELEASE}", "-c", "operator", "--",
        "python", "-m", "linkis_ecm", "record", ticket,
    )  # fmt: skip
    loaded: dict[str, Any] = json.loads(out)
    return loaded


def until(what: str, probe: Callable[[], Any], seconds: float = 60) -> Any:
    """Asks until the answer is truthy, every 0.2 s; fails with the last answer when the time is over."""
    deadline = time.monotonic() + seconds
    answer = probe()
    while not answer:
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)
        answer = probe()
    return answer


def status(name: str) -> dict[str, Any]:
    """An EngineConn's status."""
    found: dict[str, Any] = kubectl.get("ec", name, "-n", NAMESPACE).get("status", {})
    return found


def pods(name: str) -> list[dict[str, Any]]:
    """The pods of an engine, by their owner."""
    items: list[dict[str, Any]] = kubectl.get("pods", "-n", NAMESPACE)["items"]
    return [pod for pod in items if any(o["name"] == name for o in pod["metadata"].get("ownerReferences", []))]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The fault table, where fault tests ran."""
    if TABLE.rows:
        terminalreporter.section("fault table")
        for line in TABLE.markdown():
            terminalreporter.write_line(line)
