"""The operator's cache of API objects: engines, plugins and pods. It never returns to an older version of an object.

Events, lists and the answers to our own writes arrive here in any order, and more than once. An object is replaced only
by a higher resourceVersion. The uids of deleted objects are remembered, so that late events are ignored. Must not
decide or write.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, TypeVar

from linkis_ecm.engine.admission.plugin_choice import choose_plugin
from linkis_ecm.engine.facts import attempt, holds_place, ticket_id
from linkis_ecm.engine.names import pod_name
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import EngineView, PluginView, engine_view, plugin_view
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import EngineConnSpec
from linkis_ecm.model.states import FINAL, EngineState

Key = tuple[str, str]
# "user" or "namespace", and its name.
Scope = tuple[str, str]
Entry = TypeVar("Entry")
# How many uids of deleted objects are remembered: those of a few seconds at the fastest rate of deletions.
TOMBSTONES = 4096
# Uids of pods that this process made. One is needed until the engine's status has it, which is within the same pass.
MADE = 20_000
# Uids of pods that somebody else made for an engine. One is needed until the pod has gone.
STRANGE = 4096


class Cache:
    """Views by key. Each `apply_*` and `drop_*` returns whether anything changed, or the changed object."""

    def __init__(self, *, epoch: datetime) -> None:
        # Used for a creation time that cannot be read: this process's start.
        self._epoch = epoch
        self.engines: dict[Key, EngineView] = {}
        self.plugins: dict[str, PluginView] = {}
        self._pods: dict[Key, PodView] = {}
        # The engine's uid → keys of its pods, of all attempts.
        self._owned: dict[str, set[Key]] = {}
        # Namespace and plugin → keys of the pods of that warm pool.
        self._members: dict[tuple[str, str], set[Key]] = {}
        self._member_keys: dict[str, Key] = {}
        # Ticket → keys of the engines that name it: one, unless a user took another engine's.
        self._tickets: dict[str, set[Key]] = {}
        self._tombstones: OrderedDict[str, None] = OrderedDict()
        self._made: OrderedDict[str, None] = OrderedDict()
        self._strange: OrderedDict[str, None] = OrderedDict()
        # Engines that have not ended, by user and by namespace.
        self._live: dict[Scope, dict[Key, EngineView]] = {}
        # Called with an engine, or a pod of a warm pool, before and after each change; whoever caused it.
        self.on_engine: Callable[[EngineView | None, EngineView | None], None] = lambda _before, _after: None
        self.on_member: Callable[[PodView | None, PodView | None], None] = lambda _before, _after: None
        # Whether a pod that says it was claimed from a pool was one of ours. Anybody can write that annotation.
        self.is_claimed_member: Callable[[PodView], bool] = lambda _pod: False
        # Counts changes after which another number of engines may have places, or places of another size.
        self.place_changes = 0

    def apply_engine(self, body: Mapping[str, Any]) -> bool:
        """Apply an engine from an event, a list or an answer."""
        if self._has_engine(body["metadata"]):
            # Its own answers come back by the watch: no reason to parse them again.
            return False
        view = engine_view(body, epoch=self._epoch)
        known = self.engines.get(view.key)
        if view.uid in self._tombstones or (
            known is not None and known.uid == view.uid and known.version >= view.version
        ):
            return False
        if known is not None:
            self._remove_ticket(known)
        self.engines[view.key] = view
        self._tickets.setdefault(ticket_id(view), set()).add(view.key)
        self._index(known, view)
        return True

    def _has_engine(self, meta: Mapping[str, Any]) -> bool:
        """Whether the cache has exactly this version of the engine."""
        known = self.engines.get((meta.get("namespace", ""), meta.get("name", "")))
        return known is not None and known.uid == meta.get("uid") and _is_version(meta, known.version)

    def drop_engine(self, key: Key, uid: str) -> EngineView | None:
        """The engine was deleted. Returns its last view; None if it was unknown or was created again."""
        self._add_tombstone(uid)
        known = self.engines.get(key)
        if known is None or known.uid != uid:
            return None
        self._remove_ticket(known)
        self._index(known, None)
        return self.engines.pop(key)

    def is_ticket_taken(self, engine: EngineView) -> bool:
        """Whether the engine's ticket is another engine's: the one that was accepted first, then the older one."""
        keys = self._tickets.get(ticket_id(engine), set())
        holders = [self.engines[key] for key in keys if self.engines[key].uid != engine.uid]
        return any(_precedence(holder) < _precedence(engine) for holder in holders)

    def _remove_ticket(self, engine: EngineView) -> None:
        ticket = ticket_id(engine)
        keys = self._tickets.get(ticket, set())
        keys.discard(engine.key)
        if not keys:
            self._tickets.pop(ticket, None)

    def live_of(self, scope: Scope) -> Collection[EngineView]:
        """The engines of a user or in a namespace that have not ended."""
        return self._live.get(scope, {}).values()

    def scopes(self) -> list[Scope]:
        """The users and namespaces that have engines that have not ended."""
        return list(self._live)

    def _index(self, before: EngineView | None, after: EngineView | None) -> None:
        self.on_engine(before, after)
        if _place(before) != _place(after):
            self.place_changes += 1
        for view in (before, after):
            if view is None or view.spec is None:
                continue
            for scope in (("user", view.spec.user), ("namespace", view.namespace)):
                if view is after and view.state not in FINAL:
                    self._live.setdefault(scope, {})[view.key] = view
                elif (engines := self._live.get(scope)) is not None:
                    engines.pop(view.key, None)
                    if not engines:
                        del self._live[scope]

    def absent_engines(self, present: set[str], version: int) -> list[EngineView]:
        """Known engines that are not in a list of that version, because the watch missed their deletion."""
        return [view for view in self.engines.values() if view.uid not in present and view.version <= version]

    def apply_plugin(self, body: Mapping[str, Any]) -> bool:
        """Apply a plugin. A plugin that cannot be read is removed. A change of its status alone is none."""
        name = str(body["metadata"]["name"])
        view = plugin_view(body)
        if view is None:
            return self.plugins.pop(name, None) is not None
        known = self.plugins.get(name)
        if known is not None and known.version >= view.version:
            return False
        self.plugins[name] = view
        return known is None or not view.generation or (known.uid, known.generation) != (view.uid, view.generation)

    def drop_plugin(self, name: str) -> bool:
        return self.plugins.pop(name, None) is not None

    def apply_pod(self, view: PodView) -> bool:
        """Apply a pod from an event, a list or an answer."""
        key = (view.namespace, view.name)
        known = self._pods.get(key)
        if view.uid in self._tombstones or (
            known is not None and known.uid == view.uid and known.version >= view.version
        ):
            return False
        if known is not None:
            self._remove_pod(key, known)
        self._pods[key] = view
        if view.member is not None:
            self._members.setdefault((view.namespace, view.member.pool), set()).add(key)
            self._member_keys[view.uid] = key
        else:
            self._owned.setdefault(view.owner_uid, set()).add(key)
        if known is None or _pod_size(known) != _pod_size(view):
            self.place_changes += 1
        self._member_changed(known, view)
        return True

    def known_pod(self, body: Mapping[str, Any]) -> PodView | None:
        """The view of a pod of the API, if the cache has exactly this version of it."""
        meta = body["metadata"]
        known = self._pods.get((meta.get("namespace", ""), meta.get("name", "")))
        found = known is not None and known.uid == meta.get("uid") and _is_version(meta, known.version)
        return known if found else None

    def drop_pod(self, view: PodView) -> bool:
        self._add_tombstone(view.uid)
        key = (view.namespace, view.name)
        known = self._pods.get(key)
        if known is None or known.uid != view.uid:
            return False
        del self._pods[key]
        self._remove_pod(key, known)
        self.place_changes += 1
        self._member_changed(known, None)
        return True

    def _member_changed(self, before: PodView | None, after: PodView | None) -> None:
        if any(pod is not None and pod.member is not None for pod in (before, after)):
            self.on_member(before, after)

    def has_pod(self, owner_uid: str) -> bool:
        """Whether there is a pod of that engine, of any attempt."""
        return any(self._pods[key].uid not in self._strange for key in self._owned.get(owner_uid, ()))

    def pod_of(self, engine: EngineView) -> PodView | None:
        """The pod of the engine's current attempt, if this engine owns it."""
        name = engine.text("podName") or pod_name(engine.name, engine.uid, attempt(engine))
        pod = self._pods.get((engine.namespace, name))
        if pod is not None and pod.owner_uid == engine.uid and engine.text("podUid") in ("", pod.uid):
            return pod if pod.uid not in self._strange else None
        return None if engine.text("podName") else self._claimed_pod(engine)

    def record_made(self, pod_uid: str) -> None:
        """The API server has answered this process's create with that pod, or it was found to be this operator's."""
        self._made[pod_uid] = None
        while len(self._made) > MADE:
            self._made.popitem(last=False)

    def record_strange(self, pod_uid: str) -> None:
        """The pod was found to be somebody else's, and was asked to go. It is no pod of its engine, however long it
        stays: whoever may create pods may put a finalizer on one."""
        self._strange[pod_uid] = None
        while len(self._strange) > STRANGE:
            self._strange.popitem(last=False)

    def is_strange(self, pod_uid: str) -> bool:
        return pod_uid in self._strange

    def is_made(self, engine: EngineView, pod: PodView) -> bool:
        """Whether the engine's pod by its name and owner is one that this operator made: anybody can write both.

        A status without the uid is an earlier version's, and has the pod's name.
        """
        if recorded := engine.text("podUid"):
            return recorded == pod.uid
        if engine.text("podName") or pod.uid in self._made:
            return True
        return pod.claimed is not None and self.is_claimed_member(pod)

    def _claimed_pod(self, engine: EngineView) -> PodView | None:
        """The pod that the engine took from a warm pool for its current attempt: it has the name that it had there."""
        keys = sorted(self._owned.get(engine.uid, ()))
        pods = (pod for key in keys if (pod := self._pods[key]).claimed == attempt(engine))
        return next((pod for pod in pods if self.is_claimed_member(pod)), None)

    def members(self, namespace: str, pool: str) -> tuple[PodView, ...]:
        """The pods in a namespace that belong to a warm pool, and so to nobody yet, by their names."""
        found = self._members.get((namespace, pool), ())
        return tuple(self._pods[key] for key in sorted(found))

    def member(self, namespace: str, uid: str) -> PodView | None:
        """The pod of that uid, if it belongs to a warm pool of the namespace."""
        key = self._member_keys.get(uid)
        return self._pods[key] if key is not None and key[0] == namespace else None

    def pools(self) -> list[tuple[str, str]]:
        """The namespaces and names of the warm pools that have members."""
        return list(self._members)

    def pod_by_uid(self, owner_uid: str, pod_uid: str) -> PodView | None:
        """A pod of that engine, which may be gone already."""
        return next((pod for key in self._owned.get(owner_uid, ()) if (pod := self._pods[key]).uid == pod_uid), None)

    def other_pods(self, engine: EngineView, current: PodView | None) -> tuple[PodView, ...]:
        """The pods of the engine's other attempts."""
        pods = (self._pods[key] for key in sorted(self._owned.get(engine.uid, ())))
        return tuple(pod for pod in pods if pod != current and pod.uid not in self._strange)

    def _remove_pod(self, key: Key, pod: PodView) -> None:
        """Out of the index that has it: its engine's, or its pool's."""
        if pod.member is not None:
            _discard(self._members, (pod.namespace, pod.member.pool), key)
            self._member_keys.pop(pod.uid, None)
        else:
            _discard(self._owned, pod.owner_uid, key)

    def pod(self, key: Key) -> PodView | None:
        """The pod of that namespace and name."""
        return self._pods.get(key)

    def pods_on(self, node: str) -> list[PodView]:
        """The pods of a node that are known: of engines and of pools in the namespaces that are watched."""
        return [pod for pod in self._pods.values() if pod.node == node]

    def orphans(self) -> list[PodView]:
        """Pods whose engine is not in the cache."""
        return [pod for pod in self._pods.values() if self.is_orphan(pod)]

    def is_orphan(self, pod: PodView) -> bool:
        """Whether the pod's engine is not in the cache. A pod of a warm pool has none."""
        engine = self.engines.get((pod.namespace, pod.owner_name))
        return pod.member is None and (engine is None or engine.uid != pod.owner_uid)

    def plugin_for(self, spec: EngineConnSpec | None) -> PluginView | None:
        """The plugin for a spec: by name, by type and version, or the type's default."""
        if spec is None:
            return None
        return choose_plugin(
            self.plugins.values(), plugin=spec.plugin, engine_type=spec.engine_type, version=spec.engine_version
        )

    def _add_tombstone(self, uid: str) -> None:
        self._tombstones[uid] = None
        while len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)


