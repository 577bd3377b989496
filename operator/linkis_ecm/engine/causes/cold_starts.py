"""Why an engine whose plugin has a warm pool starts cold: a reason of a closed set, and a sentence. Pure.

The reason is for metrics and for the pool's size, the sentence for whoever reads the engine's status. Must not decide
whether an engine starts cold: the rules and the claims do.
"""

from __future__ import annotations

from dataclasses import dataclass

from linkis_ecm.engine.view import EngineView
from linkis_ecm.model.engine_status import ColdReason

# The engine would have taken a member if there had been one more: a larger pool helps. The other reasons it does not.
UNMET = frozenset({ColdReason.POOL_EMPTY, ColdReason.MEMBER_TAKEN})


@dataclass(frozen=True, slots=True)
class Cold:
    """Why an attempt starts cold."""

    reason: ColdReason
    sentence: str


def cold_reason(engine: EngineView) -> ColdReason | None:
    """The reason in an engine's status; None where it did not start cold, or its plugin has no pool."""
    startup = engine.status.get("startup")
    if not isinstance(startup, dict) or not startup.get("coldBecause"):
        return None
    try:
        return ColdReason(str(startup.get("coldReason")))
    except ValueError:
        # Written by a version that named no reason, or by a later one.
        return ColdReason.OTHER
