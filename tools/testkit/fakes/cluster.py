"""The state of a fake Kubernetes cluster: objects, their versions, deletion, garbage collection. No HTTP, no faults.

Keeps the API server's rules that our operator leans on; what it does not know it refuses. Stored objects are never
changed in place, so history and watches may share them; what goes out is a copy.
"""

from __future__ import annotations

import asyncio
import base64
import random
import uuid
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from linkis_ecm.kube.resources import NAMESPACES, PODS, Resource
from tools.testkit.fakes.resizes import check_resize, default_requests, qos_class
from tools.testkit.fakes.rules import (
    CUSTOM,
    NAME,
    RESOURCES,
    WITH_STATUS,
    Object,
    StatusError,
    check_pod_change,
    copied,
    invalid,
    judged,
    merged,
    operated,
    pruned,
    selection,
)
from tools.testkit.fakes.watches import Change, FakeWatch, WatchHub

Key = tuple[str, str]
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def loop_now() -> datetime:
    """A wall clock that goes with the event loop's: virtual where that is."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


def timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class FakeCluster:
    """Objects by resource; the methods are the API server's verbs, and raise StatusError."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = loop_now,
        seed: int = 0,
        gc_delay: float = 0.05,
        history: int = 20_000,
        bookmark_period: float = 60.0,
        namespaces: tuple[str, ...] = ("default", "engines"),
    ) -> None:
        self.now = now
        self.gc_delay = gc_delay
        self.watches = WatchHub(history=history, bookmark_period=bookmark_period)
        self._rng = random.Random(seed)
        self._objects: dict[Resource, dict[Key, Object]] = {resource: {} for resource in RESOURCES}
        # uid of an owner → what it owns.
        self._owned: defaultdict[str, set[tuple[Resource, Key]]] = defaultdict(set)
        self._uids: set[str] = set()
        self._listeners: list[tuple[Resource, Callable[[Change], None]]] = []
        self._snapshots: dict[str, tuple[str, list[Object]]] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._first_namespaces = namespaces
        # Mutating admission of new pods, as a policy or a webhook does it.
        self.admit_pod: Callable[[Object], None] = lambda pod: None
        # The same for a resize: a LimitRange's defaults come with both.
        self.admit_resize: Callable[[Object], None] = lambda pod: None
        # Objects from before a rule are let by (Kubernetes 1.30).
        self.ratchets = True
        # CRDs from before fields: names that the status of such an object loses, wherever they are in it.
        self.unknown: dict[Resource, set[str]] = {}
        # Pods have the subresource resize (Kubernetes 1.33).
        self.resizes = True

    # Reading

    @property
    def version(self) -> str:
        """The cluster's resourceVersion. It begins at 1: "0" means "anything" to a watch."""
        return str(self.watches.version or 1)

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> Object:
        found: Object = copied(self._stored(resource, name, namespace))
        return found

    def peek(self, resource: Resource, key: Key) -> Object | None:
        """The stored object itself, None where there is none: to look at, never to change."""
        return self._objects[resource].get(key)

    def all(self, resource: Resource) -> list[Object]:
        """Copies of all objects of a kind, in the order of their keys."""
        return [copied(item) for _, item in sorted(self._objects[resource].items())]

    def page(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        limit: int = 0,
        token: str = "",
    ) -> tuple[list[Object], str, str]:
        """Items, their version and the token of the next page ("" on the last). Pages show one snapshot."""
        self._setup()
        if token:
            if token not in self._snapshots:
                raise StatusError(410, "Expired", "The provided continue parameter is too old")
            version, items = self._snapshots.pop(token)
        else:
            self.watches.listed(resource)
            matches = selection(resource, namespace, labels, fields)
            version = self.version
            items = [item for _, item in sorted(self._objects[resource].items()) if matches(item)]
        if not limit or len(items) <= limit:
            return items, version, ""
        following = base64.urlsafe_b64encode(self._rng.randbytes(12)).decode()
        self._snapshots[following] = (version, items[limit:])
        return items[:limit], version, following

    def expire_pages(self) -> None:
        """Unfinished lists get 410 on their next page."""
        self._snapshots.clear()

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        resource_version: str = "",
        seconds: float = 1800,
        bookmarks: bool = True,
    ) -> FakeWatch:
        self._setup()
        matches = selection(resource, namespace, labels, fields)
        current = [item for _, item in sorted(self._objects[resource].items()) if matches(item)]
        return self.watches.open(
            resource, matches, resource_version=resource_version, seconds=seconds, bookmarks=bookmarks, current=current
        )

    def listen(self, resource: Resource, callback: Callable[[Change], None]) -> None:
        """Calls back on each change, at once and without faults: for kubelets and assertions."""
        self._listeners.append((resource, callback))

    # Writing

    def create(self, resource: Resource, body: Object, *, namespace: str = "") -> Object:
        self._setup()
        item = copied(body)
        metadata = item.setdefault("metadata", {})
        if "name" not in metadata and metadata.get("generateName"):
            alphabet = "bcdfghjklmnpqrstvwxz2456789"
            metadata["name"] = metadata["generateName"] + "".join(self._rng.choices(alphabet, k=5))
        self._check_new(resource, item, namespace)
        if resource.namespaced:
            metadata["namespace"] = namespace
        item |= {"apiVersion": resource.api_version, "kind": resource.kind}
        metadata["uid"] = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        metadata["creationTimestamp"] = timestamp(self.now())
        metadata["generation"] = 1
        for given in ("deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(given, None)
        if resource in WITH_STATUS:
            item.pop("status", None)
        if resource == PODS:
            item["spec"] = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30} | item.get("spec", {})
            self.admit_pod(item)
            default_requests(item)
            item["status"] = {"phase": "Pending", "qosClass": qos_class(item["spec"])}
        if resource == NAMESPACES:
            item["status"] = {"phase": "Active"}
        item = judged(resource, item, None)
        self._uids.add(metadata["uid"])
        self._commit(resource, None, item)
        owners = self._owners(resource, item)
        if owners and not any(owner in self._uids for owner in owners):
            # The garbage collector also finds what was made for an owner already gone.
            self._later(self.gc_delay, self._collect, owners[0])
        created: Object = copied(self._objects[resource][_key(item)])
        return created

    def patch(
        self,
        resource: Resource,
        name: str,
        patch: Object | list[Object],
        *,
        namespace: str = "",
        subresource: str | None = None,
    ) -> Object:
        """A merge patch, or a list of operations; by the status subresource it reaches only the status, by a pod's
        resize only its containers' cpu and memory, else all but the status."""
        resize = subresource == "resize" and resource == PODS and self.resizes and isinstance(patch, dict)
        if subresource and not (subresource == "status" and resource in WITH_STATUS) and not resize:
            raise StatusError(404, "NotFound", "the server could not find the requested resource")
        old = self._stored(resource, name, namespace)
        if resize and isinstance(patch, dict):
            return self._resize(old, patch)
        wanted = operated(old, patch) if isinstance(patch, list) else merged(old, patch)
        self._check_preconditions(resource, old, None, wanted["metadata"]["resourceVersion"])
        if wanted["metadata"].get("uid") != old["metadata"]["uid"] and not (subresource and resource in CUSTOM):
            # Of a custom resource's status patch the real server takes no metadata: a wrong uid goes unnoticed.
            raise invalid(resource, old, "metadata.uid: Invalid value: field is immutable")
        if wanted["metadata"].get("name") != name or wanted["metadata"].get("namespace", "") != namespace:
            raise StatusError(400, "BadRequest", "the name or namespace of the object does not match the request")
        if subresource:
            new = dict(old)
            new.pop("status", None)
            new |= {"status": wanted["status"]} if "status" in wanted else {}
        elif resource in WITH_STATUS:
            new = {key: value for key, value in wanted.items() if key != "status"}
            new |= {"status": old["status"]} if "status" in old else {}
        else:
            new = wanted
        return self._store(resource, old, new)

    def _resize(self, old: Object, patch: Object) -> Object:
        """Other cpu and memory of containers, which the patch names. A kubelet takes them up later."""
        self._check_preconditions(PODS, old, None, (patch.get("metadata") or {}).get("resourceVersion"))
        wanted = {one["name"]: one.get("resources") or {} for one in patch["spec"]["containers"]}
        containers = [
            one | {"resources": merged(one.get("resources") or {}, wanted.get(one["name"], {}))}
            for one in old["spec"]["containers"]
        ]
        new = old | {"spec": old["spec"] | {"containers": copied(containers)}}
        self.admit_resize(new)
        check_resize(new, old)
        metadata = new["metadata"] | {"generation": old["metadata"]["generation"] + 1}
        stored: Object = copied(old if new == old else self._commit(PODS, old, new | {"metadata": metadata}))
        return stored

    def change(self, resource: Resource, key: Key, edit: Callable[[Object], None]) -> Object | None:
        """Edits an object as a component of the cluster would, status and all; None where it is gone."""
        old = self._objects[resource].get(key)
        if old is None:
            return None
        new = copied(old)
        edit(new)
        return self._store(resource, old, new)

    def age(self, resource: Resource, key: Key, edit: Callable[[Object], None]) -> None:
        """Makes an object one that was stored before its definition had a rule: nothing judges the edit."""
        old = self._objects[resource][key]
        new = copied(old)
        edit(new)
        new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        self._commit(resource, old, new)

    def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str = "",
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
        orphan: bool = False,
    ) -> Object:
        old = self._stored(resource, name, namespace)
        self._check_preconditions(resource, old, uid, resource_version)
        if orphan:
            for kind, key in self._owned.pop(old["metadata"]["uid"], set()):
                self.change(kind, key, lambda item: item["metadata"].pop("ownerReferences", None))
        grace = self._grace(resource, old, grace_seconds)
        new = copied(old)
        metadata = new["metadata"]
        already = metadata.get("deletionGracePeriodSeconds")
        if "deletionTimestamp" not in metadata or (already is not None and grace < already):
            metadata["deletionTimestamp"] = timestamp(self.now() + timedelta(seconds=grace))
            metadata["deletionGracePeriodSeconds"] = grace
        if grace == 0 and not metadata.get("finalizers"):
            if resource == PODS and new != old:
                # As the real server: a pod is marked, then goes, in two events.
                metadata["generation"] += 1
                new = old = self._commit(resource, old, new)
            self._remove(resource, old)
        elif new != old:
            metadata["generation"] += 1
            new = self._commit(resource, old, new)
        answer: Object = copied(new)
        return answer

    def close(self) -> None:
        """Forgets what is still planned (deletions by the garbage collector)."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # The rules

    def _setup(self) -> None:
        # Not in __init__: creation times need the running loop, and fixtures may be built before it.
        names, self._first_namespaces = self._first_namespaces, ()
        for name in names:
            self.create(NAMESPACES, {"metadata": {"name": name}})

    def _stored(self, resource: Resource, name: str, namespace: str) -> Object:
        self._setup()
        found = self._objects[resource].get((namespace if resource.namespaced else "", name))
        if found is None:
            raise StatusError(404, "NotFound", f'{resource.plural} "{name}" not found')
        return found

    def _check_new(self, resource: Resource, item: Object, namespace: str) -> None:
        metadata = item["metadata"]
        name = metadata.get("name", "")
        if not NAME.fullmatch(name):
            raise invalid(resource, item, "metadata.name: Invalid value: a lowercase RFC 1123 subdomain is needed")
        if metadata.get("resourceVersion"):
            raise StatusError(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if item.get("kind", resource.kind) != resource.kind:
            raise StatusError(400, "BadRequest", f"the object is no {resource.kind}")
        if resource.namespaced:
            if metadata.get("namespace", namespace) != namespace:
                raise StatusError(400, "BadRequest", "the namespace of the object does not match the request")
            home = self._objects[NAMESPACES].get(("", namespace))
            if home is None:
                raise StatusError(404, "NotFound", f'namespaces "{namespace}" not found')
            if "deletionTimestamp" in home["metadata"]:
                raise StatusError(403, "Forbidden", f"namespace {namespace} is being terminated")
        if (namespace if resource.namespaced else "", name) in self._objects[resource]:
            raise StatusError(409, "AlreadyExists", f'{resource.plural} "{name}" already exists')

    def _check_preconditions(self, resource: Resource, old: Object, uid: str | None, version: str | None) -> None:
        metadata = old["metadata"]
        what = f'Operation cannot be fulfilled on {resource.plural} "{metadata["name"]}": '
        if uid is not None and uid != metadata["uid"]:
            raise StatusError(409, "Conflict", what + f"the UID in the precondition ({uid}) is not {metadata['uid']}")
        if version is not None and version != metadata["resourceVersion"]:
            raise StatusError(409, "Conflict", what + "the object has been modified; please apply your changes to it")

    @staticmethod
    def _grace(resource: Resource, old: Object, asked: int | None) -> int:
        # A pod that has no node, or has ended, has nobody to stop: it goes at once.
        if resource != PODS or not old["spec"].get("nodeName") or old["status"]["phase"] in ("Succeeded", "Failed"):
            return 0
        return int(old["spec"]["terminationGracePeriodSeconds"]) if asked is None else asked

    def _store(self, resource: Resource, old: Object, new: Object) -> Object:
        """Checks and keeps a changed object; a write that changes nothing makes no version and no event."""
        new = judged(resource, new, old, ratchets=self.ratchets)
        if unknown := self.unknown.get(resource):
            new = new | {"status": pruned(new.get("status", {}), unknown)}
        metadata = new["metadata"] = dict(new["metadata"])
        fixed = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
        for key in (*fixed, "resourceVersion"):
            metadata.pop(key, None)
            if key in old["metadata"]:
                metadata[key] = old["metadata"][key]
        if resource == PODS:
            check_pod_change(new, old)
        self._owners(resource, new)
        if "deletionTimestamp" in metadata and set(metadata.get("finalizers") or ()) - set(
            old["metadata"].get("finalizers") or ()
        ):
            raise invalid(resource, new, "metadata.finalizers: Forbidden: no new finalizers while being deleted")
        if new == old:
            same: Object = copied(old)
            return same
        outside = ("metadata", "status")
        if any(new.get(key) != old.get(key) for key in {*new, *old} if key not in outside):
            metadata["generation"] = old["metadata"]["generation"] + 1
        if metadata.get("deletionGracePeriodSeconds") == 0 and not metadata.get("finalizers"):
            self._remove(resource, new)
            return new
        stored: Object = copied(self._commit(resource, old, new))
        return stored

    def _owners(self, resource: Resource, item: Object) -> list[str]:
        """The uids of an object's owners, noted for the garbage collector (which looks again before it acts)."""
        owners = [owner["uid"] for owner in item["metadata"].get("ownerReferences") or ()]
        for owner in owners:
            self._owned[owner].add((resource, _key(item)))
        return owners

    def _commit(self, resource: Resource, old: Object | None, new: Object, *, deleted: bool = False) -> Object:
        version = max(self.watches.version, 1) + 1
        new = new | {"metadata": new["metadata"] | {"resourceVersion": str(version)}}
        if deleted:
            del self._objects[resource][_key(new)]
        else:
            self._objects[resource][_key(new)] = new
        change = Change(version, resource, old, new, deleted)
        self.watches.publish(change)
        for kind, listener in self._listeners:
            if kind == resource:
                listener(change)
        return new

    def _remove(self, resource: Resource, old: Object) -> None:
        uid, key = old["metadata"]["uid"], _key(old)
        self._commit(resource, self._objects[resource][key], old, deleted=True)
        self._uids.discard(uid)
        for owner in old["metadata"].get("ownerReferences") or ():
            self._owned[owner["uid"]].discard((resource, key))
        if self._owned.get(uid):
            self._later(self.gc_delay, self._collect, uid)
        if resource == NAMESPACES:
            for kind, objects in self._objects.items():
                inside = [key for key in objects if kind.namespaced and key[0] == old["metadata"]["name"]]
                for namespace, name in inside:
                    self.delete(kind, name, namespace=namespace, grace_seconds=0)

    def _collect(self, owner: str) -> None:
        """The garbage collector: what has no owner left goes the ordinary way, in the background."""
        for resource, key in sorted(self._owned.pop(owner, set()), key=lambda entry: entry[1]):
            item = self._objects[resource].get(key)
            if item is None:
                continue
            owners = item["metadata"].get("ownerReferences") or []
            if owner not in [entry["uid"] for entry in owners]:
                continue
            if any(entry["uid"] in self._uids for entry in owners):
                rest = [entry for entry in owners if entry["uid"] in self._uids]
                self.change(resource, key, lambda item, rest=rest: item["metadata"].update(ownerReferences=rest))  # type: ignore[misc]
            else:
                self.delete(resource, key[1], namespace=key[0])

    def _later(self, delay: float, action: Callable[[str], None], argument: str) -> None:
        def run() -> None:
            self._timers.discard(handle)
            action(argument)

        handle = asyncio.get_running_loop().call_later(delay, run)
        self._timers.add(handle)


def _key(item: Object) -> Key:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
