"""The operator's calls to agents: ask an engine to stop, ask for its status. Must not wait for the stop itself."""

from __future__ import annotations

import contextlib
import logging
import secrets
from typing import Any

import aiohttp

from linkis_ecm.agent_client import paths
from linkis_ecm.agent_client.client import AgentClient, AgentEndpoint
from linkis_ecm.agent_client.errors import AgentError, AgentNotProven, AgentRefused
from linkis_ecm.controller.pool.claims import ClaimRefused
from linkis_ecm.engine.decision import KeyRefused
from linkis_ecm.model.engine_status import ColdReason

log = logging.getLogger(__name__)

# A healthy agent answers within milliseconds; one that does not is deleted with its pod at the deadline.
TIMEOUT = aiohttp.ClientTimeout(total=3, connect=1)
# A user waits for it, and a cold start is the other way.
CLAIM_TIMEOUT = aiohttp.ClientTimeout(total=2, connect=1)
# A report is a few hundred bytes.
MAX_STATUS_BYTES = 64 * 1024
# At a time, to all agents: aiohttp's own default.
CONNECTIONS = 100
# Answers that say: the key is not this agent's.
KEY_REFUSED = (401, 403)
# Answers that say: this agent takes claims, and not what this one carries.
UNUSABLE = (400, 413)


class EngineAgents:
    """The agents of all engines; `close` at the end."""

    def __init__(self) -> None:
        self._client = AgentClient(user_agent="linkis-ecm-operator", connections=CONNECTIONS)

    async def stop(self, address: str, key: str, *, grace: int, reason: str) -> bool:
        """POST /v1/stop; False where the agent did not accept it. `grace` is in seconds."""
        body = {"graceSeconds": grace, "reason": reason}
        try:
            async with self._client.open(
                AgentEndpoint(address, key), paths.STOP, method="POST", body=body, timeout=TIMEOUT, accepted=(202,)
            ):
                return True
        except AgentRefused as refusal:
            log.warning("agent %s answered %d to a stop", address, refusal.status)
        except AgentError as error:
            log.warning("agent %s was not told to stop: %s", address, error)
        return False

    async def status(self, address: str, key: str) -> dict[str, Any] | KeyRefused | None:
        """GET /v1/status: the report that the agent would send; None where it does not answer with one."""
        try:
            return await self._client.ask(
                AgentEndpoint(address, key), paths.STATUS, timeout=TIMEOUT, limit=MAX_STATUS_BYTES
            )
        except AgentRefused as refusal:
            log.warning("agent %s answered %d to a question", address, refusal.status)
            if refusal.status in KEY_REFUSED:
                return KeyRefused(f"It answers {refusal.status} to a question.")
        except AgentNotProven as error:
            log.warning("agent %s does not have the key: %s", address, error)
            return KeyRefused("It answers, and proves another key.")
        except AgentError as error:
            log.warning("agent %s does not answer: %s", address, error)
        return None

    async def reach(self, address: str, member_key: str) -> None:
        """A connection to a member's agent that has proved its key: `claim` finds it open. What fails, fails there."""
        with contextlib.suppress(AgentError):
            await self._client.ask(
                AgentEndpoint(address, member_key), paths.identity(secrets.token_hex(16)), timeout=CLAIM_TIMEOUT,
                limit=MAX_STATUS_BYTES,
            )  # fmt: skip

    async def claim(
        self, address: str, member_key: str, engine_key: str, body: dict[str, Any]
    ) -> dict[str, Any] | ClaimRefused:
        """POST /v1/claim to the agent of a warm pool's pod: its first report as the engine's agent.

        An agent that has taken the claim has the engine's key: a claim whose answer got lost is repeated with that.
        """
        for key in (member_key, engine_key):
            try:
                return await self._client.ask(
                    AgentEndpoint(address, key), paths.CLAIM, method="POST", body=body, timeout=CLAIM_TIMEOUT,
                    limit=MAX_STATUS_BYTES,
                )  # fmt: skip
            except AgentRefused as refusal:
                log.warning("agent %s answered %d to a claim: %s", address, refusal.status, refusal.sentence)
                # What the claim carries is the engine's own: another engine may have the next member.
                reason = ColdReason.ENVIRONMENT if refusal.status in UNUSABLE else ColdReason.AGENT_REFUSED
                return ClaimRefused(f"The agent of the pod that it took refused it ({refusal}).", reason)
            except AgentNotProven as error:
                log.warning("agent %s does not have the key: %s", address, error)
            except AgentError as error:
                log.warning("agent %s was not told whose it is: %s", address, error)
                return ClaimRefused("The agent of the pod that it took did not answer.")
        return ClaimRefused("The agent of the pod that it took proves another key.")

    async def close(self) -> None:
        await self._client.close()
