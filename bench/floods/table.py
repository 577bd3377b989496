"""All floods in the order in which they run. Must not attack."""

from __future__ import annotations

from bench.floods import agents, pods, strangers, users
from bench.floods.attack import Flood


async def _nothing(_: object) -> None:
    """Nobody attacks: what the machine itself costs."""


CALM = Flood("calm", "nobody attacks", "gateway", _nothing)
FLOODS: tuple[Flood, ...] = (CALM, *strangers.FLOODS, *users.FLOODS, *agents.FLOODS, *pods.FLOODS)
