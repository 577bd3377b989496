"""Which pools' members cannot be taken: claims that fail one after the other, and the pauses that follow from them.

A member whose claim fails is lost, and its engine starts cold later than without a pool. So after claims of two users
that failed in a row engines start cold at once, and after a pause, which doubles, one of them tries: one of a user
whose claims failed more often than others' comes last. Where claims of one user alone fail, that may be his own doing,
so after some the same holds for his engines and nobody else's. Kept in memory: a successor finds out anew. Where nobody
tries for long, nobody knows whether claims still fail, and that is what the pool says then. Must not decide what
becomes of an engine, nor delete a member.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from linkis_ecm.engine.causes.cold_starts import Cold
from linkis_ecm.engine.warm import problems
from linkis_ecm.engine.warm.setbacks import Setback, after_failure
from linkis_ecm.model.engine_status import ColdReason

# Different ones, in a row, without a claim that went through: what fails for one alone may be his doing, or a member
# that died.
USERS_IN_A_ROW = 2
# Of one user, in a row, before his engines start cold at once.
OF_ONE_USER = 3
# What is not the engine's own doing: another engine would meet it as well.
OF_THE_POOL = frozenset(
    {ColdReason.AGENT_REFUSED, ColdReason.CLAIM_FORBIDDEN, ColdReason.MEMBER_ENDED, ColdReason.MEMBER_CHANGED}
)
# An engine that tries has its answer by then, or has ended.
TRIAL = timedelta(seconds=10)
# So long after the last failure. Twice the longest pause is less, so whoever comes has been let try; and the alert,
# which waits for ten minutes, has told it. A user's own failures are forgotten then.
UNTRIED_AFTER = timedelta(minutes=15)
# Namespace and pool.
Place = tuple[str, str]


@dataclass(slots=True)
class _Row:
    """Failures in a row: in a pool, or of one user in it."""

    # How many, by user.
    of_users: Counter[str] = field(default_factory=Counter)
    at: datetime | None = None
    setback: Setback | None = None
    said: str = ""
    # The engine that tries, and since when.
    trial: tuple[str, datetime] | None = None

    def add(self, user: str, because: Cold, now: datetime) -> None:
        self.of_users[user] += 1
        self.at, self.said, self.trial = now, because.sentence, None

    def pause(self, now: datetime, jitter: float) -> None:
        self.setback = after_failure(self.setback, problems.of_claims(self.said), now, jitter)

    def may_try(self, engine: str, user: str, now: datetime) -> bool:
        if self.setback is None:
            return True
        until, failures = self.setback.until, self.of_users[user]
        if len(self.of_users) > 1 and failures > 1 and failures == max(self.of_users.values()):
            # Others first: else he might use up each trial.
            until += until - self.setback.since
        tries = self.trial is not None and self.trial[0] != engine and now < self.trial[1] + TRIAL
        return not tries and now >= until


class ClaimFailures:
    """By namespace and pool, and by user. `on_change(pool)` is called when a pool begins or ends to fail."""

    def __init__(
        self, clock: Callable[[], datetime], rng: random.Random, on_change: Callable[[str], None] = lambda _: None
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._on_change = on_change
        self._rows: dict[Place, _Row] = {}
        self._own: dict[tuple[Place, str], _Row] = {}

    def failed(self, place: Place, user: str, because: Cold) -> None:
        """A claim of that user has failed."""
        if because.reason not in OF_THE_POOL:
            return
        now = self._clock()
        self._own = {whose: row for whose, row in self._own.items() if not _is_old(row, now)}
        own = self._own.setdefault((place, user), _Row())
        own.add(user, because, now)
        if own.of_users[user] >= OF_ONE_USER:
            own.pause(now, self._rng.uniform(0.75, 1.25))
        row = self._rows.setdefault(place, _Row())
        row.add(user, because, now)
        if len(row.of_users) >= USERS_IN_A_ROW:
            row.pause(now, self._rng.uniform(0.75, 1.25))
            self._on_change(place[1])

    def succeeded(self, place: Place, user: str) -> None:
        """An agent has taken a claim of that user."""
        self._own.pop((place, user), None)
        row = self._rows.pop(place, None)
        if row is not None and row.setback is not None:
            self._on_change(place[1])

    def may_try(self, place: Place, engine: str, user: str) -> bool:
        """Whether the engine of that uid, which is the user's, may take a member now. Where claims fail it is the one
        that tries then."""
        now = self._clock()
        rows = [row for row in (self._rows.get(place), self._own_of(place, user)) if row is not None]
        if not all(row.may_try(engine, user, now) for row in rows):
            return False
        for row in rows:
            row.trial = (engine, now) if row.setback is not None else None
        return True

    def release(self, engine: str) -> None:
        """The engine of that uid takes no member after all."""
        for row in (*self._rows.values(), *self._own.values()):
            if row.trial is not None and row.trial[0] == engine:
                row.trial = None

    def setback(self, place: Place) -> Setback | None:
        """What keeps a pool's members from engines; None where nothing does. After a time in which nobody tried its
        problem is that: the next engine still tries alone, and one more failure is the old problem again."""
        row = self._rows.get(place)
        if row is None or row.setback is None or row.at is None or self._clock() < row.at + UNTRIED_AFTER:
            return row.setback if row is not None else None
        return replace(row.setback, problem=problems.of_untried(row.said, row.at))

    def why_none(self, place: Place, user: str, plugin: str) -> Cold | None:
        """Why an engine of that user is offered none though members are ready."""
        own = self._own_of(place, user)
        if (row := self._rows.get(place)) is not None and row.setback is not None:
            whose = "Engines"
        elif own is not None and own.setback is not None:
            row, whose = own, "Engines of this user"
        else:
            return None
        said = f"{whose} cannot take pods of the warm pool of {plugin} in namespace {place[0]}, so few of them try."
        return Cold(ColdReason.AGENT_REFUSED, f"{said} The last one: {row.said}")

    def forget(self, pool: str | None = None) -> None:
        """The pool's plugin has changed, so what failed may go through; None: of all pools."""
        self._rows = {place: row for place, row in self._rows.items() if pool is not None and place[1] != pool}
        self._own = {whose: row for whose, row in self._own.items() if pool is not None and whose[0][1] != pool}

    def _own_of(self, place: Place, user: str) -> _Row | None:
        row = self._own.get((place, user))
        return None if row is None or _is_old(row, self._clock()) else row


def _is_old(row: _Row, now: datetime) -> bool:
    return row.at is not None and now >= row.at + UNTRIED_AFTER
