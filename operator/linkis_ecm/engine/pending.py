"""Which fields of a spec were changed after the engine's pod was made, and wait for its next pod. Pure.

A live engine follows its timeouts, its restart policy and its end. What its pod was made of stays as it is; a size may
be changed by the gateway's updateResource, which changes the pod as well. Must not change anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from linkis_ecm.engine import resizing, soft_pause
from linkis_ecm.engine.by_identity import ByIdentity
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.times import parse_time
from linkis_ecm.engine.view import EngineView
from linkis_ecm.model.engineconn import EngineConnSpec
from linkis_ecm.model.formats import parse_quantity

# On a pod: JSON of a digest for each of FIELDS, of the spec that it was made from.
FIELDS = ("resources", "volumes", "workingDir", "podTemplate")
# The attributes of EngineConnSpec that hold them.
_ATTRIBUTES = {"resources", "volumes", "working_dir", "pod_template"}

_SHORT = 128


def _digests(spec: EngineConnSpec) -> dict[str, str]:
    body = spec.model_dump(by_alias=True, exclude_none=True, mode="json", include=_ATTRIBUTES)
    return {name: _digest(json.dumps(body.get(name), sort_keys=True)) for name in FIELDS}


_known_digests = ByIdentity(_digests)


def digests(spec: EngineConnSpec) -> Mapping[str, str]:
    """Of the fields that only a new pod takes over."""
    return _known_digests(spec)


def _digest(text: str) -> str:
    # Of short texts alone are the last ones kept: a user chooses how long the others are.
    return _short_digest(text) if len(text) <= _SHORT else hashlib.sha256(text.encode()).hexdigest()[:16]


# Most engines leave most of the fields out, and ask for the same sizes.
@lru_cache(maxsize=1024)
def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# The digest of a field that the spec does not have.
NOTHING = _digest("null")


def pending(engine: EngineView, pod: PodView | None) -> str:
    """A sentence with the fields and the remedy; "" where the pod has all, or does not say what it was made from."""
    if pod is None or engine.spec is None or not pod.made_from:
        return ""
    pod, now = soft_pause.whole(engine, pod), digests(engine.spec)
    names = [name for name in FIELDS if pod.made_from.get(name, now[name]) != now[name]]
    # A pod that still waits for its size is resized to what the spec says by then.
    if "resources" in names and (_is_resized(engine.spec, pod) or keeps_members_size(engine, pod)):
        names.remove("resources")
    if not names:
        return ""
    fields = " and ".join(f"spec.{name}" for name in names)
    resize = " updateResource of the gateway changes cpu and memory of a live engine." if "resources" in names else ""
    return (
        f"{fields} changed after the engine's pod was made: only a next pod of it has the change. Undo it, or create"
        f" another engine.{resize}"
    )


def keeps_members_size(engine: EngineView, pod: PodView) -> bool:
    """Whether a pod from a warm pool that was to be resized still asks for what it had there.

    Then it is tried again, to what the spec asks for by then. Whoever has resized the pod since has the last word.
    """
    if pod.claimed is None or not pod.member_size or engine.spec is None:
        return False
    has = soft_pause.whole(engine, pod)
    return _same_size(pod.member_size, (has.cpu_request, has.cpu_limit, has.memory_limit))


def asks_as_at_claim(engine: EngineView, pod: PodView) -> bool:
    """Whether the engine of a pod from a warm pool asks for the size that it asked for at the claim: limits of people
    have counted that one."""
    if pod.claimed is None or not pod.member_size or engine.spec is None:
        return False
    return pod.made_from.get("resources") == digests(engine.spec)["resources"]


def _same_size(written: str, sizes: tuple[str, ...]) -> bool:
    parts = written.split("/")
    return len(parts) == len(sizes) and all(map(resizing.same_amount, parts, sizes))


# Cpu and memory as a container has them: by `requests` and `limits`, then by name.
Amounts = Mapping[str, Mapping[str, str]]


def is_larger(engine: EngineView, pod: PodView | None, asked: Amounts) -> bool:
    """Whether a pod from a warm pool lacks nothing that its engine asks for, and has more of something. `asked` is
    what the engine's own pod would have."""
    if pod is None or pod.claimed is None:
        return False
    has = _as_in_pool(engine, soft_pause.whole(engine, pod))
    # No cpu limit of the pod, or none of the engine, is no lack.
    limit = resizing.amount(asked, "limits", "cpu")
    limits = (limit, has.cpu_limit) if limit and has.cpu_limit else ("0", "0")
    pairs = ((asked["requests"]["cpu"], has.cpu_request), limits, (asked["limits"]["memory"], has.memory_limit))
    if not all(resizing.is_amount(one) and resizing.is_amount(other) for one, other in pairs):
        return False
    numbers = [(parse_quantity(one), parse_quantity(other)) for one, other in pairs]
    return all(one <= other for one, other in numbers) and any(one < other for one, other in numbers)


