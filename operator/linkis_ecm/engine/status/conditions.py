"""The conditions of an engine's status, and the smallest merge patch between two statuses.

`decide` writes a patch only if the state, the reason, the attempt or the observed generation changed; progress in
between is visible in the pod. So an engine's life has three status writes. Pure. Must not choose a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from linkis_ecm.engine.times import format_second
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import sentences
from linkis_ecm.model.states import EngineState

_READY = {EngineState.UNLOCK, EngineState.LOCKED, EngineState.IDLE, EngineState.BUSY, EngineState.RUNNING}
# Reasons of an engine in one of these states that cannot be used now.
_NOT_READY = {reasons.PROCESS_NOT_READY.name, reasons.KEY_MISMATCH.name}


# The spec has changes that the engine's pod does not have.
SPEC_PENDING = "SpecPending"
# The installation has made its Service and NetworkPolicies in the engine's namespace; only said where it has not.
NAMESPACE_PREPARED = "NamespacePrepared"
# A pod from a warm pool has the engine's size; only said where it has not.
RESIZED = "Resized"
# Its reason, where the kubelet has none of its own (`engine.resizing`).
SMALLER = "SmallerThanAsked"
# Its reason where the pod lacks nothing, and has more than the engine asks for. The kubelet's word is in the message.
LARGER = "LargerThanAsked"
# The engine has given cpu back because nobody uses it. Only said while it has, or while that fails.
SOFT_PAUSED = "SoftPaused"


_OWN = {
    ("PodScheduled", True): ("Scheduled", "The engine's pod has a node."),
    ("Registered", True): ("Reported", "The engine's agent has reported."),
    ("Draining", False): ("NotDraining", "The engine was not asked to stop, and does not end by itself."),
}


def conditions(
    before: Any, *, state: EngineState, reason: str, message: str, scheduled: bool, registered: bool | None,
    now: datetime, generation: int, exhausted: bool = False, pending: str = "", unprepared: str = "",
    unsized: str = "", unsized_reason: str = "", paused: tuple[bool, str] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Ready, PodScheduled, Registered and Draining; kstatus's Reconciling and Stalled only if they are true.

    An engine that ended well has no Ready: one that is False means to kstatus (Flux, kpt) that it is still to come, so
    a stopped engine or a job that is done would never be reconciled.

    `pending`, `unprepared` and `unsized` are sentences, "" for none; `unsized_reason` is the kubelet's word, LARGER or
    that of a limit. `paused` says whether the engine is soft-paused, with a sentence; None: its plugin does not want it
    now. A condition keeps its time if its status did not change. `registered` is None for an engine without an agent.
    """
    old = {c.get("type"): c for c in before if isinstance(c, dict)} if isinstance(before, list) else {}
    # Each condition's own reason and message; the engine's, where the condition is about the engine as a whole.
    own = dict(_OWN)
    desired: list[tuple[str, bool]] = [
        *([("Ready", state in _READY and reason not in _NOT_READY)] if state is not EngineState.SUCCESS else []),
        ("PodScheduled", scheduled),
        *([("Registered", registered)] if registered is not None else []),
        ("Draining", state is EngineState.SHUTTING_DOWN),
    ]
    if state is EngineState.STARTING:
        desired.append(("Reconciling", True))
    if state is EngineState.FAILED:
        desired.append(("Stalled", True))
    if exhausted:
        desired.append(("DeadLettered", True))
    if unprepared:
        own[NAMESPACE_PREPARED, False] = ("NotInEngineNamespaces", unprepared)
        desired.append((NAMESPACE_PREPARED, False))
    if unsized:
        own[RESIZED, False] = (unsized_reason or SMALLER, unsized)
        desired.append((RESIZED, False))
    if paused is not None:
        holds, text = paused
        own[SOFT_PAUSED, holds] = ("NotUsed" if holds else "ResizeRefused", text)
        desired.append((SOFT_PAUSED, holds))
    if pending:
        own[SPEC_PENDING, True] = ("NeedsNewPod", pending)
        desired.append((SPEC_PENDING, True))
    out, second = [], format_second(now)
    for kind, holds in desired:
        status = "True" if holds else "False"
        past = old.get(kind)
        kept = past.get("lastTransitionTime") if past is not None and past.get("status") == status else None
        said, words = own.get((kind, holds), (reason, message))
        out.append(
            {
                "type": kind, "status": status, "reason": said, "lastTransitionTime": kept or second,
                "observedGeneration": generation, "message": words,
            }
        )  # fmt: skip
    return out


