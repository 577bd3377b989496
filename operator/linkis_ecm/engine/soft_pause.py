"""An engine that nobody uses gives cpu back: which size its pod is to have, and since when. Pure.

`status.softPause` has what the pod gets back, written before the pod is made smaller: a spec may be edited to any size
while its pod stays as it is. Must not resize anything; the rule that wants a resize is `engine.rules.soft_pause`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.resizing import ENGINE_CONTAINER, INFEASIBLE, is_amount, kind, same_amount
from linkis_ecm.engine.times import format_time, parse_time
from linkis_ecm.engine.view import EngineView
from linkis_ecm.model.formats import as_sentence, parse_duration, parse_quantity
from linkis_ecm.model.warm_pool import SoftPause

# Seconds. The CRD takes no less: a pause and its end are four writes.
MIN_AFTER = 60.0
# Engines that became idle together, or that a new operator finds idle together, are paused over a tenth of `after`,
# and over a minute at most: 1000 engines are then 17 resizes a second.
_SPREAD, _SPREAD_MAX = 0.1, 60.0


@dataclass(frozen=True, slots=True)
class Paused:
    """The record of a pause: what the pod requests meanwhile, and what it gets back. A limit of "" is none. `spec_cpu`
    is what the spec asked for when it began; "" for the plugin's default."""

    since: str
    cpu: str
    full_cpu: str
    full_cpu_limit: str = ""
    spec_cpu: str = ""

    def written(self) -> dict[str, Any]:
        """For `status.softPause`."""
        limit = {"fullCpuLimit": self.full_cpu_limit} if self.full_cpu_limit else {}
        asked = {"specCpu": self.spec_cpu} if self.spec_cpu else {}
        return {"since": self.since, "cpu": self.cpu, "fullCpu": self.full_cpu} | limit | asked

    def is_asked_for(self, engine: EngineView) -> bool:
        """Whether the spec has asked for the paused size since the pause began, as updateResource does: the pod has it
        already, so the pod does not show that. It is no more than what it would get back."""
        asked = _spec_cpu(engine)
        return bool(asked) and not same_amount(asked, self.spec_cpu) and same_amount(asked, self.cpu)

    def is_small(self, pod: PodView) -> bool:
        """Whether the pod's spec has the paused size."""
        limit = self._has_full_limit(pod) or same_amount(pod.cpu_limit, self.cpu)
        return same_amount(pod.cpu_request, self.cpu) and limit

    def is_full(self, pod: PodView) -> bool:
        """Whether the pod's spec has the size from before the pause."""
        return same_amount(pod.cpu_request, self.full_cpu) and self._has_full_limit(pod)

    def _has_full_limit(self, pod: PodView) -> bool:
        """Any is right where it had none: a LimitRange that is younger than the pod gives it one with the first resize,
        and no resize takes it away."""
        return not self.full_cpu_limit or same_amount(pod.cpu_limit, self.full_cpu_limit)

    def small(self, pod: PodView) -> dict[str, Any]:
        """The resources to ask for at the pause.

        A pod of the class Guaranteed has as much cpu as it may use, and must keep that class, so its limit goes down as
        well. Any other keeps its limit: its next code has what cpu its node has free, at once.
        """
        limit = {"limits": {"cpu": self.cpu}} if pod.qos == "Guaranteed" else {}
        return {"requests": {"cpu": self.cpu}} | limit

    def full(self) -> dict[str, Any]:
        """The resources to ask for at its end."""
        limit = {"limits": {"cpu": self.full_cpu_limit}} if self.full_cpu_limit else {}
        return {"requests": {"cpu": self.full_cpu}} | limit


def paused(engine: EngineView) -> Paused | None:
    """The record in the engine's status; None where there is none, or where it was edited by hand and says nothing."""
    found = engine.status.get("softPause")
    return parsed(found) if found else None


def parsed(found: object) -> Paused | None:
    """The same from its JSON."""
    if not isinstance(found, Mapping):
        return None
    texts = {name: str(found.get(name) or "") for name in ("since", "cpu", "fullCpu", "fullCpuLimit", "specCpu")}
    if not is_amount(texts["cpu"]) or not is_amount(texts["fullCpu"]):
        return None
    limit = texts["fullCpuLimit"] if is_amount(texts["fullCpuLimit"]) else ""
    asked = texts["specCpu"] if is_amount(texts["specCpu"]) else ""
    return Paused(texts["since"], texts["cpu"], texts["fullCpu"], limit, asked)


def begun(given: SoftPause, engine: EngineView, pod: PodView, now: datetime) -> Paused | None:
    """The record of a pause that begins now; None where the pod has no more than what it would keep."""
    if not is_amount(pod.cpu_request) or parse_quantity(pod.cpu_request) <= parse_quantity(given.cpu):
        return None
    limit = pod.cpu_limit if is_amount(pod.cpu_limit) else ""
    return Paused(format_time(now), given.cpu, pod.cpu_request, limit, _spec_cpu(engine))


def whole(engine: EngineView, pod: PodView) -> PodView:
    """The pod with the size that it has while its engine is used. Limits of people count this one: so a paused engine
    always has its place when it wakes."""
    record = paused(engine)
    if record is None or not record.is_small(pod):
        return pod
    return replace(pod, cpu_request=record.full_cpu, cpu_limit=record.full_cpu_limit or pod.cpu_limit)


