"""What a plugin gave an engine when its pod was made: timeouts, restart policy, sizes.

It is kept in the engine's status, so that a plugin that is changed or deleted changes no live engine. A pod that is
made later takes the plugin as it is then. Pure. Must not hold what the pod itself has, such as image and environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from linkis_ecm.engine.view import EngineView, PluginView
from linkis_ecm.model.amounts import STORED
from linkis_ecm.model.engine_status import FromPlugin
from linkis_ecm.model.plugin import EngineConnPluginSpec

# Fields of the plugin's spec by their names in the API.
_FIELDS = (
    "idleTimeout", "maxLifetime", "startTimeout", "stopGrace", "ttlAfterFinished", "restartPolicy", "defaultResources",
    "memoryRequestPercent", "doNotDisrupt",
)  # fmt: skip
# Which of the kept fields an engine may replace.
_OVERRIDABLE = ("idleTimeout", "maxLifetime")


def written(plugin: PluginView) -> dict[str, Any]:
    """For `status.fromPlugin`."""
    body = plugin.body
    free = [field for field in plugin.spec.overridable or [] if field in _OVERRIDABLE]
    return {"name": plugin.name, "overridable": free} | {field: body[field] for field in _FIELDS if field in body}


def kept(engine: EngineView, plugin: PluginView | None) -> PluginView | None:
    """The plugin with what it gave the engine's pod, also where it is gone; as it is where the engine has no pod."""
    given = engine.status.get("fromPlugin")
    if not isinstance(given, Mapping) or not engine.text("podName"):
        return plugin
    if plugin is not None and written(plugin) == given:
        return plugin
    try:
        parsed = FromPlugin.model_validate(given).model_dump(by_alias=True, exclude_none=True)
        # What a pod is made of is not here, and none is made while the engine has one.
        frame = {
            "engineType": engine.text("engineType"), "engineVersion": engine.text("engineVersion"), "image": "-",
            "runTypes": ["gone"],
        }  # fmt: skip
        base = plugin.body if plugin is not None else frame
        # Bounds of later do not count for what was given before.
        now = {key: value for key, value in base.items() if key not in (*_FIELDS, "maxResources")}
        name = parsed.pop("name", "")
        spec = EngineConnPluginSpec.model_validate(now | parsed, context=STORED)
    except ValidationError:
        return plugin  # edited by hand
    return PluginView(name, plugin.version if plugin is not None else 0, spec)
