"""Whether a running engine may be given to somebody who asks for one, with a verdict for each candidate; and who holds
an engine until when (Linkis's lock).

Pure: candidates, what is asked and the time in, verdicts out. Must not write: the claim of a chosen engine is the
gateway's (docs/design/reuse.md). Verdicts name users: show only those of engines that the caller may see.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from linkis_ecm.engine.times import format_time, parse_time
from linkis_ecm.model import reasons
from linkis_ecm.model.states import EngineState

# On an EngineConn that was given to an asker: JSON {"by": id of the claim, "until": RFC 3339}, with "hold" (seconds)
# where that is not CLAIM_HOLD, "always": true for a lock that no time ends, "starting": true for one that the
# engine is made with, and "user": who holds it, where the engine is lent; "released": true where that user has given
# it back: the name stays, so that a task that runs on still counts as that user's.
CLAIM_ANNOTATION = "linkis.apache.org/claim"
# How long the asker has the engine to itself without running a task: Linkis gives an unused lock back after 3 minutes
# (wds.linkis.engineconn.lock.free.interval).
CLAIM_HOLD = timedelta(minutes=3)
# A claim that ends later than this from now was not written by a gateway (10 minutes of a start and the hold; the rest
# is for clocks that differ), and does not count: an edit by hand must not take an engine out for ever.
CLAIM_LONGEST = timedelta(hours=1)
# The longest hold that a caller may ask for: with CLAIM_LONGEST it leaves room for clocks that differ.
HOLD_LONGEST = timedelta(minutes=50)
# A claim's text is about 90 characters, and a user's name 40 at most; what is longer is not read.
_TEXT_MAX, _ID_MAX = 512, 64
# Linkis's label of an engine that is for one task: its engine ends itself after it.
EXECUTE_ONCE = "executeOnce"

# States in which an engine has no task.
FREE = frozenset({EngineState.UNLOCK, EngineState.IDLE})


@dataclass(frozen=True, slots=True)
class Claim:
    """An engine is given to the asker `by` (an id made for the one call), at least until then.

    `hold` is how long it stays given after each task. `always`: no time ends it (Linkis's lock type Always).
    `starting`: the engine is made with it, and `until` has room for the longest start; once the engine is ready, the
    hold counts from then. `user`: who holds an engine that is lent; "" of one whose owner alone may use it.
    `released`: it holds no more, and `user` says who had the lent engine last.
    """

    by: str
    until: datetime
    hold: timedelta = CLAIM_HOLD
    always: bool = False
    starting: bool = False
    user: str = ""
    released: bool = False

    def holds(self, now: datetime) -> bool:
        """Whether `until` is still to come, and was written by a gateway."""
        return not self.released and now < self.until <= now + CLAIM_LONGEST

    def text(self) -> str:
        """The annotation's value."""
        body: dict[str, Any] = {"by": self.by, "until": format_time(self.until)}
        if self.hold != CLAIM_HOLD:
            body["hold"] = self.hold.total_seconds()
        if self.always:
            body["always"] = True
        if self.starting:
            body["starting"] = True
        if self.user:
            body["user"] = self.user
        if self.released:
            body["released"] = True
        return json.dumps(body)


def parse_claim(text: object) -> Claim | None:
    """The claim in an annotation's value; None for none and for a text that is no claim."""
    if not isinstance(text, str) or not text or len(text) > _TEXT_MAX:
        return None
    try:
        body: Any = json.loads(text)
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    by, until = body.get("by"), body.get("until")
    moment = parse_time(until) if isinstance(until, str) else None
    if not isinstance(by, str) or not 0 < len(by) <= _ID_MAX or moment is None:
        return None
    hold = body.get("hold", CLAIM_HOLD.total_seconds())
    # A comparison refuses NaN and infinity, too.
    if isinstance(hold, bool) or not isinstance(hold, int | float) or not 0 < hold <= HOLD_LONGEST.total_seconds():
        return None
    user = body.get("user", "")
    if not isinstance(user, str):
        return None
    always, starting, released = (body.get(name) is True for name in ("always", "starting", "released"))
    return Claim(by, moment, timedelta(seconds=hold), always, starting, user, released)


class Claimed(Protocol):
    """What `held_claim` reads of an engine. `since` is when it entered its state, `created` when it was made
    (RFC 3339)."""

    @property
    def created(self) -> str: ...

    @property
    def claim(self) -> Claim | None: ...

    @property
    def has_agent(self) -> bool: ...

    @property
    def state(self) -> EngineState: ...

    @property
    def since(self) -> str | None: ...


class Candidate(Claimed, Protocol):
    """What the rule reads of an engine. `reason` is why it is in its state; `next_cull_at`, when it ends if nothing
    uses it, as its last status write said. `share` is its plugin's word for who else may get it. `lent_level` and
    `lent_group` say what it is made for where it is made to be lent, `is_lent` whether the operator lets it be.

    The sizes are what it asked for or its plugin gives it; 0 where that is not known.
    """

    @property
    def key(self) -> tuple[str, str]: ...

    @property
    def user(self) -> str: ...

    @property
    def creator(self) -> str: ...

    @property
    def engine_type(self) -> str: ...

    @property
    def engine_version(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str]: ...

    @property
    def tenant(self) -> str: ...

    @property
    def share(self) -> str: ...

    @property
    def lent_level(self) -> str: ...

    @property
    def lent_group(self) -> str: ...

    @property
    def is_lent(self) -> bool: ...

    @property
    def not_lent_because(self) -> str: ...

    @property
    def service_instance(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def next_cull_at(self) -> str | None: ...

    @property
    def address(self) -> str: ...

    @property
    def stop_requested(self) -> bool: ...

    @property
    def deleting(self) -> bool: ...

    @property
    def cpu_milli(self) -> int: ...

    @property
    def memory_bytes(self) -> int: ...

    @property
    def extended(self) -> tuple[tuple[str, int], ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What is asked for. Without a version, any; without a tenant, any; each of `labels` must be on the engine.

    `preferred` are labels that an engine may lack: of two that fit, the one with more of them comes first. `excluded`
    are service instances that are not wanted, in lower case. `new_wanted` says why no running engine is wanted at all;
    empty where one is.

    The engine must have each size, or more; 0 asks for none. `extended`: by name. An engine that has such resources
    which nobody asked for is given out all the same: a new one of its plugin would have them too.

    With `lent_level` an engine is asked for that is lent at that level, of `lent_group` at level group; `user` is then
    its owner, not the asker. Else an engine of the user's own.
    """

    user: str
    creator: str
    engine_type: str
    engine_version: str | None = None
    tenant: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    preferred: Mapping[str, str] = field(default_factory=dict)
    excluded: frozenset[str] = frozenset()
    new_wanted: str = ""
    lent_level: str = ""
    lent_group: str = ""
    cpu_milli: int = 0
    memory_bytes: int = 0
    extended: tuple[tuple[str, int], ...] = ()


class Mismatch(StrEnum):
    """Why an engine does not fit."""

    NEW_WANTED = "NewWanted"
    EXCLUDED = "Excluded"
    OTHER_USER = "OtherUser"
    OTHER_CREATOR = "OtherCreator"
    OTHER_TYPE = "OtherType"
    OTHER_VERSION = "OtherVersion"
    NOT_SHARED = "NotShared"
    OTHER_GROUP = "OtherGroup"
    NOT_LENDABLE = "NotLendable"
    OTHER_LABELS = "OtherLabels"
    TOO_SMALL = "TooSmall"
    BEING_DELETED = "BeingDeleted"
    STOP_REQUESTED = "StopRequested"
    NOT_FREE = "NotFree"
    NO_ADDRESS = "NoAddress"
    NOT_READY = "NotReady"
    ENDS_SOON = "EndsSoon"
    CLAIMED = "Claimed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an engine fits (`mismatch` is None), with a sentence that says why."""

    mismatch: Mismatch | None
    sentence: str

    @property
    def fits(self) -> bool:
        return self.mismatch is None


def verdict(engine: Candidate, required: Requirements, now: datetime) -> Verdict:
    """The first mismatch, checked in this order: owner, type, the request's own exclusions, who may share it, labels,
    size, state, claim."""
    if engine.user != required.user:
        return Verdict(Mismatch.OTHER_USER, f"it belongs to user {engine.user}, asked is {required.user}")
    if engine.creator != required.creator:
        return Verdict(Mismatch.OTHER_CREATOR, f"its creator is {engine.creator}, asked is {required.creator}")
    if engine.engine_type != required.engine_type:
        return Verdict(Mismatch.OTHER_TYPE, f"its type is {engine.engine_type}, asked is {required.engine_type}")
    if required.engine_version not in (None, engine.engine_version):
        return Verdict(
            Mismatch.OTHER_VERSION, f"its version is {engine.engine_version}, asked is {required.engine_version}"
        )
    if required.new_wanted:
        return Verdict(Mismatch.NEW_WANTED, f"a new engine is asked for ({required.new_wanted})")
    if engine.service_instance.lower() in required.excluded:
        return Verdict(Mismatch.EXCLUDED, "the request excludes it (label reuseExclusion)")
    if engine.share == "connection":
        return Verdict(Mismatch.NOT_SHARED, "its plugin lets nobody reuse its engines (share: connection)")
    if (unlent := _not_lent(engine, required)) is not None:
        return unlent
    if EXECUTE_ONCE in engine.labels:
        return Verdict(Mismatch.NOT_SHARED, f"it was made for one task (label {EXECUTE_ONCE})")
    missing = {name for name, value in required.labels.items() if engine.labels.get(name) != value}
    if required.tenant not in ("", engine.tenant):
        missing.add("tenant")
    if missing:
        return Verdict(Mismatch.OTHER_LABELS, f"it does not have the labels asked for: {', '.join(sorted(missing))}")
    small = _too_small(engine, required)
    if small:
        return Verdict(Mismatch.TOO_SMALL, small)
    return is_free(engine, now)


def _not_lent(engine: Candidate, required: Requirements) -> Verdict | None:
    """Why the engine is not lent to whoever asks for one that is, or is one though an own one is asked for."""
    if engine.lent_level != required.lent_level:
        made = f"made to be lent (share: {engine.lent_level})" if engine.lent_level else "its owner's alone"
        asked = f"one that is lent (share: {required.lent_level})" if required.lent_level else "an own one"
        return Verdict(Mismatch.NOT_SHARED, f"it is {made}, asked is {asked}")
    if not required.lent_level:
        return None
    if engine.lent_group != required.lent_group:
        return Verdict(
            Mismatch.OTHER_GROUP, f"it is for members of {engine.lent_group}, asked is {required.lent_group}"
        )
    if engine.share != required.lent_level:
        return Verdict(Mismatch.NOT_SHARED, f"its plugin does not share engines so now (share: {engine.share})")
    if not engine.is_lent:
        why = engine.not_lent_because or "the operator has not decided yet"
        return Verdict(Mismatch.NOT_LENDABLE, f"it is lent to nobody: {why}")
    return None


def is_free(engine: Candidate, now: datetime) -> Verdict:
    """Whether the engine, if it is of the right kind, may be given to somebody now."""
    if engine.deleting:
        return Verdict(Mismatch.BEING_DELETED, "it is being deleted")
    if engine.stop_requested:
        return Verdict(Mismatch.STOP_REQUESTED, "its stop is asked for")
    if engine.state not in FREE:
        return Verdict(Mismatch.NOT_FREE, f"it is {engine.state}")
    if not engine.address:
        return Verdict(Mismatch.NO_ADDRESS, "it has no address that takes code")
    if engine.reason == reasons.PROCESS_NOT_READY.name:
        return Verdict(Mismatch.NOT_READY, "it does not answer its readiness check now")
    if _ends_within_hold(engine, now):
        return Verdict(
            Mismatch.ENDS_SOON, f"it ends soon: its next cull is at {engine.next_cull_at or 'an unknown time'}"
        )
    if held_claim(engine, now) is not None:
        ends = claim_ends(engine)
        until = format_time(ends) if ends is not None else "it is given back by unlock"
        return Verdict(Mismatch.CLAIMED, f"it is claimed by another call, perhaps an own one, until {until}")
    return Verdict(None, "it is free and has what is asked for")


def held_claim(engine: Claimed, now: datetime) -> Claim | None:
    """The claim that keeps the engine from other askers now; None if nobody holds it.

    It is held while the engine runs a task and for its hold after it, as Linkis's lock: a lock that is used does not
    end. A process reports no activity, so after its claim's end it would look free while somebody works with it: its
    claim holds until it is given back (unlock) or the engine ends. So does a lock of type Always.
    """
    claim = engine.claim
    if claim is None or claim.released:
        return None
    if claim.always or not engine.has_agent:
        return claim
    if claim.until > now + CLAIM_LONGEST:
        return None
    ends = claim_ends(engine)
    return claim if ends is None or now < ends else None


def counts_for(engine: Claimed, now: datetime) -> str:
    """Who takes up a place with an engine that is lent: who holds it, or who gave it back while it is still in use.
    "" for nobody."""
    claim = engine.claim
    if claim is None or (held_claim(engine, now) is None and engine.state in FREE):
        return ""
    return claim.user


def claim_ends(engine: Claimed) -> datetime | None:
    """When the engine's claim ends if nothing uses the engine until then. None where no time ends it (a task runs, a
    process, a lock of type Always), and where there is no claim.

    A task that ran without the lock counts as well: the status does not say whose task it was. The claim is older than
    any other asker's, so nobody else has the engine.
    """
    claim = engine.claim
    if claim is None or claim.always or not engine.has_agent or engine.state is EngineState.BUSY:
        return None
    since = parse_time(engine.since) if engine.state in FREE else None
    if since is None:
        return claim.until
    if not claim.starting:
        return max(claim.until, since + claim.hold)
    # A pod that was warm before the engine was made may be in its state for longer than there is the engine.
    made = parse_time(engine.created)
    return (max(since, made) if made is not None else since) + claim.hold


def linkis_state(engine: Claimed, now: datetime) -> EngineState:
    """The engine's state in Linkis's words, with its lock: of an engine without a task, Idle where somebody holds it
    and Unlock where nobody does.

    The resource's status says Idle for both: a claim costs the operator nothing, and its end comes without a write.
    Locked is never shown; Linkis sets it nowhere.
    """
    if engine.state not in FREE:
        return engine.state
    return EngineState.IDLE if held_claim(engine, now) is not None else EngineState.UNLOCK


def _ends_within_hold(engine: Candidate, now: datetime) -> bool:
    """Whether the engine may end before a claim's hold is over.

    A time that is over says nothing: a task has moved the cull since, and only a change of state is written. An engine
    that never has as long as the hold is given out until it says CullSoon: the claim defers its idleTimeout.
    """
    if engine.reason == reasons.CULL_SOON.name:
        return True
    cull, since = parse_time(engine.next_cull_at), parse_time(engine.since)
    if cull is None or not now <= cull < now + CLAIM_HOLD:
        return False
    return since is None or cull - since > CLAIM_HOLD


def _too_small(engine: Candidate, required: Requirements) -> str:
    """What the engine has too little of, as a sentence; empty where it has enough. A size that is not known is not
    enough for anything."""
    for name, has, asked, text in (
        ("cpu", engine.cpu_milli, required.cpu_milli, _cpu),
        ("memory", engine.memory_bytes, required.memory_bytes, _memory),
    ):
        if has < asked:
            known = f"its {name} is {text(has)}" if has else f"its {name} is not known"
            return f"{known}, asked is {text(asked)}"
    own = dict(engine.extended)
    for name, number in required.extended:
        if own.get(name, 0) < number:
            return f"it has {own.get(name, 0)} of {name}, asked is {number}"
    return ""


def _cpu(milli: int) -> str:
    return f"{milli}m" if milli % 1000 else str(milli // 1000)


def _memory(size: int) -> str:
    """Bytes as the largest whole binary unit, as a quantity has it."""
    for unit, factor in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


C = TypeVar("C", bound=Candidate)


def fitting(engines: Iterable[C], required: Requirements, now: datetime) -> list[C]:
    """The engines that fit: with the most preferred labels first, then the one that is idle longest.

    Linkis sorts by label score, memory in use, tasks and resources that are left, and then shuffles the first few. Here
    a free engine has no task, its size is its own, its use of memory is known to its agent alone, and askers of one
    process pass over engines that a neighbour is about to claim.
    """
    found = [engine for engine in engines if verdict(engine, required, now).fits]
    return sorted(found, key=lambda engine: (-_preferred(engine, required), engine.since or "", engine.key))


def _preferred(engine: Candidate, required: Requirements) -> int:
    return sum(engine.labels.get(name) == value for name, value in required.preferred.items())
