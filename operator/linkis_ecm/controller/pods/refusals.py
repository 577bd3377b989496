"""Turns the API server's refusal of a pod into a reason with the remedy that fits. Pure.

Kubernetes tells its refusals apart by their words alone. The words always stay in the message. Must not call the API.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.kube.errors import ApiError, Forbidden
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import sentences

# Of an engine: where a resource that a quota or a LimitRange names is set.
_FIELDS = {
    "limits.cpu": "spec.resources.cpuLimit", "requests.cpu": "spec.resources.cpu", "cpu": "spec.resources.cpu",
    "limits.memory": "spec.resources.memory", "requests.memory": "spec.resources.memory",
    "memory": "spec.resources.memory",
}  # fmt: skip
_EXTENDED = "spec.resources.extended"
# The same of a pod of a warm pool: fields of the EngineConnPlugin.
_POOL_FIELDS = {
    "spec.resources.cpuLimit": "defaultResources.cpuLimit",
    "spec.resources.cpu": "warmPool.resources.cpu (defaultResources.cpu where that is absent)",
    "spec.resources.memory": "warmPool.resources.memory (defaultResources.memory where that is absent)",
    _EXTENDED: "defaultResources.extended",
}
_UNSPECIFIED = re.compile(r"must specify (.*)", re.DOTALL)
# The LimitRanger's sentences, such as "maximum cpu usage per Container is 200m, but limit is 500m".
_LIMIT_RANGE = re.compile(
    r"(?:maximum|minimum) ([\w./-]+) usage per (?:Container|Pod)"
    # From the name's first character alone: a search from each of them would be quadratic.
    r"|(?<![\w./-])([\w./-]++) max limit to request ratio per"
)
# What the API server says of a request that a LimitRange's default limit has made impossible.
_UNDER_LIMIT = re.compile(r"must be less than or equal to ([\w./-]+) limit")
_WEBHOOK = re.compile(r"failed calling webhook|failed to call webhook")
# A part of a refusal's words, and what helps then.
_REMEDIES: tuple[tuple[str, str], ...] = (
    ("being terminated", "The namespace is being deleted: create the engine in another one."),
    ("cannot create resource", "Give the operator its Role in this namespace: engineNamespaces or clusterWide of the"
     " chart."),
    ("security context constraint", "Let the engines' service account use a SecurityContextConstraint that takes the"
     " user and group 10001, such as nonroot-v2, or let the cluster choose them: securityContext: {} of the"
     " EngineConnPlugin."),
    ("PriorityClass", "Have a cluster admin create that PriorityClass, or correct priorityClassName in the podTemplate"
     " that names it: the engine's, or the EngineConnPlugin's, which is the platform's."),
    ("RuntimeClass", "Have a cluster admin create that RuntimeClass, or correct runtimeClassName in the podTemplate"
     " that names it: the engine's, or the EngineConnPlugin's, which is the platform's."),
)  # fmt: skip
# Of a pool that remedy would be no help.
_ENDING = {
    _REMEDIES[0][1]: "The namespace is being deleted: take it out of warmPool.namespaces of the EngineConnPlugin."
}
_NO_ACCOUNT = re.compile(r"looking up service account ([\w.-]+)/([\w.-]*\w)")


def of_forbidden(error: Forbidden, limit_ranges: Iterable[Mapping[str, Any]]) -> Verdict:
    """403: a quota, a LimitRange, a policy, RBAC. `limit_ranges` are those of the namespace, as far as is known."""
    words = error.message
    if "exceeded quota" in words:
        return Verdict(reasons.QUOTA_EXCEEDED, words)
    if (unspecified := _UNSPECIFIED.search(words)) is not None:
        remedy, for_pool = _specify(unspecified[1])
        return Verdict(reasons.QUOTA_EXCEEDED, words, remedy=remedy, pool_remedy=for_pool)
    found = {one or other for one, other in _LIMIT_RANGE.findall(words)}
    if found:
        fields = " and ".join(sorted({_field(name) for name in found} | _cpu_limit(found, words)))
        if "memory" in found and "max limit to request ratio" in words:
            # An engine says one figure; how much of it is requested its plugin says.
            fields = f"{fields.replace(_FIELDS['memory'], 'memoryRequestPercent of the EngineConnPlugin')}"
        return _by_limit_range(words, found, limit_ranges, f"Set {fields} within the LimitRange")
    remedy = _no_account(words) or next((remedy for part, remedy in _REMEDIES if part in words), "")
    fatal = "violates PodSecurity" in words
    return Verdict(reasons.POD_REFUSED, words, fatal=fatal, remedy=remedy, pool_remedy=_ENDING.get(remedy, remedy))


def _no_account(words: str) -> str:
    """The remedy for a service account that is not there; "" where none is missing."""
    found = _NO_ACCOUNT.search(words)
    if found is None:
        return ""
    namespace, name = found.groups()
    if name == "default":
        return "Kubernetes makes it soon after the namespace: it is tried again."
    return (
        f"The engine's EngineConnPlugin names it, so ask the platform to create the ServiceAccount {name} in the"
        f" namespace {namespace}, or to correct serviceAccountName there: it is tried again."
    )


def of_malformed(error: ApiError, limit_ranges: Iterable[Mapping[str, Any]]) -> Verdict:
    """400, 413, 422: the pod itself is at fault, or became so by a LimitRange's defaults."""
    found = set(_UNDER_LIMIT.findall(error.message))
    if not found:
        return Verdict(reasons.POD_REFUSED, error.message, fatal=True)
    remedy = "Set spec.resources.cpuLimit to spec.resources.cpu at least, or ask for less cpu"
    if "cpu" not in found:
        remedy = f"Ask for less {' and '.join(sorted(found))}"
    return _by_limit_range(error.message, found, limit_ranges, remedy)


