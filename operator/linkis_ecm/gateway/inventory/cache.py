"""What the gateway knows of the cluster: engines and catalogue, fed by reflectors, asked without a call to anybody.

Each change of an engine wakes those who wait for it; nothing here polls. A feed (kube's Reflector) calls `on_event`
from the event loop's thread and sets `synced` after its first list. Must not talk to Kubernetes itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from linkis_ecm.engine.plugin_choice import choose_plugin
from linkis_ecm.gateway.inventory.view import Key, KnownEngine, PluginView

Listener = Callable[[KnownEngine | None], None]
Kind = Literal["ADDED", "MODIFIED", "DELETED"]


class EngineCache:
    """Engines by namespace and name, by ticket and by service instance."""

    def __init__(self) -> None:
        self.synced = False
        self._engines: dict[Key, KnownEngine] = {}
        # An id of an engine → the engines that carry it. Several only where somebody gave a ticket twice.
        self._ids: dict[str, set[Key]] = {}
        self._listeners: dict[Key, set[Listener]] = {}

    def __len__(self) -> int:
        return len(self._engines)

    def __iter__(self) -> Iterator[KnownEngine]:
        return iter(tuple(self._engines.values()))

    def get(self, key: Key) -> KnownEngine | None:
        """The engine of that namespace and name."""
        return self._engines.get(key)

    def resolve(self, engine_id: str) -> KnownEngine | None:
        """The engine of a ticket id, a service instance (host:port) or `namespace/name`."""
        keys = self._ids.get(engine_id)
        if keys:
            # The first that had a ticket keeps it: nobody takes an engine over by giving its ticket to his own.
            return min((self._engines[key] for key in keys), key=lambda view: (view.created, view.uid))
        namespace, slash, name = engine_id.partition("/")
        return self._engines.get((namespace, name)) if slash else None

    @contextmanager
    def listen(self, key: Key, listener: Listener) -> Iterator[None]:
        """Call `listener` with each new view of that engine, None when it is deleted, while the block runs."""
        listeners = self._listeners.setdefault(key, set())
        listeners.add(listener)
        try:
            yield
        finally:
            listeners.discard(listener)
            if not listeners and self._listeners.get(key) is listeners:
                del self._listeners[key]

    def on_event(self, kind: Kind, view: KnownEngine) -> None:
        """Take a change over."""
        if kind == "DELETED":
            self._forget(view.key)
        else:
            self._put(view)

    def learn(self, view: KnownEngine) -> None:
        """Take over what a call of our own was answered, where it is newer than what the feed has told.

        A hint only: an engine that the feed does not know, or has dropped, stays unknown.
        """
        known = self._engines.get(view.key)
        if known is not None and known.uid == view.uid and view.version > known.version:
            self._put(view)

    def _put(self, view: KnownEngine) -> None:
        before = self._engines.get(view.key)
        if before == view:
            return
        if before is not None and before.uid != view.uid:
            self._forget(view.key)
            before = None
        if before is not None:
            self._unindex(before)
        self._engines[view.key] = view
        for engine_id in (view.ticket_id, view.service_instance):
            self._ids.setdefault(engine_id, set()).add(view.key)
        self._notify(view.key, view)

    def _forget(self, key: Key) -> None:
        view = self._engines.pop(key, None)
        if view is not None:
            self._unindex(view)
            self._notify(key, None)

    def _unindex(self, view: KnownEngine) -> None:
        for engine_id in {view.ticket_id, view.service_instance}:
            keys = self._ids[engine_id]
            keys.discard(view.key)
            if not keys:
                del self._ids[engine_id]

    def _notify(self, key: Key, view: KnownEngine | None) -> None:
        for listener in tuple(self._listeners.get(key, ())):
            listener(view)


class PluginCache:
    """The catalogue of engines."""

    def __init__(self) -> None:
        self.synced = False
        self._plugins: dict[str, PluginView] = {}

    def __iter__(self) -> Iterator[PluginView]:
        return iter(tuple(self._plugins.values()))

    def offered(self, engine_type: str) -> list[PluginView]:
        """The entries of that type."""
        return [plugin for plugin in self._plugins.values() if plugin.engine_type == engine_type]

    def choose(self, *, engine_type: str, version: str | None) -> PluginView | None:
        """The entry that an engine of that type and version would be made of; without a version, the default."""
        return choose_plugin(self._plugins.values(), engine_type=engine_type, version=version)

    def of(self, engine: KnownEngine) -> PluginView | None:
        """The entry that the engine was made of; its version is known once the operator has accepted it."""
        return choose_plugin(
            self._plugins.values(),
            plugin=engine.plugin,
            engine_type=engine.engine_type,
            version=engine.engine_version,
        )

    def catalogue(self) -> str:
        """What is offered, in words for a refusal."""
        entries = sorted({f"{plugin.engine_type} {plugin.engine_version}" for plugin in self._plugins.values()})
        return ", ".join(entries[:20]) or "nothing yet"

    def types(self) -> list[str]:
        """The engine types that are offered."""
        return sorted({plugin.engine_type for plugin in self._plugins.values()})

    def on_event(self, kind: Kind, plugin: PluginView) -> None:
        """Take a change over."""
        if kind == "DELETED":
            self._plugins.pop(plugin.name, None)
        else:
            self._plugins[plugin.name] = plugin
