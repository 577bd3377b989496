"""What the e2e tests share: one installation of the chart and its gateway for the whole run, or for each process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.shared.engines import Engines
from e2e.shared.faulttable import TABLE
from e2e.shared.release import settings_of, upgrade
from tools.testkit.cluster.installation import Installation, install, installed, uninstall
from tools.testkit.cluster.waiting import FIRST, RELEASE_NAMESPACE, gateway_pods, is_ready, operator_pods, until_holds
from tools.testkit.gateway.client import Gateway

# A folder that several runs of pytest share, so that they share the first release, too. It stays after them.
SHARED = "ECM_E2E_SHARED"
STAYS = "stays"
# Seconds on two cores: the longest are begun first, or the run ends with one process that works off the last.
SECONDS = {
    "test_keys": 230, "test_mariadb": 230, "test_bounds": 160, "test_network": 150, "test_engine_faults": 150,
    "test_observability": 130, "test_beside": 100, "test_process_engine": 100, "test_causes": 100, "test_crash": 90,
    "test_lifecycle": 80, "test_second_release": 80, "test_behaviours": 60, "test_admission_gap": 50,
    "test_warm": 60, "test_shards": 150,
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; within a file the tests keep their order."""
    items.sort(key=lambda item: -SECONDS.get(item.path.stem, 0))


@contextmanager
def users(path: Path) -> Iterator[list[str]]:
    """The processes that use the release, one at a time; what is changed is kept."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        names = file.read().split()
        yield names
        file.truncate(0)
        file.write(" ".join(names))


@pytest.fixture(scope="session")
def first_release(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Installation]:
    """The release that has what is of the whole cluster: the first process that wants it installs it, and the last one
    removes it, where no run follows that wants it, too."""
    folder = tmp_path_factory.getbasetemp()
    shared = os.environ.get(SHARED)
    path = (Path(shared) if shared else folder if worker_id == "master" else folder.parent) / "users-of-the-release"
    me = str(os.getpid())
    with users(path) as names:
        made = installed(FIRST) if names else install(FIRST, *settings_of(FIRST))
        if shared and STAYS not in names:
            names.append(STAYS)
        names.append(me)
    yield made
    with users(path) as names:
        names.remove(me)
        if not names:
            uninstall(FIRST)


@pytest.fixture(scope="session")
def installation(first_release: Installation) -> Iterator[Installation]:
    """The release of this process: the first one, or one of its own beside it."""
    if RELEASE_NAMESPACE == FIRST:
        yield first_release
        return
    yield upgrade()
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


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of a run side by side (pytest-xdist) hands its rows of the fault table over."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = TABLE.rows


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    TABLE.rows += [tuple(row) for row in getattr(node, "workeroutput", {}).get("faults", ())]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The fault table, where fault tests ran."""
    if TABLE.rows:
        terminalreporter.section("fault table")
        for line in TABLE.markdown():
            terminalreporter.write_line(line)