def of_outage(error: ApiError) -> Verdict:
    """5xx and no answer: the API server, or an admission webhook behind it, does not work now."""
    return Verdict(reasons.POD_NOT_MADE, str(error))


def is_webhook_outage(error: ApiError) -> bool:
    """Whether an admission webhook does not answer: the API server itself works, and can be told so."""
    return _WEBHOOK.search(error.message) is not None


def concerns_limit_range(error: ApiError) -> bool:
    """Whether the namespace's LimitRanges explain the refusal."""
    return bool(_LIMIT_RANGE.search(error.message) or _UNDER_LIMIT.search(error.message))


def _field(name: str) -> str:
    """The engine's field of a resource as a quota or a LimitRange names it; the name itself where there is none."""
    return _FIELDS.get(name, _EXTENDED if "/" in name else name)


def _specify(words: str) -> tuple[str, str]:
    """The remedy for a quota on something that the pod does not say: for an engine, and for a warm pool."""
    named = re.findall(r"(?:limits|requests)\.[\w./-]+|(?<![\w.])(?:cpu|memory)(?![\w.])", words)
    fields = sorted({_field(name) for name in named if _field(name) != name})
    unknown = sorted({name for name in named if _field(name) == name})
    of_engine, of_pool = [], []
    if fields:
        of_engine = [f"Set {' and '.join(fields)} of the engine, or defaultResources of the EngineConnPlugin"]
        of_pool = [f"Set {_of_pool(' and '.join(fields))} of the EngineConnPlugin"]
    if unknown or not fields:
        what = " and ".join(unknown) or "what the message names"
        both = f"Have a LimitRange in the namespace give a default for {what}"
        of_engine, of_pool = [*of_engine, both], [*of_pool, both]
    return sentences(*of_engine), sentences(*of_pool)


def _of_pool(text: str) -> str:
    """The engine's fields in a remedy, as those of the plugin that the pods of its pool follow."""
    for field, of_plugin in _POOL_FIELDS.items():
        text = re.sub(rf"{re.escape(field)}(?!\w)", of_plugin, text)
    return text


def _cpu_limit(found: set[str], words: str) -> set[str]:
    """A limit of cpu has a field of its own."""
    about_limit = re.search(r"limit is|No limit is specified|max limit to request ratio", words)
    return {_FIELDS["limits.cpu"]} if "cpu" in found and about_limit else set()


def _by_limit_range(
    words: str, found: set[str], limit_ranges: Iterable[Mapping[str, Any]], remedy: str
) -> Verdict:  # fmt: skip
    names = sorted(
        str((body.get("metadata") or {}).get("name"))
        for body in limit_ranges
        if any(found & _resources_of(item) for item in (body.get("spec") or {}).get("limits") or [])
    )
    which = f"It is {' or '.join(names)}" if names else ""
    remedy = f"{remedy}, or have the LimitRange changed."
    return Verdict(reasons.LIMIT_RANGE, sentences(which, words), remedy=remedy, pool_remedy=_of_pool(remedy))


def _resources_of(item: Mapping[str, Any]) -> set[str]:
    return {name for field in ("default", "max", "min", "maxLimitRequestRatio") for name in item.get(field) or {}}
