"""The engine behind which the tests of gateway and client put a real agent with a real kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.testkit.agents.keys import agent_key_of
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.harness import KEY, Harness, engine_item

NAME = "python-alice-real"
UID = engine_item(name=NAME)["metadata"]["uid"]
AGENT_TOKEN = agent_key_of(KEY, UID, 0)


def start_agent(folder: Path, **environment: str) -> AgentProcess:
    """An agent that takes this engine's token, once its kernel has answered.

    Coverage does not measure it: the agent's own tests do, and the tracer doubles the time of its start.
    """
    return AgentProcess(folder, wait=True, ECM_AGENT_KEY=AGENT_TOKEN, COVERAGE_PROCESS_CONFIG="", **environment)


def engine_at(gw: Harness, agent: AgentProcess, **status: Any) -> dict[str, Any]:
    """The engine as this gateway knows it, with that agent behind it."""
    return gw.engine(name=NAME, status={"address": f"127.0.0.1:{agent.port}"} | status)
