"""Whether an engine's author was asked for his rights: the admission policies were there when its spec was written.

A policy is asked when an EngineConn comes in, and never about what came in while it was not there. So an engine gets no
pod before this is known. Two facts are used that no author can write: the creation times that the API server gives, and
`status.admission`, which only the operator writes. Times in managedFields are not used: whoever may update an object
may write them. Pure. Must not read the policies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine.by_identity import ByIdentity
from linkis_ecm.engine.view import EngineView
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import EngineConnSpec
from linkis_ecm.model.states import FINAL

# After its creation a policy is not asked at once. The API server reads policies and bindings anew once a second
# (policyRefreshInterval of k8s.io/apiserver), creation times are whole seconds, and each of several API servers learns
# of an object by a watch of its own: 1 + 1 s, and 3 s for the watch.
MARGIN = timedelta(seconds=5)
# How far this process's clock may be before that of the API server.
SKEW = timedelta(seconds=1)
# What the chart's policies ask about (helm/linkis-ecm/templates/admission.yaml), by the spec's names in the API.
ASKED = ("user", "env", "volumes", "podTemplate")
# The same, of few engines: left out where it is absent, so that digests of before it was asked about stay the same.
ASKED_IF_THERE = ("share",)


@dataclass(frozen=True, slots=True)
class InForce:
    """The policies as the API server has them. `missing`: what is wrong with them, in words; "" if all are in force.

    `since` is when the youngest of their specs was written, `identity` changes with each of them.
    """

    missing: str = ""
    since: datetime | None = None
    identity: str = ""


def too_young(policies: InForce | None, now: datetime) -> str:
    """Why an engine that is made `now` would be refused though the policies are there; "" if it would not be."""
    if policies is None or policies.missing or policies.since is None or now >= policies.since + MARGIN + SKEW:
        return ""
    return f"the admission policies are there since {policies.since:%H:%M:%S} (UTC) and count after {MARGIN.seconds} s"


def digest(engine: EngineView) -> str:
    """Of what the policies ask about; "" for a spec that cannot be read."""
    return _known_digests(engine.spec) if engine.spec is not None else ""


def _digest(spec: EngineConnSpec) -> str:
    body = spec.model_dump(by_alias=True, exclude_none=True, mode="json")
    of_few = {name: body[name] for name in ASKED_IF_THERE if name in body}
    asked = json.dumps({name: body.get(name) for name in ASKED} | of_few, sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:32]


_known_digests = ByIdentity(_digest)


def must_be_read(engine: EngineView) -> bool:
    """Whether the engine's next pod depends on the policies as they are now."""
    if engine.state in FINAL or engine.spec is None or engine.stop_requested:
        return False
    kept = _kept(engine)
    return not engine.owner or (kept is not None and kept.get("spec") != digest(engine))


def refusal(engine: EngineView, policies: InForce | None) -> str:
    """Why the engine gets no pod, as the end of a sentence; "" if it may have one. None: no policies are asked for.

    `policies` were read after the engine's spec was seen. A policy that was made before the spec was written, and is
    there afterwards, was there in between.
    """
    if policies is None:
        return ""
    kept = _kept(engine)
    if kept is not None:
        if kept.get("spec") == digest(engine):
            return ""
        if policies.missing:
            return f"Its spec was changed, and {policies.missing}."
        if kept.get("policies") == policies.identity:
            return ""
        return "Its user, variables, volumes or pod template were changed, maybe before the policies were made again."
    if engine.owner:
        # An earlier release of this installation has accepted it, or this one while no policies were wanted.
        return ""
    if policies.missing:
        return f"Now {policies.missing}."
    if policies.since is None or engine.created < policies.since + MARGIN:
        made = f"{policies.since:%H:%M:%S}" if policies.since is not None else "an unknown time"
        return f"It was made at {engine.created:%H:%M:%S}, and the policies at {made} (UTC)."
    return ""


def checked(engine: EngineView, policies: InForce | None) -> dict[str, Any] | None:
    """What `status.admission` is to be: the spec that was found in order last, and by which policies."""
    kept = _kept(engine)
    if policies is None or policies.missing or not policies.identity or engine.spec is None:
        return dict(kept) if kept is not None else None
    if refusal(engine, policies) or engine.text("reason") == reasons.NOT_ADMITTED.name:
        return dict(kept) if kept is not None else None
    return {"spec": digest(engine), "policies": policies.identity}


def _kept(engine: EngineView) -> Mapping[str, Any] | None:
    found = engine.status.get("admission")
    return found if isinstance(found, Mapping) else None
