"""The one form of an engine's pod, as it was written and as the API server stores it, over which its seal is. Pure.

Each field is here in one of four ways. As it is: all that no rule names, also fields that Kubernetes has not yet, and
maps whose keys an author chooses as a whole. As a default: what the API server writes where nothing was given counts as
nothing. As an amount: 1000m is 1. Left out: what the scheduler, the kubelet or an admission plugin of Kubernetes writes
where it cannot change what runs; each such rule says why. What of it the manifest had given is in `Given`, so an
addition is known from a change. Must not know keys, nor what follows from a pod without a seal.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

from linkis_ecm.engine.names import SEAL_ANNOTATION, UNDISRUPTED

Rule = Callable[[Any], Any]
# A pod is less deep. What is deeper has no form.
_DEPTH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the manifest gave of maps and lists to which Kubernetes or a webhook of the platform may add, and what it
    left to them."""

    # Names of labels and annotations beside our own.
    labels: frozenset[str] = frozenset()
    annotations: frozenset[str] = frozenset()
    # With a RuntimeClass, which adds its own: the names of nodeSelector, and the tolerations as JSON.
    selector: frozenset[str] = frozenset()
    tolerations: frozenset[str] = frozenset()
    # By container, "" for the pod: what admission may fill in.
    open: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def written(self) -> dict[str, Any]:
        """As JSON has it, without what is empty."""
        lists = {name: sorted(getattr(self, name)) for name in _LISTS}
        places = {name: sorted(places) for name, places in self.open.items() if places}
        return {name: found for name, found in (lists | {"open": places}).items() if found}

    @classmethod
    def read(cls, written: Any) -> Given:
        """Raises ValueError for what this class has not written."""
        if not isinstance(written, dict):
            raise ValueError("what was given is an object")
        places = written.get("open", {})
        lists = {name: _names(written.get(name, [])) for name in _LISTS}
        if not isinstance(places, dict):
            raise ValueError("places are an object")
        return cls(**lists, open={name: _names(found) for name, found in places.items()})


_LISTS = ("labels", "annotations", "selector", "tolerations")


def _names(written: Any) -> frozenset[str]:
    if not isinstance(written, list) or not all(isinstance(name, str) for name in written):
        raise ValueError("names are a list of texts")
    return frozenset(written)


def given(pod: Mapping[str, Any]) -> Given:
    """What this manifest gives."""
    metadata, spec = _map(pod.get("metadata")), _map(pod.get("spec"))
    runtime = bool(spec.get("runtimeClassName"))
    places = {str(one.get("name")): _open(one) for one in _containers(spec)}
    # ServiceAccount admission gives a pod the account's where it has none.
    places[""] = frozenset() if spec.get("imagePullSecrets") else frozenset({"imagePullSecrets"})
    return Given(
        labels=frozenset(name for name in _map(metadata.get("labels")) if not _is_our_label(name)),
        annotations=frozenset(name for name in _map(metadata.get("annotations")) if _is_free_annotation(name)),
        selector=frozenset(_map(spec.get("nodeSelector"))) if runtime else frozenset(),
        tolerations=frozenset(map(_json, _tolerations(spec))) if runtime else frozenset(),
        open=places,
    )


def form(pod: Mapping[str, Any], known: Given) -> list[Any]:
    """The form, for JSON. Raises ValueError for a pod that is too deep."""
    _refuse_deep(pod, _DEPTH)
    metadata = _map(pod.get("metadata"))
    labels, annotations = _map(metadata.get("labels")), _map(metadata.get("annotations"))
    owners = metadata.get("ownerReferences") or []
    # Left out of the metadata: what the API server writes, and finalizers. These hold a pod that has ended, as
    # whoever takes its name can anyway; controllers of the platform add some.
    return [
        metadata.get("namespace"),
        metadata.get("name"),
        sorted((_OWNER(owner) for owner in owners), key=_json),
        {name: value for name, value in labels.items() if _is_our_label(name) or name in known.labels},
        {
            name: value
            for name, value in annotations.items()
            if name in known.annotations or not (_is_free_annotation(name) or name in _UNSEALED)
        },
        _spec(_map(pod.get("spec")), labels, known),
    ]


# --- labels and annotations


