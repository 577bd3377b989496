"""Which pools' members cannot be taken: claims that fail one after the other, and the pauses that follow from them.

A member whose claim fails is lost, and its engine starts cold later than without a pool. So after some failures in a
row engines start cold at once, and after a pause, which doubles, one of them tries. Kept in memory: a successor finds
out anew. Where nobody tries for long, nobody knows whether claims still fail, and that is what the pool says then. Must
not decide what becomes of an engine, nor delete a member.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from linkis_ecm.engine.causes.cold_starts import Cold
from linkis_ecm.engine.warm import problems, sizing
from linkis_ecm.engine.warm.sizing import Setback
from linkis_ecm.model.engine_status import ColdReason

# In a row, without one that went through: a single one may be a member that died.
IN_A_ROW = 2
# What is not the engine's own doing: another engine would meet it as well.
OF_THE_POOL = frozenset(
    {ColdReason.AGENT_REFUSED, ColdReason.CLAIM_FORBIDDEN, ColdReason.MEMBER_ENDED, ColdReason.MEMBER_CHANGED}
)
# An engine that tries has its answer by then, or has ended.
TRIAL = timedelta(seconds=10)
# So long after the last failure. The longest pause is less than half of it, so whoever comes has been let try; and the
# alert, which waits for ten minutes, has told it.
UNTRIED_AFTER = timedelta(minutes=15)
# Namespace and pool.
Place = tuple[str, str]


@dataclass(slots=True)
class _Row:
    """Failures in a row."""

    count: int = 0
    at: datetime | None = None
    setback: Setback | None = None
    said: str = ""
    # The engine that tries, and since when.
    trial: tuple[str, datetime] | None = None


class ClaimFailures:
    """By namespace and pool. `on_change(pool)` is called when a pool begins or ends to fail."""

    def __init__(
        self, clock: Callable[[], datetime], rng: random.Random, on_change: Callable[[str], None] = lambda _: None
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._on_change = on_change
        self._rows: dict[Place, _Row] = {}

    def failed(self, place: Place, because: Cold) -> None:
        """A claim has failed."""
        if because.reason not in OF_THE_POOL:
            return
        row = self._rows.setdefault(place, _Row())
        row.count, row.said, row.at, row.trial = row.count + 1, because.sentence, self._clock(), None
        if row.count >= IN_A_ROW:
            problem = problems.of_claims(because.sentence)
            row.setback = sizing.after_failure(row.setback, problem, self._clock(), self._rng.uniform(0.75, 1.25))
            self._on_change(place[1])

    def succeeded(self, place: Place) -> None:
        """An agent has taken a claim."""
        row = self._rows.pop(place, None)
        if row is not None and row.setback is not None:
            self._on_change(place[1])

    def may_try(self, place: Place, engine: str) -> bool:
        """Whether the engine of that uid may take a member now. Where claims fail it is the one that tries then."""
        row = self._rows.get(place)
        if row is None or row.setback is None:
            return True
        now = self._clock()
        tries = row.trial is not None and row.trial[0] != engine and now < row.trial[1] + TRIAL
        if tries or now < row.setback.until:
            return False
        row.trial = (engine, now)
        return True

    def release(self, engine: str) -> None:
        """The engine of that uid takes no member after all."""
        for row in self._rows.values():
            if row.trial is not None and row.trial[0] == engine:
                row.trial = None

    def setback(self, place: Place) -> Setback | None:
        """What keeps a pool's members from engines; None where nothing does. After a time in which nobody tried its
        problem is that: the next engine still tries alone, and one more failure is the old problem again."""
        row = self._rows.get(place)
        if row is None or row.setback is None or row.at is None or self._clock() < row.at + UNTRIED_AFTER:
            return row.setback if row is not None else None
        return replace(row.setback, problem=problems.of_untried(row.said, row.at))

    def why_none(self, place: Place, plugin: str) -> Cold | None:
        """Why an engine is offered none though members are ready."""
        if self.setback(place) is None:
            return None
        said = f"Engines cannot take pods of the warm pool of {plugin} in namespace {place[0]}, so few of them try."
        return Cold(ColdReason.AGENT_REFUSED, f"{said} The last one: {self._rows[place].said}")

    def forget(self, pool: str | None = None) -> None:
        """The pool's plugin has changed, so what failed may go through; None: of all pools."""
        self._rows = {place: row for place, row in self._rows.items() if pool is not None and place[1] != pool}
