"""Whether an engine that is made to be lent (spec.share) is given to askers: the operator's part of the rule.

Decided when the engine is accepted and written to its status. Its spec, and what its pod was made of, are asked again
at each pass: a yes may become a no, a no stays no, because the pod keeps what it was made of. Who may borrow it, by the
plugin as it is then, is the gateway's part. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linkis_ecm.engine.admission import in_force
from linkis_ecm.engine.decision import Snapshot
from linkis_ecm.engine.pending import NOTHING
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.model.engineconn import EngineConnSpec, Share
from linkis_ecm.model.plugin import EngineConnPluginSpec

# What gives an engine something that only its owner may have; by their names in the API.
_OWN = ("env", "volumes", "podTemplate", "workingDir", "resources")


def written(s: Snapshot) -> dict[str, Any]:
    """The status's field `share`; nothing for an engine that nobody means to lend, and for one without a spec."""
    if s.engine.spec is None or s.engine.spec.share is None:
        return {}
    before = s.engine.status.get("share")
    if isinstance(before, Mapping) and before.get("shared") is not True:
        return {"share": {"shared": False, "message": str(before.get("message") or "")[:1024]}}
    why = _refusal(s, s.engine.spec.share, is_accepted=isinstance(before, Mapping))
    if why:
        return {"share": {"shared": False, "message": why}}
    # As it is written, whatever else stands there: nothing is to be changed.
    return {"share": dict(before) if isinstance(before, Mapping) else {"shared": True}}


def _refusal(s: Snapshot, share: Share, *, is_accepted: bool) -> str:
    """Why the engine is given to nobody, as a sentence; "" where it is. `is_accepted`: it was, when it was accepted."""
    engine, plugin = s.engine, s.plugin
    if not is_accepted:
        if engine.owner:
            return "It was accepted by an operator that shares no engines."
        if in_force.checked(engine, s.policies) is None:
            return "No admission policy is in force that asks its author for the right to the user and the group."
        if plugin is None:
            return "Its EngineConnPlugin is not there."
        if why := _other_plugin(plugin.spec, share, engine.spec.user if engine.spec is not None else ""):
            return why
    if engine.spec is not None and (own := _own(engine.spec) or _pods_own(s.pod)):
        return f"It has {', '.join(own)} of its own: a shared engine has what its plugin gives all of them."
    if not launch.has_agent(launch.of(engine, plugin, s.pod)):
        return "It is a process: nobody gives it a new kernel for each user."
    return ""


def _own(spec: EngineConnSpec) -> list[str]:
    body = spec.model_dump(by_alias=True, exclude_none=True)
    found = [name for name in _OWN if body.get(name)]
    return [*found, "mode once"] if spec.mode == "once" else found


def _pods_own(pod: PodView | None) -> list[str]:
    """What the pod was made with, which the spec may have lost since: while the pod was made, or before an operator
    that has ended wrote the first status."""
    made_from = pod.made_from if pod is not None else {}
    return [name for name in _OWN if made_from.get(name, NOTHING) != NOTHING]


def _other_plugin(plugin: EngineConnPluginSpec, share: Share, user: str) -> str:
    if plugin.share != share.level:
        return f"Its plugin has share: {plugin.share}, and it was made for {share.level}."
    if plugin.share_as != user:
        return f"Its plugin's shareAs is {plugin.share_as}, and it belongs to {user}."
    if share.group is not None and share.group not in (plugin.share_groups or ()):
        return f"Its plugin's shareGroups do not have {share.group}."
    return ""
