"""The behaviours of `tools.testkit.behaviours` in virtual time; e2e holds them on the real cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from linkis_ecm.kube.resources import ENGINECONNS
from tools.testkit.behaviours import BEHAVIOURS, Row
from tools.testkit.fakes.rules import StatusError
from tools.testkit.simulation.world import NAMESPACE, Script, World

pytestmark = pytest.mark.looptime

UNSCHEDULABLE = {
    "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
    "message": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
}  # fmt: skip
NO_IMAGE = {"waiting": {"reason": "ErrImagePull", "message": "registry.invalid/no-such-image:1: not found"}}
TROUBLES: dict[str, dict[str, Any]] = {
    "unschedulable": {"phase": "Pending", "conditions": [UNSCHEDULABLE]},
    "image": {"phase": "Pending", "containerStatuses": [{"name": "engine", "state": NO_IMAGE}]},
}


class Simulated:
    """`tools.testkit.behaviours.World` over the simulation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lives = 1

    async def create(self, name: str, trouble: str = "", **spec: Any) -> str:
        return self._world.create(name, Script(stuck=TROUBLES[trouble]) if trouble else None, **spec)

    async def edit(self, name: str, **spec: Any) -> None:
        self._world.edit(name, **spec)

    async def delete(self, name: str) -> None:
        self._world.delete(name)

    async def delete_pod(self, name: str) -> None:
        self._world.delete_pod(name)

    async def begin_task(self, name: str) -> None:
        self._world.agent(name).become("Busy")

    async def end_task(self, name: str) -> None:
        self._world.agent(name).become("Idle")

    async def kill_operator(self) -> None:
        await self._world.crash(self._world.operators[0])
        self._lives += 1
        await self._world.start(f"life-{self._lives}")

    async def engine(self, name: str) -> dict[str, Any] | None:
        try:
            return self._world.cluster.get(ENGINECONNS, name, namespace=NAMESPACE)
        except StatusError as error:
            if error.code != 404:
                raise
            return None

    async def pods(self, name: str) -> list[dict[str, Any]]:
        return self._world.pods(name)

    async def row(self, ticket: str) -> Row | None:
        found = self._world.rows.rows.get(ticket)
        if found is None:
            return None
        times = (found.request_times, found.used_times, found.release_times)
        states = tuple(self._world.rows.history[ticket])
        return Row(found.status.value, found.final, found.reason, found.label_value, times, states)

    async def until(self, what: str, probe: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        deadline = asyncio.get_running_loop().time() + seconds
        while not (answer := await probe()):
            assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {seconds} s"
            await asyncio.sleep(0.01)
        return answer


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_behaviour(world: World, name: str) -> None:
    await BEHAVIOURS[name](Simulated(world))