def slow_at(engine: EngineView, pod: PodView | None) -> datetime | None:
    """From when on a resize that its kubelet is at counts as one that does not come; None where it is at none."""
    if pod is None or not pod.in_progress:
        return None
    since = pod.in_progress_since or parse_time(engine.text("readyTime"))
    return since + resizing.SLOW_AFTER if since is not None else None


def with_slow(engine: EngineView, pod: PodView | None, now: datetime) -> PodView | None:
    """The pod as what is told of its size goes by it: one whose kubelet is at a resize for long waits for that size.
    One that gives cpu back for a soft pause lacks nothing."""
    at, record = slow_at(engine, pod), soft_pause.paused(engine)
    if pod is None or at is None or now < at or (record is not None and not record.is_full(pod)):
        return pod
    since = at - resizing.SLOW_AFTER
    return replace(pod, resize_pending=f"{resizing.SLOW}: its kubelet is at it since {since:%Y-%m-%d %H:%M:%S} UTC")


def unsized(engine: EngineView, pod: PodView | None, refused: str, asked: Amounts | None = None) -> str:
    """A sentence with the remedy for a pod from a warm pool that has not got the size that its engine asks for; "" for
    any other. `refused`: what the API server said to the last resize, where this process has tried. A kubelet that
    waits for room is no refusal yet, and the sentence says that."""
    if pod is None or pod.claimed is None or engine.spec is None:
        return ""
    keeps = keeps_members_size(engine, pod)
    never = pod.refuses(asked) if keeps and asked is not None else ""
    if asked is not None and (keeps or pod.resize_pending) and is_larger(engine, pod, asked):
        has = _as_in_pool(engine, soft_pause.whole(engine, pod))
        why = never or refused or pod.resize_pending or "it is tried again"
        cpu, memory = asked["requests"]["cpu"], asked["limits"]["memory"]
        return (
            f"The engine runs with cpu {has.cpu_request} and memory {has.memory_limit}, and asks for cpu {cpu} and"
            f" memory {memory}: its pod, which it took from a warm pool, could not be made smaller ({why}). It lacks"
            " nothing, and limits of people count what it has. Ask for that with updateResource, or create another"
            f" engine: {_COLD}"
        )
    runs = _runs_with(_as_in_pool(engine, soft_pause.whole(engine, pod)), asked)
    if never:
        return (
            f"{runs}: its pod, which it took from a warm pool, can never have the size that it asks for, and nobody"
            f" tries that ({never}). Ask for another size with updateResource, or create another engine: {_COLD}"
        )
    if keeps:
        again = " The resize is tried again." if refused else ""
        return (
            f"{runs}: its pod, which it took from a warm pool, could not be resized ({refused or 'it is tried again'})."
            f"{again} {_ASK_FOR_LESS}, repeat it when the node has room, or create another engine: {_COLD}"
        )
    return _not_given(runs, pod.resize_pending) if pod.resize_pending else ""


def _runs_with(has: PodView, asked: Amounts | None) -> str:
    """What the pod has, for each amount that is not what the engine asks for; all of it where that is not known."""
    amounts = (
        ("cpu", has.cpu_request, "requests", "cpu"),
        ("a cpu limit of", has.cpu_limit, "limits", "cpu"),
        ("memory", has.memory_limit, "limits", "memory"),
    )
    found = []
    for words, amount, kind, name in amounts:
        wish = resizing.amount(asked, kind, name)
        # Any cpu limit is right for an engine that asks for none.
        if wish and not resizing.same_amount(wish, amount):
            found.append(f"{words} {amount} in place of {wish}" if amount else f"no {words.removeprefix('a ')} {wish}")
    every = [f"{words} {amount}" for words, amount, _, _ in amounts if amount]
    return f"The engine runs with {' and '.join(found or every) or 'what it had in the warm pool'}"


