"""What the e2e tests share: one installation of the chart and its gateway, for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.faulttable import TABLE
from tools.testkit.gateway_client import Gateway
from tools.testkit.installation import Installation, install, uninstall
from tools.testkit.waiting import RELEASE_NAMESPACE, gateway_pods, is_ready, operator_pods, until_holds

SETTINGS = ("auth.admins={root}", "auth.kubernetes.enabled=true")


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    yield install(RELEASE_NAMESPACE, *SETTINGS)
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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The fault table, where fault tests ran."""
    if TABLE.rows:
        terminalreporter.section("fault table")
        for line in TABLE.markdown():
            terminalreporter.write_line(line)
