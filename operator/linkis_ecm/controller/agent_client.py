"""A small client of the agents' HTTP API: the operator tells an engine to stop. Must not wait for the stop itself."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp

log = logging.getLogger(__name__)

# A healthy agent answers within milliseconds; one that does not is deleted with its pod at the deadline.
BODY_MAX = 64 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=3, connect=1)


class AgentClient:
    """One session for all agents; `close` ends it."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def stop(self, address: str, token: str, *, grace: int, reason: str) -> bool:
        """POST /v1/stop; False where the agent could not be told."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        try:
            async with self._session.post(
                f"http://{address}/v1/stop",
                json={"graceSeconds": grace, "reason": reason},
                headers={"Authorization": f"Bearer {token}"},
                allow_redirects=False,
            ) as answer:
                if answer.status == 202:
                    return True
                log.warning("agent %s answered %d to a stop", address, answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("agent %s was not told to stop: %s", address, error or type(error).__name__)
        return False

    async def status(self, address: str, token: str) -> dict[str, Any] | None:
        """GET /v1/status: the report that it would send; None where it does not answer as itself."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        try:
            async with self._session.get(
                f"http://{address}/v1/status", headers={"Authorization": f"Bearer {token}"}, allow_redirects=False
            ) as answer:
                if answer.status == 200 and (answer.content_length or 0) <= BODY_MAX:
                    body = await answer.json()
                    return body if isinstance(body, dict) else None
                log.warning("agent %s answered %d to a question", address, answer.status)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.warning("agent %s does not answer: %s", address, error or type(error).__name__)
        return None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