_ASK_FOR_LESS = "Ask for less with updateResource"
_COLD = "the platform gets cold starts of full size with warmPool.size 0 of the EngineConnPlugin."


def _not_given(has: str, why: str) -> str:
    """What the kubelet's refusal of a size means, and what helps. `has` says what the engine runs with."""
    match resizing.kind(why):
        case resizing.SLOW:
            return (
                f"{has}: the kubelet of its node has begun to give its pod the size that it asks for, and has not ended"
                f" ({why}). It gets the size when the kubelet ends that: where it does not, have the platform see the"
                f" node and the kubelet's log, or create another engine, which may get another node: {_COLD}"
            )
        case resizing.INFEASIBLE:
            return (
                f"{has}: its node can never give its pod the size that it asks for, and nobody tries that again"
                f" ({why}). {_ASK_FOR_LESS}, or create another engine, which may get another node: {_COLD}"
            )
        case resizing.DEFERRED:
            return (
                f"{has}: its node has no room now for the size that it asks for ({why}). The kubelet gives it when"
                f" other pods of the node have ended. {_ASK_FOR_LESS}, or create another engine: {_COLD}"
            )
    return (
        f"{has}: its pod could not be resized ({why}). {_ASK_FOR_LESS}, repeat it when the node has room, or create"
        f" another engine: {_COLD}"
    )


def own_size(engine: EngineView, pod: PodView | None) -> dict[str, Any] | None:
    """What the pod has of cpu and memory, where the spec need not say it any more; None where it does, or without a
    pod. Limits of people count it: a spec may be edited to any size while its pod stays as it is."""
    if pod is None or engine.spec is None or not (pod.cpu_request or pod.memory_limit):
        return None
    pod = _as_in_pool(engine, soft_pause.whole(engine, pod))
    if keeps_members_size(engine, pod):
        return _sizes(pod)
    wish = engine.spec.resources
    edited = pod.made_from.get("resources", "") not in ("", digests(engine.spec)["resources"])
    if not edited and (wish is None or _is_resized(engine.spec, pod)):
        return None
    return _sizes(pod)


def _as_in_pool(engine: EngineView, pod: PodView) -> PodView:
    """A pod whose kubelet has no room for the size that its claim asked for has what it had in the pool."""
    if pod.in_progress and pod.resize_pending:
        # Its kubelet may have done a part of it.
        cpu, memory = pod.actual_cpu or pod.cpu_request, pod.actual_memory or pod.memory_limit
        return replace(pod, cpu_request=cpu, memory_limit=memory)
    parts = pod.member_size.split("/")
    asked = asks_as_at_claim(engine, pod) or (engine.spec is not None and _is_resized(engine.spec, pod))
    if not pod.resize_pending or pod.claimed is None or not asked or len(parts) != 3:
        return pod
    return replace(pod, cpu_request=parts[0], cpu_limit=parts[1], memory_limit=parts[2])


def _sizes(pod: PodView) -> dict[str, Any]:
    sizes = {"cpu": pod.cpu_request, "cpuLimit": pod.cpu_limit, "memory": pod.memory_limit}
    found: dict[str, Any] = {name: size for name, size in sizes.items() if size}
    return found | ({"extended": dict(pod.extended)} if pod.extended else {})


def _is_resized(spec: EngineConnSpec, pod: PodView) -> bool:
    """Whether the pod itself has what the spec asks for now."""
    wish = spec.resources
    if wish is None:
        return False
    pairs = ((wish.cpu, pod.cpu_request), (wish.cpu_limit, pod.cpu_limit), (wish.memory, pod.memory_limit))
    extended = dict(pod.extended)
    if any(extended.get(name, 0) != number for name, number in (wish.extended or {}).items()):
        return False
    return all(asked is None or (had != "" and parse_quantity(asked) == parse_quantity(had)) for asked, had in pairs)
