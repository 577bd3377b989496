"""Fixtures of the gateway's tests."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from linkis_ecm.agent_client import proven
from linkis_ecm.gateway.auth.base import Authenticator
from linkis_ecm.gateway.auth.code_flow import CodeFlow
from linkis_ecm.gateway.settings import Settings
from tools.testkit.agents.process import AgentProcess
from tools.testkit.clocks import LoopClock
from tools.testkit.gateway.harness import BOB_TOKEN, EM, KEY, PATIENCE, TOKEN, Harness
from tools.testkit.gateway.real_agents import engine_at, start_agent

if TYPE_CHECKING:
    from tests.gateway.auth.issuer import Issuer, Setup


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(proven, "PROOF_SECONDS", PATIENCE)
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({TOKEN: {"users": ["*"]}, BOB_TOKEN: {"users": ["bob"]}}))
    return Settings(
        namespace="linkis",
        instance=EM,
        tokens_file=str(tokens),
        admins=frozenset({"root"}),
        token_key=KEY,
        agent_port=0,
        connect_seconds=PATIENCE,
        agent_seconds=PATIENCE,
        client_seconds=PATIENCE,
        shutdown_seconds=1.0,
        # Tests of other things call as fast as they can.
        user_per_second=0,
    )


@pytest.fixture
async def clock() -> LoopClock:
    """The clock of the test's loop, to be put forward."""
    return LoopClock()


@pytest.fixture
async def make(settings: Settings) -> AsyncIterator[Callable[..., Awaitable[Harness]]]:
    """Starts gateways with other settings: `await make(max_requests=1)`."""
    started: list[Harness] = []

    async def start(
        find: Any = None,
        database: Any = None,
        archive: Any = None,
        now: datetime | None = None,
        trust: ssl.SSLContext | bool = True,
        authenticator: Authenticator | None = None,
        code_flow: CodeFlow | None = None,
        **changes: Any,
    ) -> Harness:
        harness = Harness(settings.model_copy(update=changes), find, database)
        harness.trust = trust
        harness.archive = archive or harness.archive
        harness.authenticator = authenticator or harness.authenticator
        harness.code_flow = code_flow
        if now is not None:
            harness.clock = lambda: now
        await harness.start()
        started.append(harness)
        return harness

    yield start
    for harness in started:
        await harness.stop()


@pytest.fixture
async def gw(make: Callable[..., Awaitable[Harness]]) -> Harness:
    return await make()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """A real one for the tests of a file."""
    process = start_agent(tmp_path_factory.mktemp("agent"))
    yield process
    process.close()


@pytest.fixture
def engine(gw: Harness, agent: AgentProcess) -> dict[str, Any]:
    """The engine in which it runs."""
    return engine_at(gw, agent)


@pytest.fixture
def issuer_tls() -> ssl.SSLContext | None:
    """What the issuer serves HTTPS with; plain HTTP where a file does not say otherwise."""
    return None


@pytest.fixture
async def issuer(issuer_tls: ssl.SSLContext | None) -> AsyncIterator[Issuer]:
    """An OpenID Connect issuer that runs."""
    from tests.gateway.auth.issuer import Issuer  # it makes RSA keys, 0.2 s: for those alone who ask

    issuer = Issuer(issuer_tls)
    await issuer.start()
    yield issuer
    await issuer.stop()


@pytest.fixture
async def setup(issuer: Issuer) -> AsyncIterator[Setup]:
    """Makes authenticators that trust it."""
    from tests.gateway.auth.issuer import Setup

    async with aiohttp.ClientSession() as session:
        yield Setup(session, issuer)
