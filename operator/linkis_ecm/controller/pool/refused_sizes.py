"""Remembers which sizes the API server has lately refused to claimed members: one claim finds it out, and not each.

What can be known of a resize before is asked before (`engine.resizing.never`). The rest only the API server knows: a
LimitRange, which may be younger than the members, and what its version takes. A LimitRange's bound says more than of
the one size that was refused: no other size beyond it is tried, which a cold pod could not have either. Of this process
alone, and lost with it. Must not decide whether a refusal is for good.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from linkis_ecm.engine import resizing
from linkis_ecm.engine.pod.spec import Sizes, sizes_now
from linkis_ecm.engine.view import EngineView, PluginView
from linkis_ecm.engine.warm.fit import member_sizes
from linkis_ecm.model.formats import parse_quantity

# Members are replaced, and LimitRanges changed: one claim each ten minutes asks again.
KEPT = timedelta(minutes=10)
# The latest count. A user who asks for many sizes pushes others out, which costs these a claim.
ENTRIES = 256

# One size, by namespace, plugin as it is now, and size.
_Key = tuple[str, str, int, tuple[str, str | None, str]]
# The LimitRanger's words of a bound for one container; those for a pod count containers that nobody knows here.
_BOUND = re.compile(r"(minimum|maximum) (cpu|memory) usage per Container is (\d+(?:\.\d+)?[A-Za-z]*)")

_Place = TypeVar("_Place", bound=tuple[object, ...])


class RefusedSizes:
    """By namespace, plugin as it is now, and size; and the bounds of the namespaces' LimitRanges."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._refused: dict[_Key, tuple[datetime, str]] = {}
        # By namespace, side and resource: the amount.
        self._bounds: dict[tuple[str, str, str], tuple[datetime, str]] = {}

    def __len__(self) -> int:
        return len(self._refused) + len(self._bounds)

    def why(self, engine: EngineView, plugin: PluginView) -> str:
        """What the API server said to that size, or which bound it is beyond; "" where it has said nothing lately."""
        size = sizes_now(engine, plugin) if self._refused else None
        if size is None:
            return ""
        at, said = self._refused.get(_key(engine, plugin, size), (None, ""))
        if at is not None and self._clock() < at + KEPT:
            return said
        # A member of just that size is not resized, whatever a younger LimitRange says.
        return "" if _same(size, member_sizes(plugin.spec)) else self._beyond(engine.namespace, size)

    def _beyond(self, namespace: str, size: Sizes) -> str:
        for (where, side, name), (at, bound) in self._bounds.items():
            if where != namespace or self._clock() >= at + KEPT:
                continue
            for amounts in size.as_container.values():
                over = parse_quantity(amounts.get(name, bound)) - parse_quantity(bound)
                if over < 0 if side == "minimum" else over > 0:
                    return f"{side} {name} usage per Container is {bound}"
        return ""

    def note(self, engine: EngineView, plugin: PluginView, said: str) -> None:
        """It was refused."""
        if (size := sizes_now(engine, plugin)) is None:
            return
        _put(self._refused, _key(engine, plugin, size), (self._clock(), said))
        for side, name, bound in _BOUND.findall(said):
            if resizing.is_amount(bound):
                _put(self._bounds, (engine.namespace, side, name), (self._clock(), bound))


def _put(kept: dict[_Place, tuple[datetime, str]], key: _Place, value: tuple[datetime, str]) -> None:
    """As the latest of ENTRIES."""
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > ENTRIES:
        del kept[next(iter(kept))]


def _key(engine: EngineView, plugin: PluginView, size: Sizes) -> _Key:
    return engine.namespace, plugin.name, plugin.generation, (size.cpu, size.cpu_limit, size.memory)


def _same(one: Sizes, other: Sizes) -> bool:
    return all(
        resizing.same_amount(*(resizing.amount(size.as_container, kind, name) for size in (one, other)))
        for kind in ("requests", "limits")
        for name in resizing.AMOUNTS
    )
