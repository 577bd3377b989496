"""How the benchmark of scale makes many objects and sees when they are there. Must not judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.scale.parts import OperatorProcess
from linkis_ecm.kube.client import KubeClient, Object
from linkis_ecm.kube.resources import Resource

# As many as the operator has workers.
WRITERS = 16
PATIENCE = 1200.0


async def each(count: int, work: Callable[[int], Awaitable[None]]) -> None:
    """`work(n)` for all n, WRITERS at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(worker())


async def make_each(client: KubeClient, resource: Resource, count: int, body: Callable[[int], Object]) -> float:
    """Creates `body(n)` for all n; objects a second."""
    begun = time.monotonic()

    async def one(number: int) -> None:
        await client.create(resource, body(number))

    await each(count, one)
    return count / (time.monotonic() - begun)


async def until(what: str, probe: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Seconds until the answer is true."""
    begun = time.monotonic()
    while not probe():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


@dataclass
class Arrivals:
    """When each object was first seen, and first seen in the state that is waited for; by uid, in monotonic seconds."""

    in_state: Callable[[Object], bool]
    seen: dict[str, float] = field(default_factory=dict)
    arrived: dict[str, float] = field(default_factory=dict)
    # Why no figure of this run would be true; "" while all is well.
    failed: str = ""

    def has_arrived(self, count: int) -> bool:
        """Whether so many have. Raises RuntimeError where one has ended."""
        if self.failed:
            raise RuntimeError(self.failed)
        return len(self.arrived) >= count

    def on_event(self, _: str, item: Object) -> None:
        status = item.get("status") or {}
        if status.get("engineState") in ("Failed", "Success"):
            self.failed = f"{item['metadata']['name']} has ended: {status.get('message')}"
        now, uid = time.monotonic(), item["metadata"]["uid"]
        self.seen.setdefault(uid, now)
        if self.in_state(item):
            self.arrived.setdefault(uid, now)


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def is_idle(item: Object) -> bool:
    return bool((item.get("status") or {}).get("engineState") == "Idle")


def leads(operator: OperatorProcess) -> bool:
    try:
        return operator.metrics().get("ecm_leading") == 1
    except OSError:
        return False
