"""Feeds the caches from the API server by kube's reflectors. Must not be imported where no cluster is needed: slow."""

from __future__ import annotations

from functools import partial

from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.view import KnownEngine, PluginView, plugin_of, view_of
from linkis_ecm.kube.client import ApiError, KubeClient
from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS


class Feeds:
    """The reflectors that keep both caches: one for each watched namespace, one for the catalogue."""

    def __init__(
        self, client: KubeClient, *, engines: EngineCache, plugins: PluginCache, namespaces: tuple[str, ...]
    ) -> None:
        self._waiting = {*(namespaces or ("",))}
        self._engines = engines
        self.reflectors: list[Reflector[KnownEngine] | Reflector[PluginView]] = [
            Reflector(
                client,
                ENGINECONNS,
                transform=view_of,
                on_event=engines.on_event,
                on_synced=partial(self._listed, namespace),
                # One that is gone or forbidden does not close the gateway for the others.
                on_denied=partial(self._denied, namespace) if namespace else None,
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

    def _denied(self, namespace: str, _error: ApiError) -> None:
        self._listed(namespace)

    def _listed(self, namespace: str) -> None:
        self._waiting.discard(namespace)
        self._engines.synced = not self._waiting
