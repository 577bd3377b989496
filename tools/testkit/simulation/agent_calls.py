"""The operator's calls to agents, in a world without sockets: they go to the agents that the world plays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkis_ecm.engine.decision import KeyRefused

if TYPE_CHECKING:
    from tools.testkit.simulation.world import World


class AgentCalls:
    """In place of `EngineAgents`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def stop(self, address: str, key: str, *, grace: int, reason: str) -> bool:
        return await self._world.stop(address, key, grace=grace, reason=reason)

    async def status(self, address: str, key: str) -> dict[str, Any] | KeyRefused | None:
        return await self._world.status_of(address, key)

    async def reach(self, address: str, member_key: str) -> None:
        """There are no connections."""

    async def claim(self, address: str, member_key: str, engine_key: str, body: dict[str, Any]) -> Any:
        return await self._world.answer_claim(address, (member_key, engine_key), body)

    async def close(self) -> None:
        """Nothing to close."""


async def no_claim(address: str, keys: tuple[str, str], body: dict[str, Any]) -> Any:
    """What answers a claim in a world without warm pools."""
    raise AssertionError(f"a claim for {address}, and there is no warm pool")
