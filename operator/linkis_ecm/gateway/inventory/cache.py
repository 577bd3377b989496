"""The gateway's cache of the cluster: engines and plugins, kept current by reflectors and read without I/O.

Each change of an engine calls its listeners, so nothing has to poll. A feed (kube's Reflector) calls `on_event` from
the event loop's thread and sets `synced` after its first list. Must not talk to Kubernetes itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from linkis_ecm.engine.admission.plugin_choice import choose_plugin
from linkis_ecm.gateway.inventory.view import Key, KnownEngine, PluginView

Listener = Callable[[KnownEngine | None], None]
Observer = Callable[[Key, KnownEngine | None], None]
Kind = Literal["ADDED", "MODIFIED", "DELETED"]


class EngineCache:
    """Engines by namespace and name, by uid, by ticket and by service instance."""

    def __init__(self) -> None:
        self.synced = False
        self._engines: dict[Key, KnownEngine] = {}
        # Uid, ticket or service instance → keys of the engines that have it. Several only if a ticket was used twice.
        self._ids: dict[str, set[Key]] = {}
        self._listeners: dict[Key, set[Listener]] = {}
        self._observers: list[Observer] = []

    def __len__(self) -> int:
        return len(self._engines)

    def __iter__(self) -> Iterator[KnownEngine]:
        return iter(tuple(self._engines.values()))

    def keys(self) -> tuple[Key, ...]:
        """The namespace and name of each engine; the same objects at each call, so that keeping one costs little."""
        return tuple(self._engines)

    def get(self, key: Key) -> KnownEngine | None:
        """The engine with this namespace and name."""
        return self._engines.get(key)

    def resolve(self, engine_id: str) -> KnownEngine | None:
        """The engine of `namespace/name`, a uid, a ticket id or a service instance (host:port)."""
        namespace, slash, name = engine_id.partition("/")
        if slash:
            return self._engines.get((namespace, name))
        # A uid is Kubernetes's, and a ticket the author's: nobody takes over an engine by its uid as his ticket. Then
        # as the operator: the accepted engine wins, then the oldest. Creation times have whole seconds, and the
        # operator refuses one of two.
        found = (self._engines[key] for key in self._ids.get(engine_id, ()))
        return min(
            found,
            key=lambda v: (v.uid != engine_id, v.is_refused, v.is_ticket_unproven, v.created, v.uid),
            default=None,
        )

    @contextmanager
    def listen(self, key: Key, listener: Listener) -> Iterator[None]:
        """Within the block, call `listener` with each new view of the engine, and with None when it is deleted."""
        listeners = self._listeners.setdefault(key, set())
        listeners.add(listener)
        try:
            yield
        finally:
            listeners.discard(listener)
            if not listeners and self._listeners.get(key) is listeners:
                del self._listeners[key]

    def observe(self, observer: Observer) -> None:
        """Call `observer` with each change of any engine from now on; None when it is deleted."""
        self._observers.append(observer)

    def on_event(self, kind: Kind, view: KnownEngine) -> None:
        """Take a change over."""
        if kind == "DELETED":
            self._remove(view.key)
        else:
            self._put(view)

    def update_if_newer(self, view: KnownEngine) -> None:
        """Apply the answer to one of our own writes, if it is newer than the cached view.

        An engine that the feed has not added, or has removed, stays unknown.
        """
        known = self._engines.get(view.key)
        if known is not None and known.uid == view.uid and view.version > known.version:
            self._put(view)

    def _put(self, view: KnownEngine) -> None:
        before = self._engines.get(view.key)
        if before == view:
            return
        if before is not None and before.uid != view.uid:
            self._remove(view.key)
            before = None
        if before is not None:
            self._remove_from_index(before)
        self._engines[view.key] = view
        for engine_id in _ids(view):
            self._ids.setdefault(engine_id, set()).add(view.key)
        self._notify(view.key, view)

    def _remove(self, key: Key) -> None:
        view = self._engines.pop(key, None)
        if view is not None:
            self._remove_from_index(view)
            self._notify(key, None)

    def _remove_from_index(self, view: KnownEngine) -> None:
        for engine_id in _ids(view):
            keys = self._ids[engine_id]
            keys.discard(view.key)
            if not keys:
                del self._ids[engine_id]

    def _notify(self, key: Key, view: KnownEngine | None) -> None:
        for observer in self._observers:
            observer(key, view)
        for listener in tuple(self._listeners.get(key, ())):
            listener(view)


def _ids(view: KnownEngine) -> set[str]:
    """The names of an engine besides its namespace and name."""
    return {view.uid, view.ticket_id, view.service_instance}


class PluginCache:
    """The catalogue of engines."""

    def __init__(self) -> None:
        self.synced = False
        self._plugins: dict[str, PluginView] = {}

    def __iter__(self) -> Iterator[PluginView]:
        return iter(tuple(self._plugins.values()))

    def entries_of_type(self, engine_type: str) -> list[PluginView]:
        """The catalogue's entries with this engine type."""
        return [plugin for plugin in self._plugins.values() if plugin.engine_type == engine_type]

    def choose(self, *, engine_type: str, version: str | None) -> PluginView | None:
        """The entry for a new engine of this type and version; without a version, the default entry."""
        return choose_plugin(self._plugins.values(), engine_type=engine_type, version=version)

    def of(self, engine: KnownEngine) -> PluginView | None:
        """The entry that the engine was made from. Its version is known once the operator has accepted it."""
        return choose_plugin(
            self._plugins.values(),
            plugin=engine.plugin,
            engine_type=engine.engine_type,
            version=engine.engine_version,
        )

    def catalogue(self) -> str:
        """The offered types and versions, as a text for refusals."""
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
