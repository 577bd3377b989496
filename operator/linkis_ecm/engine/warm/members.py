"""What is wrong with a pod of a warm pool, and which pods may be given out. Pure. Must not count: `sizing` does.

Whoever may create or patch pods of a namespace may copy a member, or change one before anybody takes it. What then
would get a user's environment is found here: a pod that is not known to be this operator's, or that is not as it was
made, is deleted and never given out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any

from linkis_ecm.engine.pod_view import ENGINE_CONTAINER, PodView
from linkis_ecm.engine.warm import fit

# Multiples of the silence from which a member is not given out (30 s): it is replaced after a minute, and after five
# while no member reports.
GONE, GONE_ALL = 2, 10
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Fault(StrEnum):
    """Why a member is not kept. The value is a metric's label."""

    # Its container has ended, or the pod is disrupted.
    ENDED = "ended"
    # Another image, a container that was started anew, a container for debugging.
    TAMPERED = "tampered"
    # This process did not make it, and it has no seal: somebody's copy, or a predecessor ended before it was ready.
    UNKNOWN = "unknown"
    # Made of an earlier state of the plugin, or by an earlier version of this operator.
    OLD_TEMPLATE = "template"
    # Its key is of a master key that is not here any more.
    OLD_KEY = "key"


# What may be somebody's attempt to get a user's environment, and what an Event says of it.
SUSPICIOUS: Mapping[str, str] = {
    Fault.TAMPERED: "This pod of a warm pool is not as it was made: its image or its containers are others. No"
    " engine gets it.",
    Fault.UNKNOWN: "This pod has the label of a warm pool, and this operator does not know it: somebody else made it,"
    " or an operator that ended before the pod was ready. No engine gets it.",
}


@dataclass(frozen=True, slots=True)
class AsMade:
    """What the members of a pool in one namespace must be like.

    `images` are those of members that this process has made, by the pods' uids, as the API server answered: an
    admission webhook may write another name of a registry into each pod. Of any other member it is `image`.
    `is_known` says whether this operator made a pod, or one before it did (`controller.pool.templates`). `default` is
    the pod of an engine without wishes.
    """

    digest: str
    image: str
    key_ids: frozenset[str]
    images: Mapping[str, str]
    is_known: Callable[[PodView], bool]
    default: Mapping[str, Any] | None = None

    def fault_of(self, pod: PodView) -> Fault | None:
        """What is wrong with a member; None: nothing. One that is being deleted has no fault any more."""
        member = pod.member
        if member is None or pod.deleting:
            return None
        if not self.is_known(pod):
            # Before all else: what somebody else's pod does is no failure of the pool.
            has_old_key = member.ready is not None and member.ready.key_id not in self.key_ids
            return Fault.OLD_KEY if has_old_key else Fault.UNKNOWN
        if pod.ended or pod.disruption:
            return Fault.ENDED
        if pod.restarts or pod.ephemeral or pod.image != self.images.get(pod.uid, self.image):
            return Fault.TAMPERED
        if member.template != self.digest:
            return Fault.OLD_TEMPLATE
        if member.ready is not None and member.ready.key_id not in self.key_ids:
            return Fault.OLD_KEY
        return None

    def is_ready(self, pod: PodView) -> bool:
        """Whether an engine may take the member now."""
        return (
            pod.member is not None
            and pod.member.ready is not None
            and bool(pod.ip)
            and not pod.deleting
            and self.fault_of(pod) is None
        )

    @property
    def default_requests(self) -> Mapping[str, str]:
        """What an engine without wishes requests."""
        if self.default is None:
            return {}
        engine = next(one for one in self.default["spec"]["containers"] if one["name"] == ENGINE_CONTAINER)
        requests: Mapping[str, str] = engine["resources"]["requests"]
        return requests

    def unresizable(self, pod: PodView) -> str:
        """Why an engine without wishes never gets its size with this member; "" where nothing is known."""
        return fit.unresizable(self.default, pod) if self.default is not None else ""


class Contact(IntEnum):
    """Whether a member's agent reports, the best first."""

    REPORTS = 0
    # It has missed a report, which may be chance: given out after the others.
    LATE = 1
    # Not given out, and not counted as ready.
    SILENT = 2
    # Replaced.
    GONE = 3


def contact(silence: timedelta, silent_after: timedelta, *, others_report: bool) -> Contact:
    """Of an agent that has not reported for so long. While no other agent reports either, the reports' path to the
    operator may be down, so members are kept for longer."""
    if silence < silent_after / 2:
        return Contact.REPORTS
    if silence < silent_after:
        return Contact.LATE
    gone_after = GONE if others_report else GONE_ALL
    return Contact.GONE if silence >= silent_after * gone_after else Contact.SILENT


def as_made(
    template: Mapping[str, Any],
    *,
    key_ids: frozenset[str],
    images: Mapping[str, str],
    is_known: Callable[[PodView], bool],
    default: Mapping[str, Any] | None = None,
) -> AsMade:
    """Of a pool's template in one namespace (`fit.template`), and the pod of an engine without wishes there."""
    engine = next(one for one in template["spec"]["containers"] if one["name"] == ENGINE_CONTAINER)
    return AsMade(fit.digest_of(template), str(engine["image"]), key_ids, images, is_known, default)


def oldest_first(pods: Iterable[PodView]) -> list[PodView]:
    """In the order in which they are given out."""
    return sorted(pods, key=lambda pod: (pod.created or _LONG_AGO, pod.name))