def whole_body(engine: EngineView, pod: dict[str, Any]) -> dict[str, Any]:
    """The same for a pod as the API has it: with `requests` and `limits` of the engine's container as they were."""
    record = paused(engine)
    if record is None:
        return pod
    containers = [
        one | {"resources": _merged(one.get("resources") or {}, record.full())}
        if one.get("name") == ENGINE_CONTAINER and _has_cpu(one, record.cpu)
        else one
        for one in pod["spec"]["containers"]
    ]
    return pod | {"spec": pod["spec"] | {"containers": containers}}


def due_at(
    engine: EngineView, given: SoftPause, now: datetime, *, idle_since: datetime, known_since: datetime | None
) -> datetime:  # fmt: skip
    """From when on the engine is to be paused, if nothing uses it until then. `known_since` is when this process first
    saw the engine. One that is paused already is so from `after` on: a plugin with a longer one wakes it."""
    after = max(MIN_AFTER, parse_duration(given.after))
    at = idle_since + timedelta(seconds=after)
    if paused(engine) is None:
        share = int.from_bytes(hashlib.sha256(engine.uid.encode()).digest()[:4], "big") / 2**32
        at = max(filter(None, (at, known_since))) + timedelta(seconds=share * min(_SPREAD_MAX, after * _SPREAD))
    claim = engine.claim  # whoever has just been given the engine is about to use it
    return max(at, claim.until) if claim is not None and claim.holds(now) else at


def in_words(record: Paused) -> str:
    """What people read of an engine that is paused, in a few sentences."""
    since = parse_time(record.since)
    when = f" since {since:%Y-%m-%d %H:%M:%S} UTC" if since is not None else ""
    return (
        f"It is soft-paused{when}: nobody uses it, so its pod requests cpu {record.cpu} in place of {record.full_cpu}."
        " Its kernel and its memory stay. Its next code runs at once, and the cpu comes back within seconds"
    )


def condition(record: Paused | None, pod: PodView | None, refused: str) -> tuple[bool, str] | None:
    """The condition SoftPaused of an engine that nobody uses, with its sentences; None without a pause. `refused`: why
    the API server does not make the pod smaller."""
    if record is None or pod is None:
        return None
    why = pod.resize_pending if record.is_small(pod) else refused
    if not why:
        return True, as_sentence(in_words(record))
    return False, (
        f"Nobody uses the engine, and its pod keeps cpu {record.full_cpu}: it could not be resized to {record.cpu}"
        f" ({why}). Nothing is lost but room on the node. Where a LimitRange, an older cluster or the node's CPU"
        " manager refuses it, the platform changes or removes softPause of the EngineConnPlugin."
    )


def not_woken(engine: EngineView, pod: PodView | None, refused: str) -> str:
    """A sentence with the remedy for a paused engine that is used again and does not get its cpu back; "" for any
    other. Its code runs on with what there is, and the resize is tried again. `refused`: why the API server does not
    give the cpu back."""
    record = paused(engine)
    if record is None or pod is None:
        return ""
    small, full = record.is_small(pod), record.is_full(pod)
    never = pod.refuses(record.full()) if small else ""
    why = never or (refused if small else pod.resize_pending if full else "")
    if not why:
        return ""
    if never or (full and kind(why) == INFEASIBLE):
        who = "its pod can never have" if never else "its node can never give it"
        return (
            f"The engine is used again and runs with cpu {record.cpu} in place of {record.full_cpu}, which it gave back"
            f" while nobody used it: {who} that again, and nobody tries it ({why}). Ask for less"
            " with updateResource, or create another engine, which may get another node. The platform keeps cpu for"
            " idle engines with a greater softPause.cpu of the EngineConnPlugin, or without softPause."
        )
    return (
        f"The engine is used again and runs with cpu {record.cpu} in place of {record.full_cpu}, which it gave back"
        f" while nobody used it: its pod could not be resized ({why}). The resize is tried again until the node and"
        " the quota have room: stop other engines, or create another engine. The platform keeps cpu for idle engines"
        " with a greater softPause.cpu of the EngineConnPlugin, or without softPause."
    )


def has_size(pod: PodView, *, cpu: str | None, cpu_limit: str | None, memory: str | None) -> bool:
    """Whether the pod asks for these amounts; of None any is right.

    So is any cpu limit for an engine that has none: a LimitRange gives one to each pod without, and a resize takes none
    away.
    """
    pairs = ((cpu, pod.cpu_request), (cpu_limit, pod.cpu_limit), (memory, pod.memory_limit))
    return all(asked is None or same_amount(asked, has) for asked, has in pairs)


def _spec_cpu(engine: EngineView) -> str:
    """The cpu that the engine's spec asks for; "" where it leaves that to its plugin."""
    resources = engine.spec.resources if engine.spec is not None else None
    return str(resources.cpu or "") if resources is not None else ""


def _has_cpu(container: Mapping[str, Any], cpu: str) -> bool:
    requests = (container.get("resources") or {}).get("requests") or {}
    return same_amount(str(requests.get("cpu") or ""), cpu)


def _merged(before: Mapping[str, Any], more: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    return dict(before) | {kind: dict(before.get(kind) or {}) | dict(amounts) for kind, amounts in more.items()}