# Our own: what selects pods, and what the operator reads of them. No others may be added below our own domain.
_OUR_DOMAIN = "linkis.apache.org/"
_STANDARD = frozenset(
    f"app.kubernetes.io/{part}" for part in ("name", "instance", "version", "component", "part-of", "managed-by")
)
# The operator writes the marks for autoscalers while an engine is busy, and takes them away.
_UNSEALED = frozenset({SEAL_ANNOTATION, *UNDISRUPTED})
# Notes that the platform is known to add after the manifest was written, and that no node, runtime or network reads: of
# LimitRanges and policies, of networks' plugins after the pod has its address, of queues, autoscalers and scrapers. Any
# other annotation that is added breaks the seal: nodes read profiles, devices, mounts, networks and settings of
# runtimes in annotations, by names that no list of ours would have whole.
_NOTES = frozenset(
    {
        "kubernetes.io/limit-ranger", "cni.projectcalico.org/containerID", "cni.projectcalico.org/podIP",
        "cni.projectcalico.org/podIPs", "k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status",
    }
)  # fmt: skip
_NOTES_OF = (
    "cluster-autoscaler.kubernetes.io/", "gatekeeper.sh/", "karpenter.sh/", "kueue.x-k8s.io/", "policies.kyverno.io/",
    "prometheus.io/",
)  # fmt: skip


def _is_our_label(name: Any) -> bool:
    return str(name).startswith(_OUR_DOMAIN) or name in _STANDARD


def _is_free_annotation(name: Any) -> bool:
    """Whether anybody may add it."""
    text = str(name)
    return name not in _UNSEALED and (text in _NOTES or text.startswith(_NOTES_OF))


# --- rules


def _as_is(value: Any) -> Any:
    return value


def _left(_: Any) -> None:
    return None


def _default(*values: Any) -> Rule:
    """Each of these counts as nothing: the API server's default, and what it replaces by that."""
    return lambda value: None if any(type(value) is type(one) and value == one for one in values) else value


# The API server leaves out texts, lists and maps that are empty.
_some = _default("", [], {})


