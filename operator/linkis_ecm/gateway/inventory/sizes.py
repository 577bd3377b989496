"""How big an engine is: what it asked for, else its plugin's default. Pure."""

from __future__ import annotations

from dataclasses import replace

from linkis_ecm.gateway.inventory.cache import PluginCache
from linkis_ecm.gateway.inventory.view import KnownEngine, extended


def with_sizes(plugins: PluginCache, view: KnownEngine) -> KnownEngine:
    """The view with all its figures."""
    if view.cpu_milli and view.memory_bytes and view.pod_name:
        return view
    plugin = plugins.of(view)
    if plugin is None:
        return view
    return replace(
        view,
        cpu_milli=view.cpu_milli or plugin.cpu_milli,
        memory_bytes=view.memory_bytes or plugin.memory_bytes,
        extended=extended(dict(plugin.extended), dict(view.extended)),
    )
