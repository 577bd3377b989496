"""Whether a running engine may be given to somebody who asks for one: a verdict for each candidate.

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

# On an EngineConn that was given to an asker: JSON {"by": id of the claim, "until": RFC 3339}.
CLAIM_ANNOTATION = "linkis.apache.org/claim"
# How long the asker has the engine to itself: Linkis gives an unused lock back after 3 minutes
# (wds.linkis.engineconn.lock.free.interval).
CLAIM_HOLD = timedelta(minutes=3)
# A claim that ends later than this from now was not written by a gateway (10 minutes of a start and the hold; the rest
# is for clocks that differ), and does not count: an edit by hand must not take an engine out for ever.
CLAIM_LONGEST = timedelta(hours=1)
# A claim's text is about 90 characters; what is longer is not read.
_TEXT_MAX, _ID_MAX = 256, 64

# States in which an engine has no task.
FREE = frozenset({EngineState.UNLOCK, EngineState.IDLE})


@dataclass(frozen=True, slots=True)
class Claim:
    """An engine is given to the asker `by` (an id made for the one call) until then."""

    by: str
    until: datetime

    def holds(self, now: datetime) -> bool:
        """Whether the engine is kept from other askers."""
        return now < self.until <= now + CLAIM_LONGEST

    def text(self) -> str:
        """The annotation's value."""
        return json.dumps({"by": self.by, "until": format_time(self.until)})


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
    return Claim(by, moment)


class Claimed(Protocol):
    """What `held_claim` reads of an engine."""

    @property
    def claim(self) -> Claim | None: ...

    @property
    def has_agent(self) -> bool: ...


class Candidate(Claimed, Protocol):
    """What the rule reads of an engine. `since` is when it entered its state (RFC 3339); `reason`, why it is in it;
    `next_cull_at`, when it ends if nothing uses it, as its last status write said.

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
    def state(self) -> EngineState: ...

    @property
    def reason(self) -> str: ...

    @property
    def since(self) -> str | None: ...

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
    """What is asked for. Without a version, any; each of `labels` must be on the engine.

    The engine must have each size, or more; 0 asks for none. `extended`: by name. An engine that has such resources
    which nobody asked for is given out all the same: a new one of its plugin would have them too.
    """

    user: str
    creator: str
    engine_type: str
    engine_version: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    cpu_milli: int = 0
    memory_bytes: int = 0
    extended: tuple[tuple[str, int], ...] = ()


class Mismatch(StrEnum):
    """Why an engine does not fit."""

    OTHER_USER = "OtherUser"
    OTHER_CREATOR = "OtherCreator"
    OTHER_TYPE = "OtherType"
    OTHER_VERSION = "OtherVersion"
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
    """The first mismatch, checked in this order: owner and type, state, claim."""
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
    missing = sorted(name for name, value in required.labels.items() if engine.labels.get(name) != value)
    if missing:
        return Verdict(Mismatch.OTHER_LABELS, f"it does not have the labels asked for: {', '.join(missing)}")
    small = _too_small(engine, required)
    if small:
        return Verdict(Mismatch.TOO_SMALL, small)
    return _free(engine, now)


def _free(engine: Candidate, now: datetime) -> Verdict:
    """Whether an engine of the right kind may be given out now."""
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
    if (held := held_claim(engine, now)) is not None:
        until = format_time(held.until) if engine.has_agent else "it is given back by unlock"
        return Verdict(Mismatch.CLAIMED, f"it is claimed by another call until {until}")
    return Verdict(None, "it is free and has what is asked for")


def held_claim(engine: Claimed, now: datetime) -> Claim | None:
    """The claim that keeps the engine from other askers now; None if it is free.

    A process reports no activity, so after its claim's end it would look free while somebody works with it: its claim
    holds until it is given back (unlock) or the engine ends.
    """
    claim = engine.claim
    return claim if claim is not None and (not engine.has_agent or claim.holds(now)) else None


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
    """The engines that fit, the one that is idle longest first."""
    found = [engine for engine in engines if verdict(engine, required, now).fits]
    return sorted(found, key=lambda engine: (engine.since or "", engine.key))
