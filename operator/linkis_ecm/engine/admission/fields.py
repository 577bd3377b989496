"""Whether an admission policy, or its binding, is as the chart wrote it, or as another release's chart did.

The chart gives a digest of each field of a spec to the operator, and to the object as an annotation. Who changes a
policy in place leaves the annotation; an upgrade and a rollback bring another one, which fits the spec that comes with
it. The chart's digests are of JSON as Helm writes it (helm/linkis-ecm/templates/_admission.tpl). Pure. Must not decide
what becomes of engines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

ANNOTATION = "linkis.apache.org/fields"
# What the API server writes into these fields where the chart's text says nothing.
_WITH_DEFAULTS = ("matchConstraints", "matchResources")
_RULES = ("resourceRules", "excludeResourceRules")


@dataclass(frozen=True, slots=True)
class Difference:
    """`fields`: the names of those that differ from what the chart gave, in words; "" if none does.

    `other_release`: another chart wrote it so, this release's before or after an upgrade.
    """

    fields: str = ""
    other_release: bool = False


def difference(wanted: Set[str], found: Mapping[str, Any]) -> Difference:
    """Between a policy or a binding and the fields that the chart gave, each as FIELD=DIGEST."""
    live = fields(found.get("spec") or {})
    if live == wanted:
        return Difference()
    names = sorted({one.partition("=")[0] for one in live ^ wanted})
    said = ((found.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION)
    # A chart of before this annotation wrote none.
    other = said is None or wanted != set(said.split(",")) == live
    return Difference(", ".join(f"spec.{name}" for name in names), other)


def fields(spec: Mapping[str, Any]) -> frozenset[str]:
    """FIELD=DIGEST of each that says something."""
    return frozenset(f"{name}={_digest(value)}" for name, value in _as_written(spec).items())


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _as_written(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec without what the API server has added."""
    written = {name: _match(value) if name in _WITH_DEFAULTS else value for name, value in spec.items()}
    return {name: value for name, value in written.items() if value not in (None, {}, [])}


def _match(value: Mapping[str, Any]) -> dict[str, Any]:
    written = {name: [_rule(rule) for rule in part] if name in _RULES else part for name, part in value.items() if part}
    return {name: part for name, part in written.items() if (name, part) != ("matchPolicy", "Equivalent")}


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in rule.items() if (name, part) != ("scope", "*")}