def _record(fields: Mapping[str, Rule]) -> Rule:
    """An object: a rule for each of these fields, and every other as it is."""

    def rule(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        parts = ((name, fields.get(name, _as_is)(part)) for name, part in value.items())
        return {name: part for name, part in parts if part is not None}

    return rule


def _each(of: Rule) -> Rule:
    return lambda value: ([of(one) for one in value] or None) if isinstance(value, list) else value


_QUANTITY = re.compile(r"([0-9]{1,30}(?:\.[0-9]{0,30})?)([numkMGTPE]|[KMGTPE]i)?")
# Longer ones are no quantities by it.
_QUANTITY_MAX = 64
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def _amount(value: Any) -> Any:
    """In whole thousandths, to which the API server rounds up; what is no quantity as it is."""
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        return value
    text = str(value)
    return value if len(text) > _QUANTITY_MAX or (found := _thousandths(text)) is None else found


# Installations know some tens of amounts; computing one costs 10 µs, and a pod has nine.
@lru_cache(maxsize=1024)
def _thousandths(text: str) -> int | None:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    unit = match[2] or ""
    factor = Fraction(2) ** _BINARY[unit] if unit in _BINARY else Fraction(10) ** _DECIMAL[unit]
    return math.ceil(Fraction(match[1]) * factor * 1000)


_OWNER = _record({"controller": _default(False), "blockOwnerDeletion": _default(False)})


# --- containers


_ANY_OF_RANGE = tuple(
    f"{kind}.{name}" for kind in ("requests", "limits") for name in ("cpu", "memory", "ephemeral-storage")
)
# In the place of IfNotPresent, admission (AlwaysPullImages) may write Always: the same image, asked for each time.
_PULL = "imagePullPolicy"
_PROBE = _record(
    {
        "httpGet": _record({"path": _default("/", ""), "scheme": _default("HTTP", "")}),
        "initialDelaySeconds": _default(0),
        "timeoutSeconds": _default(1, 0),
        "periodSeconds": _default(10, 0),
        "successThreshold": _default(1, 0),
        "failureThreshold": _default(3, 0),
    }
)
_IN_PLACE = tuple({"resourceName": name, "restartPolicy": "NotRequired"} for name in ("cpu", "memory"))


def _resizes(value: Any) -> Any:
    """Some versions of Kubernetes write the default for each container with amounts."""
    return ([one for one in value if one not in _IN_PLACE] or None) if isinstance(value, list) else value


_KEY = _record({"optional": _default(False)})
_SOURCE = _record(
    {"fieldRef": _record({"apiVersion": _default("v1", "")}), "secretKeyRef": _KEY, "configMapKeyRef": _KEY}
)
_CONTAINER = _record(
    {
        "command": _some,
        "args": _some,
        "workingDir": _some,
        "restartPolicy": _some,
        "securityContext": _some,
        "env": _each(_record({"value": _some, "valueFrom": _SOURCE})),
        "ports": _each(_record({"name": _some, "protocol": _default("TCP", ""), "hostPort": _default(0)})),
        "startupProbe": _PROBE,
        "readinessProbe": _PROBE,
        "livenessProbe": _PROBE,
        "terminationMessagePath": _default("/dev/termination-log", ""),
        "terminationMessagePolicy": _default("File", ""),
        "volumeMounts": _each(_record({"readOnly": _default(False), "subPath": _some})),
        "stdin": _default(False),
        "stdinOnce": _default(False),
        "tty": _default(False),
        "resizePolicy": _resizes,
    }
)


def _containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = [one for kind in ("containers", "initContainers") for one in spec.get(kind) or []]
    return [one for one in found if isinstance(one, dict)]


def _open(container: Mapping[str, Any]) -> frozenset[str]:
    """What admission may fill in: amounts for which a LimitRange has a default, and a pull at each start."""
    amounts = _resources(container.get("resources"), frozenset())
    absent = {place for place in _ANY_OF_RANGE if place.partition(".")[2] not in _map(amounts.get(place.split(".")[0]))}
    return frozenset(absent | ({_PULL} if _pulls(container) == "IfNotPresent" else set()))


def _pulls(container: Mapping[str, Any]) -> Any:
    """The pull policy; where none was given, the API server's, which follows from the image's tag."""
    if given_one := container.get("imagePullPolicy"):
        return given_one
    name, _, digest = str(container.get("image") or "").partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "Always" if tag == "latest" or not (tag or digest) else "IfNotPresent"


def _resources(value: Any, left: Collection[str]) -> dict[str, Any]:
    """Requests and limits without the places in `left`. The API server takes a limit for a request that is absent."""
    resources = _map(value)
    limits, requests = _map(resources.get("limits")), _map(resources.get("requests"))
    sides = {"limits": limits, "requests": {**limits, **requests}}
    amounts = {
        side: {name: _amount(part) for name, part in found.items() if f"{side}.{name}" not in left}
        for side, found in sides.items()
    }
    return {**resources, **amounts}


def _container(value: Any, known: Given) -> Any:
    if not isinstance(value, dict):
        return value
    left = known.open.get(str(value.get("name")), frozenset())
    pulls = _pulls(value)
    found: dict[str, Any] = _CONTAINER(value)
    return found | {
        "imagePullPolicy": "IfNotPresent" if _PULL in left and pulls == "Always" else pulls,
        "resources": _resources(value.get("resources"), left),
    }


# --- volumes


_FILES = _record({"defaultMode": _default(420), "items": _some, "optional": _default(False)})
# A source that is not here is sealed as it is, with the maps in it.
_VOLUME = _record(
    {
        "emptyDir": _record({"medium": _some, "sizeLimit": _amount}),
        "secret": _FILES,
        "configMap": _FILES,
        "persistentVolumeClaim": _record({"readOnly": _default(False)}),
        "projected": _record(
            {
                "defaultMode": _default(420),
                "sources": _each(_record({"serviceAccountToken": _record({"expirationSeconds": _default(3600)})})),
            }
        ),
    }
)


# --- where a pod runs


# The API server writes a map of labels that is empty as none, but a selector without any selects all.
_EXPRESSIONS = _each(_record({"values": _some}))
_SELECTOR = _record({"matchLabels": _some, "matchExpressions": _EXPRESSIONS})
_NODE_TERM = _record({"matchExpressions": _EXPRESSIONS, "matchFields": _EXPRESSIONS})
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_NODE_AFFINITY = _record(
    {
        _REQUIRED: _record({"nodeSelectorTerms": _each(_NODE_TERM)}),
        _PREFERRED: _each(_record({"preference": _NODE_TERM})),
    }
)
_TERM = _record(
    {
        "labelSelector": _SELECTOR, "namespaceSelector": _SELECTOR, "namespaces": _some, "matchLabelKeys": _some,
        "mismatchLabelKeys": _some,
    }
)  # fmt: skip


def _selecting(labels: Mapping[str, Any]) -> Rule:
    """A term that selects pods. The API server writes the pod's own labels of matchLabelKeys into the selector."""

    def rule(value: Any) -> Any:
        found = _TERM(value)
        selector = found.get("labelSelector") if isinstance(found, dict) else None
        if not isinstance(selector, dict):
            return found
        merged = list(selector.get("matchExpressions") or [])
        for names, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
            for name in found.get(names) or []:
                one = {"key": name, "operator": operator, "values": [labels.get(str(name))]}
                if str(name) in labels and one not in merged:
                    merged.append(one)
        return found | {"labelSelector": {**selector, "matchExpressions": merged} if merged else selector}

    return rule


def _affinity(labels: Mapping[str, Any]) -> Rule:
    term = _selecting(labels)
    pods = _record({_REQUIRED: _each(term), _PREFERRED: _each(_record({"podAffinityTerm": term}))})
    return _record({"nodeAffinity": _NODE_AFFINITY, "podAffinity": pods, "podAntiAffinity": pods})


_TOLERATION = _record({"key": _some, "operator": _default("Equal", ""), "value": _some, "effect": _some})
_WRITTEN_BY_ADMISSION = frozenset({"key", "operator", "effect", "tolerationSeconds"})
_DEAD_NODE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def _tolerations(spec: Mapping[str, Any]) -> list[Any]:
    """In order, without those that admission adds: how long the pod stays on a dead node (DefaultTolerationSeconds),
    and a taint by the name of a device that the pod asks for (ExtendedResourceToleration), whose nodes it needs."""
    amounts = [_resources(one.get("resources"), ())["requests"] for one in _containers(spec)]
    devices = {name for names in amounts for name in names if "/" in name}

    def is_added(one: Any) -> bool:
        if not isinstance(one, dict) or one.get("operator") != "Exists" or one.keys() - _WRITTEN_BY_ADMISSION:
            return False
        key, effect = one.get("key"), one.get("effect")
        return (key in _DEAD_NODE and effect == "NoExecute") or (key in devices and effect == "NoSchedule")

    found = spec.get("tolerations") or []
    return sorted((_TOLERATION(one) for one in found if not is_added(one)), key=_json)


# --- the pod


_SPEC: dict[str, Rule] = {
    "automountServiceAccountToken": _as_is,
    "dnsConfig": _record({"nameservers": _some, "searches": _some, "options": _some}),
    "dnsPolicy": _default("ClusterFirst", ""),
    "enableServiceLinks": _default(True),
    "hostAliases": _each(_record({"hostnames": _some})),
    "hostIPC": _default(False),
    "hostNetwork": _default(False),
    "hostPID": _default(False),
    "hostUsers": _default(True),
    "hostname": _some,
    "nodeSelector": _some,
    "priorityClassName": _some,
    "restartPolicy": _default("Always", ""),
    "runtimeClassName": _some,
    "schedulerName": _default("default-scheduler", ""),
    "securityContext": _record({"supplementalGroups": _some}),
    "serviceAccountName": _default("default", ""),
    "setHostnameAsFQDN": _default(False),
    "shareProcessNamespace": _default(False),
    "subdomain": _some,
    "terminationGracePeriodSeconds": _default(30),
    "volumes": _each(_VOLUME),
    # The scheduler's answer. Who may create pods may name a node, which is no more than to ask for it.
    "nodeName": _left,
    # A webhook's, such as a queue's. They keep the pod from a node, and go; the engine's status says so.
    "schedulingGates": _left,
    # Priority admission computes both from priorityClassName, and refuses a pod that says otherwise.
    "priority": _left,
    "preemptionPolicy": _left,
    # RuntimeClass admission computes it from runtimeClassName, and refuses a pod that says otherwise.
    "overhead": _left,
    # The API server's copy of serviceAccountName, also where that is not given.
    "serviceAccount": _left,
}


def _spec(spec: Mapping[str, Any], labels: Mapping[str, Any], known: Given) -> dict[str, Any]:
    one = _each(lambda container: _container(container, known))
    rules = _SPEC | {
        "affinity": _affinity(labels),
        "topologySpreadConstraints": _each(_selecting(labels)),
        "containers": one,
        "initContainers": one,
        "imagePullSecrets": _left if "imagePullSecrets" in known.open.get("", ()) else _some,
        "tolerations": _left,
    }
    found: dict[str, Any] = _record(rules)(spec)
    tolerations = _tolerations(spec)
    if spec.get("runtimeClassName"):
        # RuntimeClass admission adds the class's own: nodes that have the runtime. Fewer nodes than the pod's own
        # selector names, and no more than the scheduler's answer above may name.
        selector = {name: value for name, value in _map(spec.get("nodeSelector")).items() if name in known.selector}
        found["nodeSelector"] = selector
        tolerations = [toleration for toleration in tolerations if _json(toleration) in known.tolerations]
    return found | {"tolerations": tolerations}


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _refuse_deep(value: Any, depth: int) -> None:
    if depth < 0:
        raise ValueError("the pod is too deep")
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, (dict, list)):
            _refuse_deep(part, depth - 1)
