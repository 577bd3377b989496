"""Brings what the API server says of engines, plugins and pods into the cache, and says who has to look at it.

Reflectors for what is of listed namespaces; kopf calls `on_event` for the rest. Must not decide or write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from linkis_ecm.controller.pool.pools import WarmPools
from linkis_ecm.controller.reconciler import Reconciler
from linkis_ecm.controller.selfchecks.namespaces import LIST, POD_WATCH, WATCH, Namespaces, Request
from linkis_ecm.controller.selfchecks.orphans import OrphanPods
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.names import POD_SELECTOR
from linkis_ecm.engine.pod_view import PodView, pod_view
from linkis_ecm.kube.client import KubeClient
from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import ENGINECONNS, PODS, Resource


class Watches:
    """Run each of `reflectors` until cancelled. `synced` is True once pods were listed."""

    def __init__(
        self,
        *,
        client: KubeClient,
        namespaces: Sequence[str],
        cache: Cache,
        reconciler: Reconciler,
        orphans: OrphanPods,
        pools: WarmPools,
        served: Namespaces,
        on_plugin: Callable[[str], None],
    ) -> None:
        """`namespaces` are those that are watched; empty: all. `on_plugin(name)`: that plugin's spec has changed."""
        self._cache = cache
        self._reconciler = reconciler
        self._orphans = orphans
        self._pools = pools
        self._served = served
        self._on_plugin = on_plugin
        self.synced = False
        # Of each listed namespace its own, which goes on while that namespace is gone or refused. Where none is listed,
        # kopf watches all of the cluster.
        self.engines: list[Reflector[dict[str, Any]]] = [
            Reflector(
                client, ENGINECONNS, namespace=namespace, transform=dict, on_event=self._engine,
                **self._watches(namespace, WATCH, LIST),
            )
            for namespace in namespaces
        ]  # fmt: skip
        self.pods = [
            Reflector(
                client, PODS, namespace=namespace, label_selector=POD_SELECTOR, transform=self._pod_view,
                on_event=self._pod,
                **self._watches(namespace, POD_WATCH),
            )
            for namespace in (namespaces or (None,))
        ]  # fmt: skip

    @property
    def reflectors(self) -> list[Reflector[Any]]:
        """All of them."""
        return [*self.engines, *self.pods]

    def on_event(self, resource: Resource, deleted: bool, body: dict[str, Any]) -> None:
        """An event of an EngineConn or an EngineConnPlugin."""
        meta = body["metadata"]
        if resource is ENGINECONNS:
            key = (meta["namespace"], meta["name"])
            if deleted:
                gone = self._cache.drop_engine(key, meta["uid"])
                if gone is not None:
                    self._reconciler.engine_deleted(gone)
                    self._orphans.engine_deleted(gone)
            elif self._cache.apply_engine(body):
                self._reconciler.enqueue(key)
            return
        changed = self._cache.drop_plugin(meta["name"]) if deleted else self._cache.apply_plugin(body)
        # Also where only the status has changed: another installation may have written it.
        self._pools.plugin_changed(meta["name"])
        if changed:
            self._on_plugin(meta["name"])
            # Engines may wait for this plugin. A pass over any other engine makes no call.
            self._reconciler.enqueue_all()

    async def wait_pods_synced(self) -> None:
        """Wait until pods were listed in each watched namespace that is served."""
        for reflector in self.pods:
            await reflector.settled.wait()
        self.synced = True

    def _watches(self, namespace: str | None, refused: Request, *also_served: Request) -> dict[str, Any]:
        """What a reflector of one namespace says of it. Of all namespaces together nothing is known: it waits."""
        if namespace is None:
            return {}
        return {
            "on_denied": partial(self._served.denied, refused, namespace),
            "on_served": partial(self._served.served, (refused, *also_served), namespace),
        }

    def _engine(self, kind: str, body: dict[str, Any]) -> None:
        """An event of an EngineConn. The reflector keeps `body`, so all but its names is taken out of it."""
        self.on_event(ENGINECONNS, kind == "DELETED", dict(body))
        metadata = body["metadata"]
        body.clear()
        body["metadata"] = {name: metadata[name] for name in ("namespace", "name", "uid")}

    def _pod_view(self, body: dict[str, Any]) -> PodView:
        """The view of a pod; the cache's where that has this version, such as of one that we have just made."""
        return self._cache.known_pod(body) or pod_view(body)

    def _pod(self, kind: str, pod: PodView) -> None:
        if kind == "DELETED":
            if self._cache.drop_pod(pod):
                self._reconciler.pod_deleted(pod)
        elif self._cache.apply_pod(pod):
            self._reconciler.pod_changed(pod)
            self._orphans.pod_changed(pod)

    def relist_pods(self) -> None:
        """List all pods again, soon."""
        for reflector in self.pods:
            reflector.request_relist()
