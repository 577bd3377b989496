"""An agent that waits in a warm pool for its engine, in a process of its own, and the claim by which it gets one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.testkit.agents.keys import agent_key_of
from tools.testkit.agents.process import AgentProcess, until

MASTER = b"m" * 32


def key_of(uid: str, attempt: int = 0) -> str:
    """The key of the engine that claims."""
    return agent_key_of(MASTER, uid, attempt)


def engine_environment(uid: str = "uid-1", **more: str) -> dict[str, str]:
    """What the operator sends of an engine, and the variables `more`."""
    return {
        "ECM_NAMESPACE": "lab", "ECM_NAME": f"engine-{uid}", "ECM_UID": uid, "ECM_ATTEMPT": "0",
        "ECM_TICKET_ID": f"ticket-{uid}", "ECM_STOP_GRACE": "5", "ECM_START_TIMEOUT": "60",
    } | more  # fmt: skip


class MemberProcess(AgentProcess):
    """One member; `token` is its key, and after `become` its engine's."""

    def __init__(self, folder: Path, *, wait: bool = True, **environment: str) -> None:
        super().__init__(folder, wait=False, **({"ECM_MEMBER": "1"} | environment))
        if wait:
            try:
                self.wait_until_listening()
                self.wait_until_ready()
            except BaseException:
                self.close()  # nobody else knows of it
                raise

    def wait_until_ready(self) -> None:
        until(lambda: self.status().get("member", {}).get("ready"))

    def claim(
        self, environment: dict[str, Any], *, key: str | None = None, token: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """The answer to a claim with this key for the engine, or the one of its uid; by the present token or this."""
        key = key_of(environment.get("ECM_UID", "")) if key is None else key
        body = {"environment": environment, "key": key}
        status, raw = self.call("POST", "/v1/claim", body, token=token or self.token)
        return status, json.loads(raw)

    def become(self, environment: dict[str, Any]) -> dict[str, Any]:
        """Be this engine's agent; its first report."""
        status, report = self.claim(environment)
        assert status == 200, report
        self.token = key_of(environment["ECM_UID"])
        return report


# Starts one with these options.
Start = Callable[..., MemberProcess]


def text(agent: AgentProcess, code: str) -> str:
    """What the code printed in the agent's kernel, or its result."""
    return "".join(one.get("text", "") for one in agent.outputs(code))
