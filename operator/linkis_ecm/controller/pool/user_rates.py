"""Remembers what each user has taken of each warm pool lately. The rule is `engine.warm.user_rate`.

Of this process alone, and lost with it. Must not know members.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from linkis_ecm.engine.view import EngineView, PluginView
from linkis_ecm.engine.warm.demand import largest_size
from linkis_ecm.engine.warm.user_rate import Taken
from linkis_ecm.model.users import linkis_user

# Entries beyond which those of users who were given all back are dropped. An entry more needs a claim.
ENTRIES = 256


class UserRates:
    """By namespace, pool and user. No call waits, so none comes between a look and what is taken."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        # With the pool's size, as it was when it was last looked at.
        self._taken: dict[tuple[str, str, str], tuple[Taken, int]] = {}

    def __len__(self) -> int:
        return len(self._taken)

    def may_take(self, engine: EngineView, plugin: PluginView) -> bool:
        """Whether the engine's user may take another member now."""
        size = largest_size(plugin.spec.warm_pool)
        found = self._taken.get(_key(engine, plugin))
        return found is None or found[0].by(self._clock(), size).leaves_one(size)

    def take(self, engine: EngineView, plugin: PluginView) -> None:
        """The engine is about to claim a member."""
        self._add(engine, plugin, 1)

    def give_back(self, engine: EngineView, plugin: PluginView) -> None:
        """It did not get it."""
        if _key(engine, plugin) in self._taken:
            self._add(engine, plugin, -1)

    def _add(self, engine: EngineView, plugin: PluginView, number: int) -> None:
        now, size, key = self._clock(), largest_size(plugin.spec.warm_pool), _key(engine, plugin)
        taken, _ = self._taken.get(key, (Taken(0.0, now), size))
        self._taken[key] = taken.by(now, size).plus(number), size
        if len(self._taken) > ENTRIES:
            self._taken = {key: one for key, one in self._taken.items() if one[0].by(now, one[1]).number > 0}


def _key(engine: EngineView, plugin: PluginView) -> tuple[str, str, str]:
    return engine.namespace, plugin.name, linkis_user(engine.spec.user) if engine.spec is not None else ""