def _is_version(meta: Mapping[str, Any], version: int) -> bool:
    return bool(meta.get("resourceVersion") == str(version))


def _discard(index: dict[Entry, set[Key]], entry: Entry, key: Key) -> None:
    """One key out of an index whose empty entries are not kept."""
    keys = index.get(entry)
    if keys is not None:
        keys.discard(key)
        if not keys:
            del index[entry]


def _precedence(engine: EngineView) -> tuple[int, datetime, str]:
    """Whose ticket it is, the lowest first: an accepted engine's, a new one's, at last one's that was refused. Creation
    times have whole seconds; the uid decides between equal ones."""
    refused = engine.state is EngineState.FAILED and engine.text("reason") == reasons.INVALID_SPEC.name
    rank = 2 if refused else 1 if engine.state is None else 0
    return rank, engine.created, engine.uid


def _pod_size(pod: PodView) -> tuple[str, ...]:
    """What a pod counts as: it can be resized in place."""
    return pod.uid, pod.cpu_request, pod.memory_limit, pod.actual_cpu, pod.actual_memory


def _place(view: EngineView | None) -> tuple[object, ...]:
    """What of an engine decides whether it has a place, and of what size."""
    if view is None or view.state in FINAL:
        return ()
    return view.uid, holds_place(view), view.spec.resources if view.spec is not None else None
