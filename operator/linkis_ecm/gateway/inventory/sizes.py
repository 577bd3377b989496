"""What an engine has of its plugin: its size where it asked for none, and who may share it. Pure."""

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


def as_candidate(plugins: PluginCache, view: KnownEngine) -> KnownEngine:
    """The view with all that the rule of reuse reads: its size is what its pod has, whatever its spec asks for. The
    plugin's `share` counts as it is now: who narrows it means the engines that run, too."""
    plugin, sized = plugins.of(view), with_sizes(plugins, view)
    cpu, memory = view.pod_cpu_milli or sized.cpu_milli, view.pod_memory_bytes or sized.memory_bytes
    if not view.is_observed:
        # A resize of a moment ago: what it has for certain.
        cpu, memory = min(cpu, sized.cpu_milli), min(memory, sized.memory_bytes)
    # Of devices the status says what the pod has where it says a size at all; else the spec does.
    own = view.pod_extended if view.pod_cpu_milli or view.pod_memory_bytes else sized.extended
    share = plugin.share if plugin is not None else ""
    return replace(sized, cpu_milli=cpu, memory_bytes=memory, extended=own, share=share)
