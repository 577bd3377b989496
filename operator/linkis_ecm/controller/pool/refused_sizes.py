"""Remembers which sizes the API server has lately refused to claimed members: one claim finds it out, and not each.

What can be known of a resize before is asked before (`engine.resizing.never`). The rest only the API server knows: a
LimitRange, which may be younger than the members, and what its version takes. Of this process alone, and lost with it.
Must not decide whether a refusal is for good.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from linkis_ecm.engine.pod.spec import InvalidSpecError, sizes
from linkis_ecm.engine.view import EngineView, PluginView

# Members are replaced, and LimitRanges changed: one claim each ten minutes asks again.
KEPT = timedelta(minutes=10)
# The latest count. A user who asks for many sizes pushes others out, which costs these a claim.
ENTRIES = 256

_Key = tuple[str, str, int, tuple[str, str | None, str]]


class RefusedSizes:
    """By namespace, plugin as it is now, and size."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._refused: dict[_Key, tuple[datetime, str]] = {}

    def __len__(self) -> int:
        return len(self._refused)

    def why(self, engine: EngineView, plugin: PluginView) -> str:
        """What the API server said to that size; "" where it has said nothing lately."""
        key = _key(engine, plugin) if self._refused else None
        at, said = self._refused.get(key, (None, "")) if key is not None else (None, "")
        return said if at is not None and self._clock() < at + KEPT else ""

    def note(self, engine: EngineView, plugin: PluginView, said: str) -> None:
        """It was refused."""
        if (key := _key(engine, plugin)) is None:
            return
        self._refused.pop(key, None)
        self._refused[key] = self._clock(), said
        while len(self._refused) > ENTRIES:
            del self._refused[next(iter(self._refused))]


def _key(engine: EngineView, plugin: PluginView) -> _Key | None:
    """None for an engine that can have no pod."""
    if engine.spec is None:
        return None
    try:
        size = sizes(engine.spec, plugin.spec)
    except InvalidSpecError:
        return None
    return engine.namespace, plugin.name, plugin.generation, (size.cpu, size.cpu_limit, size.memory)
