"""How big an engine is: what it asked for, else its plugin's default. Pure."""

from __future__ import annotations

from dataclasses import replace

from linkis_ecm.gateway.inventory.cache import PluginCache
from linkis_ecm.gateway.inventory.view import KnownEngine


def with_sizes(plugins: PluginCache, view: KnownEngine) -> KnownEngine:
    """The view with both of its figures."""
    if view.cpu_milli and view.memory_bytes:
        return view
    plugin = plugins.of(view)
    if plugin is None:
        return view
    return replace(
        view,
        cpu_milli=view.cpu_milli or plugin.cpu_milli,
        memory_bytes=view.memory_bytes or plugin.memory_bytes,
    )
