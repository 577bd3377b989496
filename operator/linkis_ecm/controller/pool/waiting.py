"""The engines that wait for room, and what the warm pools of their namespaces have given them already.

An engine is helped only where all members together leave enough for it, as far as that is known, and once for each
thing that it lacks: what it waits for after that is something else. What it lacks is what was said to it last; its
status may say what was said before. Kept in memory alone: after a restart an engine that still waits may get as much
once more. Must not delete, nor choose a member: `engine.warm.sizing` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from linkis_ecm.controller.state.cache import Cache, Key
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.status.conditions import not_resized_because, too_small
from linkis_ecm.engine.view import EngineView
from linkis_ecm.engine.warm.room import Need, need, need_to_grow
from linkis_ecm.kube.events import EventRecorder
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import API_VERSION
from linkis_ecm.model.states import FINAL

_WAITS = frozenset({reasons.QUOTA_EXCEEDED.name, reasons.UNSCHEDULABLE.name})
# Of what an engine lacks. Shares are sums of floats.
_ALL = 0.999
# An Event's reason: members stay though an engine waits.
KEPT = "WarmPoolStays"
_STAY = "The warm pools' pods of this namespace stay, for all of them would not be enough"


# Needs of one engine that are helped with: one for each quota and limit of it, mostly one in all.
_MOST = 8
# How often others may take from a quota what an engine was given.
_ROUNDS = 2


@dataclass(slots=True)
class _Given:
    """For one need of an engine: the part that it has got of what it lacked at first, and of which node; `over`: it
    gets no more. `free`: what the quota had when a member went last; `rounds`: how often others took what it got."""

    lacked: Need
    free: Mapping[str, Decimal] = field(default_factory=dict)
    rounds: int = 0
    share: float = 0.0
    node: str = ""
    over: bool = False


@dataclass(slots=True)
class _Waits:
    """One engine that waits. `told`: that members stay since all of them are not enough. `given`: by what a need is
    about. The API server names one quota at a time, and of two not always the same."""

    told: bool = False
    given: dict[tuple[str, ...], _Given] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Helped:
    key: Key
    given: _Given
    node: str
    free: Mapping[str, Decimal]


class WaitingEngines:
    """By namespace. An engine gets as much room as it asks for and no more: what it waits for then is something else,
    such as a single node's room, and the pool is filled again."""

    def __init__(
        self,
        *,
        cache: Cache,
        is_foreign: Callable[[EngineView], bool],
        members: Callable[[str], Sequence[PodView]],
        free_on: Callable[[str], Mapping[str, Decimal]],
        lets_in: Callable[[str, PodView], bool],
        recorder: EventRecorder,
    ) -> None:
        """`members(namespace)`: those of all pools there that may go. `free_on(node)`: what that node has left beside
        all pods that are known; empty where nothing is known of it. `lets_in(node, pod)`: whether the pod may use
        it."""
        self._cache = cache
        self._is_foreign = is_foreign
        self._members = members
        self._free_on = free_on
        self._lets_in = lets_in
        self._recorder = recorder
        self._waits: dict[str, dict[Key, _Waits]] = {}
        # What the API server said last to an engine's pod; "" where that is not known, as after a restart.
        self.refused: Callable[[EngineView], str] = lambda _engine: ""
        # Called where a member goes for an engine that runs, so that its resize is tried again soon.
        self.gave_room: Callable[[Key], None] = lambda _key: None

    def note(self, before: EngineView | None, after: EngineView | None) -> bool:
        """An engine has changed. Returns whether it began or ended to wait."""
        engine = after or before
        if engine is None:
            return False
        waits = after is not None and _waits(after) and not self._is_foreign(after)
        known = self._waits.get(engine.namespace, {})
        if waits == (engine.key in known):
            return False
        if waits:
            self._waits.setdefault(engine.namespace, {})[engine.key] = _Waits()
        else:
            del known[engine.key]
            if not known:
                del self._waits[engine.namespace]
        return True

    def is_noted(self, engine: EngineView) -> bool:
        """Whether it waits, as far as its status says."""
        return engine.key in self._waits.get(engine.namespace, {})

    def helped(self, namespace: str) -> tuple[str, ...]:
        """The engines that would get room from a member that goes now: for each the node on which it must be, or ""
        where any member of the namespace will do."""
        return tuple(one.node for one in self._helped(namespace))

    def gave(self, pods: list[PodView]) -> None:
        """Members that go, one for each engine that waits."""
        for namespace in {pod.namespace for pod in pods}:
            going = [pod for pod in pods if pod.namespace == namespace]
            for one in self._helped(namespace):
                pod = next((pod for pod in going if not one.node or pod.node in ("", one.node)), None)
                if pod is not None:
                    going.remove(pod)
                    # Of what it lacked then: what was said since may count those that have gone.
                    one.given.share += one.given.lacked.share(pod)
                    one.given.node, one.given.free = one.node, one.free
                    if one.given.lacked.grows:
                        self.gave_room(one.key)

    def tell_kept(self, namespaces: Iterable[str]) -> None:
        """Tell engines for which members stay, since all of them would not be enough, what would help: each once."""
        for namespace in namespaces:
            waits = self._waits.get(namespace, {})
            needs = [one for one in self._needs(namespace) if not waits[one[0].key].told and not one[1].share]
            members = self._members(namespace) if needs else ()
            for engine, given, lacks in needs:
                there = self._usable(engine, lacks, members)
                helped = not there or self._node(lacks, given, there) is not None
                said = "" if helped else self._in_words(lacks, there)
                if said:
                    waits[engine.key].told = True
                    regarding = {
                        "apiVersion": API_VERSION, "kind": "EngineConn", "namespace": engine.namespace,
                        "name": engine.name, "uid": engine.uid,
                    }  # fmt: skip
                    self._recorder.record(regarding, KEPT, said, action="Wait", kind="Warning")

    def _needs(self, namespace: str) -> list[tuple[EngineView, _Given, Need]]:
        """The engines that members could help if there were enough of them, those first that began to wait first."""
        found = []
        for key, waits in self._waits.get(namespace, {}).items():
            engine = self._cache.engines.get(key)
            lacks = self._need(engine) if engine is not None else None
            if engine is None or lacks is None:
                continue
            if lacks.about not in waits.given and len(waits.given) >= _MOST:
                waits.given = {about: one for about, one in waits.given.items() if one.share}
                if len(waits.given) >= _MOST:
                    continue
            given = waits.given.setdefault(lacks.about, _Given(lacks))
            if given.share >= _ALL and given.rounds < _ROUNDS and not lacks.on_node and lacks.free != given.free:
                # Somebody else was quicker, by what was said since: the quota lacks less than at first, and lacks it.
                given.share, given.rounds = 0.0, given.rounds + 1
            if not given.share:
                given.lacked = lacks
            if not given.over and given.share < _ALL:
                found.append((engine, given, lacks))
        return found

    def _need(self, engine: EngineView) -> Need | None:
        said, pod = self.refused(engine), self._cache.pod_of(engine)
        if engine.text("reason") in _WAITS:
            return need(engine.text("reason"), said or engine.text("message"), pod)
        return need_to_grow(said or not_resized_because(engine.status.get("conditions")), pod)

    def _helped(self, namespace: str) -> list[_Helped]:
        """Each with members of its own: two engines that get half of what they need are no help."""
        needs = self._needs(namespace)
        free = list(self._members(namespace)) if needs else []
        found = []
        for engine, given, lacks in needs:
            node = self._node(lacks, given, self._usable(engine, lacks, free))
            if node is None:
                # Where it has got all that there was, it has got its chance.
                given.over = given.share > 0
                continue
            found.append(_Helped(engine.key, given, node, lacks.free))
            share = given.share
            for pod in [pod for pod in free if not node or pod.node == node]:
                if share >= _ALL:
                    break
                free.remove(pod)
                share += given.lacked.share(pod)
        return found

    def _usable(self, engine: EngineView, lacks: Need, members: Sequence[PodView]) -> Sequence[PodView]:
        """Those on nodes that the engine's pod may use."""
        pod = self._cache.pod_of(engine)
        if not lacks.on_node or pod is None:
            return members
        if lacks.node:
            return [one for one in members if one.node == lacks.node]
        shut = {name for name in {one.node for one in members} if name and not self._lets_in(name, pod)}
        return [one for one in members if one.node not in shut] if shut else members

    def _node(self, lacks: Need, given: _Given, members: Sequence[PodView]) -> str | None:
        """On which node members of these are to go for it; "" where that is all the same; None where none is to go."""
        if not lacks.on_node:
            return "" if (members and given.share) or lacks.is_met(members) else None
        there = _by_node(members)
        if given.share:
            return given.node if given.node in there else None
        met = [name for name, pods in there.items() if lacks.is_met(pods, self._free(lacks, name))]
        # Where the most of them are, the least other pods are in the way.
        return max(met, key=lambda name: (len(there[name]), name), default=None)

    def _free(self, lacks: Need, node: str) -> Mapping[str, Decimal]:
        """What the node has left. Of a pod there that is to grow it counts what that has now."""
        free = self._free_on(node)
        more = lacks.amounts if lacks.node else {}
        return {name: amount + (more.get(name) or Decimal(0)) for name, amount in free.items()}

    def _in_words(self, lacks: Need, members: Sequence[PodView]) -> str:
        if not lacks.on_node:
            said = lacks.in_words(members)
            less = "for that much more at most, with updateResource" if lacks.grows else "for that at most"
            return said and f"{_STAY}: the quota would then have {said}. Ask {less}, or have the quota raised."
        there = _by_node(members)
        if not there:
            return ""
        name = max(there, key=lambda name: (len(there[name]), name))
        said = lacks.in_words(there[name], self._free(lacks, name))
        if lacks.node:
            return said and (
                f"{_STAY}: its node {name} then has {said} beside what it has, as far as the operator knows. Ask for"
                " less with updateResource, or create another engine, which may get another node."
            )
        return said and (
            f"{_STAY}: node {name}, which has most of them, then has {said}, as far as the operator knows. Ask for that"
            " at most, or wait for a node with more room."
        )


def _by_node(members: Sequence[PodView]) -> dict[str, list[PodView]]:
    found: dict[str, list[PodView]] = {}
    for pod in members:
        if pod.node:
            found.setdefault(pod.node, []).append(pod)
    return found


def _waits(engine: EngineView) -> bool:
    """It waits for its pod, or for its pod's size."""
    if engine.state in FINAL or engine.stop_requested:
        return False
    return engine.text("reason") in _WAITS or too_small(engine.status.get("conditions"))
