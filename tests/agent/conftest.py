"""One agent for all tests that leave it Idle, and a way to start others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.operator import FILE_MAX, Operator
from tools.testkit.agents.member import MemberProcess
from tools.testkit.agents.process import AgentProcess


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An Idle engine that the test must leave Idle."""
    process = AgentProcess(tmp_path_factory.mktemp("agent"))
    yield process
    process.close()


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Callable[..., MemberProcess]]:
    """Starts members that the test may end in any way."""
    started: list[MemberProcess] = []

    def start(**options: Any) -> MemberProcess:
        folder = tmp_path / f"member-{len(started)}"
        folder.mkdir()
        started.append(MemberProcess(folder, **options))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Starts engines that the test may end in any way."""
    started: list[AgentProcess] = []

    def start(kind: type[AgentProcess] = AgentProcess, **options: object) -> AgentProcess:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(kind(folder, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    """The operator's port for agents, over an archive in a folder."""
    made = Operator(tmp_path, file_max=FILE_MAX)
    await made.start()
    yield made
    await made.runner.cleanup()
