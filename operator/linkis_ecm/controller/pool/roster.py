"""Which pods are members of this installation's warm pools: the one rule for all who read the cache's members.

A label says which installation a pod is for, and anybody can write it. Who made a pod is known by the API server's
answer to this process's create, and by the seal (`engine.warm.seals`). Must not write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from linkis_ecm.controller.pool.templates import Templates
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.admission.ownership import Ownership
from linkis_ecm.engine.pod_view import PodView


class Roster:
    """Over the cache."""

    def __init__(
        self,
        *,
        cache: Cache,
        ownership: Ownership,
        templates: Templates,
        serves: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """`serves(namespace)`: whether no other shard of the installation has its pools now."""
        self._cache = cache
        self._ownership = ownership
        self._templates = templates
        self._serves = serves

    def members(self, namespace: str, pool: str) -> tuple[PodView, ...]:
        """The pods of a pool in a namespace by their labels, by name. Some may be of another maker: `AsMade.fault_of`
        finds them, and they are deleted."""
        return tuple(pod for pod in self._cache.members(namespace, pool) if not self._ownership.is_foreign_pod(pod))

    def by_namespace(self, pool: str) -> dict[str, tuple[PodView, ...]]:
        """The same of all namespaces that have any."""
        namespaces = [space for space, name in self._cache.pools() if name == pool and self._serves(space)]
        return {namespace: own for namespace in namespaces if (own := self.members(namespace, pool))}

    def nodes(self, members: Mapping[str, Sequence[PodView]]) -> set[str]:
        """Of members that are known: whoever labels pods writes any names into them."""
        known = (pod for pods in members.values() for pod in pods if not pod.deleting and self._templates.is_known(pod))
        return {pod.node for pod in known}

    def is_there(self, pod: PodView) -> bool:
        """Whether the cache has it as a member of any pool, whoever made it."""
        return self._cache.member(pod.namespace, pod.uid) is not None

    def member(self, namespace: str, uid: str) -> PodView | None:
        """The pod of that uid, if it is a member that this operator, or one before it, made: its agent may enrol."""
        pod = self._cache.member(namespace, uid)
        if pod is None or self._ownership.is_foreign_pod(pod) or not self._templates.is_known(pod):
            return None
        return pod
