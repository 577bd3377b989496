"""What the e2e tests share: one installation of the chart and its gateway, for the whole run."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.engines import Engines
from e2e.faulttable import TABLE
from tools.testkit.gateway_client import Gateway
from tools.testkit.installation import Installation, install, installed, uninstall
from tools.testkit.waiting import RELEASE_NAMESPACE, gateway_pods, is_ready, operator_pods, until_holds

SETTINGS = (
    "auth.admins={root}",
    "auth.kubernetes.enabled=true",
    # Who reaches engines that are plain processes.
    rf"engines.processClients[0].namespaceSelector.matchLabels.kubernetes\.io/metadata\.name={RELEASE_NAMESPACE}",
    "engines.processClients[0].podSelector.matchLabels.app=process-client",
)


@contextmanager
def users(path: Path) -> Iterator[list[str]]:
    """The processes of this run that use the release, one at a time; what is changed is kept."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        names = file.read().split()
        yield names
        file.truncate(0)
        file.write(" ".join(names))


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Installation]:
    """The first process that wants it installs it, and the last one removes it."""
    folder = tmp_path_factory.getbasetemp()
    path = (folder if worker_id == "master" else folder.parent) / "users-of-the-release"
    with users(path) as names:
        made = installed(RELEASE_NAMESPACE) if names else install(RELEASE_NAMESPACE, *SETTINGS)
        names.append(worker_id)
    yield made
    with users(path) as names:
        names.remove(worker_id)
        if not names:
            uninstall(RELEASE_NAMESPACE)


# For each test its own: a forward leads to one pod, and tests kill pods; so one is waited for that stays.
@pytest.fixture
def port(installation: Installation) -> Iterator[int]:
    until_holds(
        "one pod of the operator and one of the gateway, both ready",
        lambda: (operator_pods(leaving=True), gateway_pods(leaving=True)),
        lambda both: all(len(pods) == 1 and is_ready(pods[0]) for pods in both),
        120,
    )
    with installation.forward() as local:
        yield local


@pytest.fixture
def gateway(installation: Installation, port: int) -> Iterator[Gateway]:
    with Gateway("127.0.0.1", port, installation.token) as client:
        yield client


@pytest.fixture
def engines(installation: Installation, request: pytest.FixtureRequest) -> Iterator[Engines]:
    """Engines by kubectl, named by the file of the test; not waited for when it takes them away."""
    made = Engines(request.module.__name__.rpartition("test_")[2].replace("_", "-"))
    yield made
    made.delete()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The fault table, where fault tests ran."""
    if TABLE.rows:
        terminalreporter.section("fault table")
        for line in TABLE.markdown():
            terminalreporter.write_line(line)
