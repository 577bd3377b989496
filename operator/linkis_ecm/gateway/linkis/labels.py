"""What the labels of an asker mean for the choice of a running engine, and for a new one. Pure.

Linkis (LabelKeyConstant, DefaultEngineReuseService, DefaultNodeLabelScorer): an engine must have each label of an asker
that is of an engine and whose feature is CORE; others of an engine make it the better choice; labels of a job or of the
entrance take no part; `executeOnce` and `reuseExclusion` keep engines out. A new engine gets the labels that were asked
for, so the next asker finds it. Must not know engines.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linkis_ecm.api.models import LABEL_NAME_PATTERN, LABEL_VALUE_PATTERN
from linkis_ecm.engine.matching import EXECUTE_ONCE
from linkis_ecm.gateway.http.errors import bad_request, shown

_USER_CREATOR, _ENGINE_TYPE, _MODE, _TENANT, _EXCLUSION = (
    "userCreator", "engineType", "engineConnMode", "tenant", "reuseExclusion",
)  # fmt: skip
# Labels of an engine without the feature CORE: an engine that has them is preferred.
_PREFERRED = frozenset({"concurrentEngineConn", "engineBaseInfo", "taskId"})
# Labels of Linkis that are of jobs, of the entrance, of an ECM or of one instance: no engine is chosen by them.
_NO_PART = frozenset({
    "bindEngine", "cache", "codeType", "ec.conf.templateId", "ec.resource.name", "emInstance", "engineInstance",
    "envType", "jobQueuingTimeout", "jobRetryCount", "jobRetryTimeout", "jobRunningTimeout", "loadBalance", "manager",
    "route", "serverAlias",
})  # fmt: skip
# Read by their own rules, below or in linkis/engines.py.
_OWN_RULE = frozenset({_USER_CREATOR, _ENGINE_TYPE, _TENANT, _EXCLUSION})
# In Linkis's order of their parts, for a label that a client writes as an object.
_PARTS = {"yarnCluster": ("clusterType", "clusterName")}
_SESSION_MODE = "computation"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedLabels:
    """The labels of one asker. `required` and `preferred` are labels of a resource: names without a prefix and values
    as Kubernetes takes them. `excluded`: service instances in lower case. `new_wanted` names the label that asks for a
    new engine; empty where a running one will do."""

    required: Mapping[str, str] = field(default_factory=dict)
    preferred: Mapping[str, str] = field(default_factory=dict)
    tenant: str = ""
    excluded: frozenset[str] = frozenset()
    new_wanted: str = ""

    def of_a_new_engine(self) -> dict[str, str]:
        """What a new engine is labelled with."""
        return {**self.preferred, **self.required}


def read_labels(labels: Mapping[str, Any]) -> AskedLabels:
    """The labels of a request to Linkis. Raises Refused for a name that is no label's."""
    required: dict[str, str] = {}
    preferred: dict[str, str] = {}
    for name, label in labels.items():
        text = text_of(name, label)
        if name in _OWN_RULE or name in _NO_PART or (name == _MODE and text.lower() in ("", _SESSION_MODE)):
            continue
        if not re.fullmatch(LABEL_NAME_PATTERN, name):
            raise bad_request(
                f"Label {shown(name, 64)!r}: write its name with letters, digits, '-', '_' and '.', 63 at most"
            )
        if name in _PREFERRED:
            preferred[name] = label_value(text)
        elif text or name == EXECUTE_ONCE:
            required[name] = label_value(text)
    excluded = frozenset(one.strip().lower() for one in text_of(_EXCLUSION, labels.get(_EXCLUSION)).split(";")) - {""}
    new_wanted = f"label {EXECUTE_ONCE}" if EXECUTE_ONCE in required else ""
    if excluded == {"*"}:
        new_wanted = new_wanted or f"label {_EXCLUSION}"
    return AskedLabels(
        required=required,
        preferred=preferred,
        tenant=text_of(_TENANT, labels.get(_TENANT)),
        excluded=excluded,
        new_wanted=new_wanted,
    )


def text_of(name: str, label: Any) -> str:
    """A label's value, however the client writes it: text, {"stringValue"}, or its parts. Empty for none."""
    if isinstance(label, Mapping):
        if whole := _plain(label.get("stringValue")):
            return whole
        parts = [label.get(part) for part in _PARTS[name]] if name in _PARTS else label.values()
        return "-".join(filter(None, map(_plain, parts)))
    return _plain(label)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).strip() if isinstance(value, str | int | float) else ""


def label_value(text: str) -> str:
    """The text as a value of a Kubernetes label: itself, or a hash of it where Kubernetes does not take it."""
    if re.fullmatch(LABEL_VALUE_PATTERN, text):
        return text
    return f"sha256-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:48]}"
