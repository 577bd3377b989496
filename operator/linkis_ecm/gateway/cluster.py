"""What the gateway asks of the API server, and how its caches are fed.

`Cluster` is the part of kube's client that endpoints use; tests hand in another. Must not keep anything: what the
cluster looks like stands in `gateway.caches`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from linkis_ecm.gateway.caches import EngineCache, PluginCache
from linkis_ecm.gateway.views import EngineView, PluginView, plugin_of, view_of
from linkis_ecm.kube.client import KubeClient
from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS, Resource


class Cluster(Protocol):
    """Writing and reading single objects. Raises kube's ApiError."""

    async def create(
        self, resource: Resource, body: dict[str, Any], *, namespace: str | None = None
    ) -> dict[str, Any]: ...

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> dict[str, Any]: ...

    async def patch(
        self, resource: Resource, name: str, body: dict[str, Any], *, namespace: str | None = None
    ) -> dict[str, Any]: ...


class Feeds:
    """The reflectors that keep both caches: one for each watched namespace, one for the catalogue."""

    def __init__(
        self, client: KubeClient, *, engines: EngineCache, plugins: PluginCache, namespaces: tuple[str, ...]
    ) -> None:
        self._waiting = {*(namespaces or ("",))}
        self._engines = engines
        self.reflectors: list[Reflector[EngineView] | Reflector[PluginView]] = [
            Reflector(
                client,
                ENGINECONNS,
                transform=view_of,
                on_event=engines.on_event,
                on_synced=partial(self._listed, namespace),
                namespace=namespace or None,
            )
            for namespace in sorted(self._waiting)
        ]
        self.reflectors.append(
            Reflector(
                client,
                PLUGINS,
                transform=plugin_of,
                on_event=plugins.on_event,
                on_synced=lambda: setattr(plugins, "synced", True),
            )
        )

    def _listed(self, namespace: str) -> None:
        self._waiting.discard(namespace)
        self._engines.synced = not self._waiting
