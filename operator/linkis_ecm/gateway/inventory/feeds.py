"""Feeds the caches from the API server by kube's reflectors. Must not be imported where no cluster is needed: slow."""

from __future__ import annotations

from functools import partial

from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.ecm_state import EcmState, state_of
from linkis_ecm.gateway.inventory.view import KnownEngine, PluginView, plugin_of, view_of
from linkis_ecm.kube.client import ApiError, KubeClient
from linkis_ecm.kube.reflector import RARELY, Reflector
from linkis_ecm.kube.resources import CONFIGMAPS, ENGINECONNS, PLUGINS


class Feeds:
    """The reflectors that keep both caches: one for each watched namespace, one for the catalogue; and one for what an
    admin has set of this ECM, in a ConfigMap of that namespace and name."""

    def __init__(
        self,
        client: KubeClient,
        *,
        engines: EngineCache,
        plugins: PluginCache,
        namespaces: tuple[str, ...],
        configmap: tuple[str, str],
    ) -> None:
        self._waiting = {*(namespaces or ("",))}
        self._engines = engines
        self._configmap = configmap
        self._state = Reflector(
            client, CONFIGMAPS, namespace=configmap[0], field_selector=f"metadata.name={configmap[1]}",
            transform=state_of, on_event=lambda _kind, _state: None, backoff=RARELY,
        )  # fmt: skip
        self.reflectors: list[Reflector[KnownEngine] | Reflector[PluginView] | Reflector[EcmState]] = [
            *self._of_engines(client),
            Reflector(
                client,
                PLUGINS,
                transform=plugin_of,
                on_event=plugins.on_event,
                on_synced=lambda: setattr(plugins, "synced", True),
            ),
            self._state,
        ]

    def ecm_state(self) -> EcmState | None:
        """What an admin has set of this ECM; None where the watch does not say it."""
        return self._state.objects.get(self._configmap, EcmState()) if self._state.is_current else None

    def _of_engines(self, client: KubeClient) -> list[Reflector[KnownEngine]]:
        return [
            Reflector(
                client,
                ENGINECONNS,
                transform=view_of,
                on_event=self._engines.on_event,
                on_synced=partial(self._listed, namespace),
                # One that is gone or forbidden does not close the gateway for the others.
                on_denied=partial(self._denied, namespace) if namespace else None,
                namespace=namespace or None,
            )
            for namespace in sorted(self._waiting)
        ]

    def _denied(self, namespace: str, _error: ApiError) -> None:
        self._listed(namespace)

    def _listed(self, namespace: str) -> None:
        self._waiting.discard(namespace)
        self._engines.synced = not self._waiting