def pass_failed_conditions(before: Any, error: str, *, now: datetime, generation: int) -> list[dict[str, Any]]:
    """The conditions of an engine whose passes fail in the operator: the old ones, and Stalled."""
    kept = (
        [c for c in before if isinstance(c, Mapping) and c.get("type") != "Stalled"] if isinstance(before, list) else []
    )
    stalled = {
        "type": "Stalled", "status": "True", "reason": reasons.PASS_FAILED.name, "observedGeneration": generation,
        "message": sentences(reasons.PASS_FAILED.sentence, error[:500], reasons.PASS_FAILED.remedy),
        "lastTransitionTime": format_second(now),
    }  # fmt: skip
    return [*(dict(c) for c in kept), stalled]


def has_marks_of(written: Any, desired: list[dict[str, Any]]) -> bool:
    """Whether the conditions of a status say of the pod, beside the engine's state, what the desired ones say: that it
    does not have all of the spec, or not the engine's size, or is paused; and no pass has failed since."""
    return _marks(written) == _marks(desired)


def _marks(conditions: Any) -> tuple[bool, bool, str, str]:
    pending = failed = False
    resized = paused = ""
    for one in conditions if isinstance(conditions, list) else ():
        if not isinstance(one, dict):
            continue
        kind = one.get("type")
        if kind == SPEC_PENDING:
            pending = True
        elif kind == RESIZED:
            resized = resized or str(one.get("reason") or SMALLER)
        elif kind == SOFT_PAUSED:
            paused = paused or str(one.get("status") or "")
        failed = failed or one.get("reason") == reasons.PASS_FAILED.name
    return failed, pending, resized, paused


def not_resized(conditions: Any) -> bool:
    """Whether the conditions say that the pod does not have the engine's size."""
    if not isinstance(conditions, list):
        return False
    return any(isinstance(c, Mapping) and c.get("type") == RESIZED for c in conditions)


def too_small(conditions: Any) -> bool:
    """Whether the conditions say that the pod has less than the engine asks for."""
    if not isinstance(conditions, list):
        return False
    return any(isinstance(c, Mapping) and c.get("type") == RESIZED and c.get("reason") != LARGER for c in conditions)


def not_resized_because(conditions: Any) -> str:
    """Why the pod does not have the engine's size, in the words of its condition; "" where it has."""
    if not isinstance(conditions, list):
        return ""
    found = (
        c for c in conditions if isinstance(c, Mapping) and c.get("type") == RESIZED and c.get("status") == "False"
    )
    return next((str(c.get("message") or "") for c in found), "")


def soft_paused(conditions: Any) -> str:
    """The status of the condition SoftPaused; "" where there is none."""
    if not isinstance(conditions, list):
        return ""
    found = (c for c in conditions if isinstance(c, Mapping) and c.get("type") == SOFT_PAUSED)
    return next((str(c.get("status") or "") for c in found), "")


def has_pass_failed(conditions: Any) -> bool:
    """Whether the conditions are those of `pass_failed_conditions`. They are replaced when a pass succeeds."""
    if not isinstance(conditions, list):
        return False
    return any(isinstance(c, Mapping) and c.get("reason") == reasons.PASS_FAILED.name for c in conditions)


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch that turns `before` into `after`; empty where they are equal."""
    patch: dict[str, Any] = {}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            if child := merge_patch(old, value):
                patch[name] = child
        elif value != old:
            patch[name] = value
    for name in before:
        if name not in after:
            patch[name] = None
    return patch
