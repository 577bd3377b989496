"""The operator's claim meets the real agent: what one sends is what the other takes, also twice, and for one engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.controller.agents.engine_agents import EngineAgents
from linkis_ecm.controller.pool import claims
from linkis_ecm.controller.pool.starts import WarmStarts
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.controller.state.memory import Memory
from linkis_ecm.engine.decision import ClaimAgent
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod.spec import build_pod
from linkis_ecm.engine.view import EngineView, engine_view, plugin_view
from linkis_ecm.engine.warm import fit
from linkis_ecm.model.agent_key import AgentKeyRef, Enrolment, agent_key, key_id
from linkis_ecm.model.engine_status import ColdReason
from linkis_ecm.model.states import EngineState
from tools.testkit.agents.keys import NONCE
from tools.testkit.agents.member import MASTER, MemberProcess, engine_environment, key_of
from tools.testkit.simulation.members import AnyPool

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
POD_UID = "pod-uid"
SETTINGS = PodSettings(report_url="http://127.0.0.1:9")
PLUGIN = plugin_view({
    "metadata": {"name": "python-3", "uid": "plugin", "resourceVersion": "1"},
    "spec": {
        "engineType": "python", "engineVersion": "3", "image": "engine:1", "runTypes": ["python"],
        "defaultResources": {"cpu": "500m", "memory": "1Gi"}, "startTimeout": "2m", "warmPool": {"size": 1},
        "env": [{"name": "SITE", "value": "north"}],
    },
})  # fmt: skip


def literal(pod: dict[str, Any]) -> dict[str, str]:
    """The environment that a kubelet gives the agent of that pod, but what this machine has otherwise."""
    given = {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"] if "value" in one}
    here = {"ECM_AGENT_PORT", "ECM_LOG_DIR"}
    return {name: value for name, value in given.items() if name not in here}


@pytest.fixture
def member(tmp_path: Path) -> Iterator[MemberProcess]:
    assert PLUGIN is not None
    key = agent_key(MASTER, Enrolment(POD_UID, "member", 0, NONCE))
    environment = literal(fit.template(PLUGIN, "lab", SETTINGS))
    process = MemberProcess(tmp_path, **environment, ECM_AGENT_KEY=key, ECM_POD_UID=POD_UID)
    yield process
    process.close()


def engine(uid: str, **spec: Any) -> EngineView:
    return engine_view(
        {
            "metadata": {"namespace": "lab", "name": "mine", "uid": uid, "resourceVersion": "1"},
            "spec": {"engineType": "python", "user": "amy"} | spec,
        },
        epoch=NOW,
    )


async def test_the_operators_claim_makes_the_real_member_the_engines_agent(
    member: MemberProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(claims, "agent_host", lambda *_: f"127.0.0.1:{member.port}")
    assert PLUGIN is not None
    agents, cache = EngineAgents(), Cache(epoch=NOW)
    client: Any = None  # the API server is not asked
    sent = claims.WarmClaims(client=client, cache=cache, agents=agents, master_keys=(MASTER,))
    world: Any = None  # nobody is offered a member
    starts = WarmStarts(cache=cache, claims=sent, pool=AnyPool(world), clock=lambda: NOW)

    async def claim(view: EngineView) -> Memory:
        assert view.spec is not None
        assert PLUGIN is not None
        made = build_pod(view, view.spec, PLUGIN.spec, ticket=view.uid, attempt=0, settings=SETTINGS)
        memory = Memory(view.uid, NOW)
        memory.environment = literal({"spec": {"containers": [{"env": fit.claim_environment(made)}]}})
        action = ClaimAgent("m1", "10.0.0.1:9105", 0, AgentKeyRef(POD_UID, NONCE, key_id(MASTER)), [], None)
        await starts.claim_agent(view, memory, action, lambda: True)
        return memory

    folder = str(tmp_path / "work")
    env = [{"name": "A", "value": "costs $5 $(SITE)"}]
    mine = engine("11111111-2222-3333-4444-555555555555", env=env, workingDir=folder, stopGrace="7s")
    memory = await claim(mine)
    assert memory.warm_failed is None
    report = memory.report
    assert report is not None
    assert report.state is EngineState.IDLE
    assert report.agent_key == AgentKeyRef(POD_UID, NONCE, key_id(MASTER))
    # The answer got lost, and a successor of the operator asks again.
    again = await claim(mine)
    assert again.report is not None
    assert again.report.state is EngineState.IDLE
    other = await claim(engine("99999999-2222-3333-4444-555555555555"))
    assert other.report is None
    assert other.warm_failed is not None
    assert "409" in other.warm_failed.sentence
    assert other.warm_failed.reason is ColdReason.AGENT_REFUSED
    key = agent_key(MASTER, Enrolment(POD_UID, mine.uid, 0, NONCE))
    member.token = key
    assert member.status()["uid"] == mine.uid
    shown = member.outputs("import os; print(os.environ['A'], os.environ['SITE'], os.getcwd())")
    assert "".join(one.get("text", "") for one in shown) == f"costs $5 $(SITE) north {folder}\n"
    # By the engine's key it is asked like any other; the member's opens nothing but a claim.
    answer = await agents.status(f"127.0.0.1:{member.port}", key)
    assert isinstance(answer, dict)
    assert answer["uid"] == mine.uid
    await agents.close()


async def test_the_claim_goes_by_the_connection_that_was_opened_beside_the_patch(member: MemberProcess) -> None:
    opened = 0

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        back, there = await asyncio.open_connection("127.0.0.1", member.port)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while content := await source.read(65536):
                sink.write(content)
            sink.close()

        await asyncio.gather(copy(reader, there), copy(back, writer))

    agents = EngineAgents()
    async with await asyncio.start_server(forward, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await agents.reach(address, member.token)
        key = key_of("uid-1")
        found = await agents.claim(address, member.token, key, {"environment": engine_environment(), "key": key})
        assert isinstance(found, dict)
        assert found["uid"] == "uid-1"
        assert opened == 1
        await agents.close()


async def test_reaching_an_agent_that_is_gone_or_another_says_nothing(member: MemberProcess) -> None:
    agents = EngineAgents()
    await agents.reach(f"127.0.0.1:{member.port}", "x" * 43)
    member.process.kill()
    member.process.wait()
    await agents.reach(f"127.0.0.1:{member.port}", member.token)
    await agents.close()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"ECM_WORK_DIR": "/proc/nothing"}, 400),
        ({"ECM_ENV_LD_PRELOAD": "/x.so"}, 400),
        ({"ECM_ENV_A": "x" * 200_000}, 413),
    ],
)
async def test_what_a_claim_carries_is_the_engines_own_fault_and_the_member_stays(
    member: MemberProcess, changes: dict[str, str], status: int
) -> None:
    agents, address = EngineAgents(), f"127.0.0.1:{member.port}"
    body = {"environment": engine_environment() | changes, "key": key_of("uid-1")}
    found = await agents.claim(address, member.token, key_of("uid-1"), body)
    assert isinstance(found, claims.ClaimRefused)
    assert f"HTTP {status}" in found.sentence
    assert found.reason is ColdReason.ENVIRONMENT
    body = {"environment": engine_environment(), "key": key_of("uid-2")}
    assert isinstance(await agents.claim(address, member.token, key_of("uid-2"), body), dict)
    await agents.close()


async def test_an_agent_that_is_gone_or_has_another_key_is_a_cold_start(
    member: MemberProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = EngineAgents()
    found = await agents.claim(f"127.0.0.1:{member.port}", "x" * 43, "y" * 43, {"environment": {}, "key": "y" * 43})
    assert found == claims.ClaimRefused("The agent of the pod that it took proves another key.")
    member.process.kill()
    member.process.wait()
    found = await agents.claim(f"127.0.0.1:{member.port}", "x" * 43, "y" * 43, {"environment": {}, "key": "y" * 43})
    assert found == claims.ClaimRefused("The agent of the pod that it took did not answer.")
    await agents.close()
