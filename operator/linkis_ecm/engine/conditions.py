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


def conditions(
    before: Any, *, state: EngineState, reason: str, message: str, scheduled: bool, registered: bool | None,
    now: datetime, generation: int, exhausted: bool = False, pending: str = "", unprepared: str = "",
) -> list[dict[str, Any]]:  # fmt: skip
    """Ready, PodScheduled, Registered and Draining; kstatus's Reconciling and Stalled only if they are true.

    `pending` and `unprepared` are sentences, "" for none. A condition keeps its time if its status did not change.
    `registered` is None for an engine without an agent.
    """
    old = {c.get("type"): c for c in before if isinstance(c, Mapping)} if isinstance(before, list) else {}
    # Each condition's own reason and message; the engine's, where the condition is about the engine as a whole.
    own = {
        ("PodScheduled", True): ("Scheduled", "The engine's pod has a node."),
        ("Registered", True): ("Reported", "The engine's agent has reported."),
        ("Draining", False): ("NotDraining", "The engine was not asked to stop, and does not end by itself."),
    }
    desired: list[tuple[str, bool]] = [
        ("Ready", state in _READY and reason not in _NOT_READY),
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
    if pending:
        own[SPEC_PENDING, True] = ("NeedsNewPod", pending)
        desired.append((SPEC_PENDING, True))
    out = []
    for kind, holds in desired:
        status = "True" if holds else "False"
        past = old.get(kind, {})
        kept = past.get("lastTransitionTime") if past.get("status") == status else None
        entry = {
            "type": kind,
            "status": status,
            "reason": own.get((kind, holds), (reason, ""))[0],
            "lastTransitionTime": kept or format_second(now),
            "observedGeneration": generation,
        }
        out.append(entry | {"message": own.get((kind, holds), ("", message))[1]})
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


def spec_pending(conditions: Any) -> bool:
    """Whether the conditions say that the pod does not have all of the spec."""
    if not isinstance(conditions, list):
        return False
    return any(isinstance(c, Mapping) and c.get("type") == SPEC_PENDING for c in conditions)


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
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            if child := merge_patch(old, value):
                patch[name] = child
        elif value != old:
            patch[name] = value
    for name in before:
        if name not in after:
            patch[name] = None
    return patch
