"""A pod as a real API server stores it and a kubelet runs it, with what admission writes. For tests without a cluster.

By Kubernetes's own source (pkg/apis/core/v1/defaults.go, pkg/registry/core/pod/strategy.go, plugin/pkg/admission), 1.30
to 1.36. e2e/security/test_seals.py asks a real one. Must not import what it tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

# Of a LimitRange for containers, by side.
LIMIT_RANGE = {"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "100m", "memory": "64Mi"}}
_STAYS = {
    "key": "", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
}  # fmt: skip


def stored(pod: Mapping[str, Any], *, limit_range: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Any]:
    """The pod after its create, its defaults, admission, its binding to a node."""
    found: dict[str, Any] = json.loads(json.dumps(pod))
    metadata, spec = found["metadata"], found["spec"]
    metadata |= {"uid": "pod-uid", "resourceVersion": "7", "generation": 1, "creationTimestamp": "2026-11-28T00:00:00Z"}
    metadata["managedFields"] = [{"manager": "linkis-ecm", "operation": "Update", "fieldsV1": {"f:spec": {}}}]
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        _container(container, limit_range or {})
    for volume in spec["volumes"]:
        _volume(volume)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec["serviceAccount"] = spec.setdefault("serviceAccountName", "default")
    spec |= {"nodeName": "node-1", "preemptionPolicy": "PreemptLowerPriority", "priority": 0}
    _selectors(spec, metadata["labels"])
    if limit_range:
        metadata["annotations"]["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: cpu limit for container engine"
    if "runtimeClassName" in spec:
        spec["overhead"] = {"cpu": "250m"}
        spec["nodeSelector"] = spec.get("nodeSelector", {}) | {"runtime": "sandbox"}
        taint = {"key": "sandbox", "operator": "Exists", "effect": "NoSchedule"}
        spec["tolerations"] = [*spec.get("tolerations", []), taint]
    tolerations = spec.setdefault("tolerations", [])
    devices = {
        name for one in spec["containers"] for name in one.get("resources", {}).get("requests", {}) if "/" in name
    }
    tolerations += [{"key": name, "operator": "Exists", "effect": "NoSchedule"} for name in sorted(devices)]
    for state in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{state}"
        if not any(one.get("key") == key for one in tolerations):
            tolerations.append(_STAYS | {"key": key})
    kept: dict[str, Any] = _without_empties(found)
    return kept


def _container(container: dict[str, Any], limit_range: Mapping[str, Mapping[str, str]]) -> None:
    name, _, digest = container["image"].partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    latest = tag == "latest" or not (tag or digest)
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    resources = container.setdefault("resources", {})
    if "limits" in resources:
        resources["requests"] = resources["limits"] | resources.get("requests", {})
    if "requests" in resources:
        names = [name for name in ("cpu", "memory") if name in resources["requests"]]
        container["resizePolicy"] = [{"resourceName": name, "restartPolicy": "NotRequired"} for name in names]
    for side, amounts in limit_range.items():
        resources[side] = dict(amounts) | resources.get(side, {})
    for side in ("requests", "limits"):
        if side in resources:
            resources[side] = {name: canonical(str(amount)) for name, amount in resources[side].items()}
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", []):
        if "fieldRef" in variable.get("valueFrom", {}):
            variable["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe := container.get(kind):
            for field, value in (
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ):
                probe[field] = probe.get(field) or value
            if not probe.get("initialDelaySeconds"):
                probe.pop("initialDelaySeconds", None)
            if "httpGet" in probe:
                probe["httpGet"] = {"path": "/", "scheme": "HTTP"} | probe["httpGet"]


def _volume(volume: dict[str, Any]) -> None:
    for kind in ("secret", "configMap", "projected", "downwardAPI"):
        if kind in volume:
            volume[kind].setdefault("defaultMode", 420)
    for source in volume.get("projected", {}).get("sources", []):
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    if size := volume.get("emptyDir", {}).get("sizeLimit"):
        volume["emptyDir"]["sizeLimit"] = canonical(size)


def _selectors(spec: dict[str, Any], labels: Mapping[str, str]) -> None:
    """The pod's labels of matchLabelKeys, merged into the selectors of affinity and spread."""
    terms = list(spec.get("topologySpreadConstraints", []))
    for kind in ("podAffinity", "podAntiAffinity"):
        affinity = spec.get("affinity", {}).get(kind, {})
        terms += affinity.get("requiredDuringSchedulingIgnoredDuringExecution", [])
        for one in affinity.get("preferredDuringSchedulingIgnoredDuringExecution", []):
            terms.append(one["podAffinityTerm"])
    for term in terms:
        for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
            for key in term.get(field, []):
                if key in labels and "labelSelector" in term:
                    one = {"key": key, "operator": operator, "values": [labels[key]]}
                    term["labelSelector"].setdefault("matchExpressions", []).append(one)


# Objects behind a pointer: the API server keeps them where they are empty. Maps and lists it leaves out.
_POINTERS = ("emptyDir", "labelSelector", "namespaceSelector", "securityContext", "podAffinity", "nodeAffinity")
# Maps whose keys an author chooses: a value in them may be empty.
_FREE = ("annotations", "labels", "matchLabels", "nodeSelector", "volumeAttributes")
_PLAIN_FLAGS = ("readOnly", "hostNetwork", "hostPID", "hostIPC", "stdin", "tty")


def _without_empties(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_empties(one) for one in value]
    if not isinstance(value, dict):
        return value
    parts = {name: part if name in _FREE else _without_empties(part) for name, part in value.items()}
    return {
        name: part
        for name, part in parts.items()
        if name in _POINTERS or not (part in ("", [], {}) or (part is False and name in _PLAIN_FLAGS))
    }


def canonical(amount: str) -> str:
    """A quantity as Kubernetes writes it: the greatest unit in which it is whole; in thousandths where it is not."""
    for factor, units in ((1024, ("Ki", "Mi", "Gi", "Ti")), (1000, ("k", "M", "G", "T"))):
        unit = next((one for one in units if amount.endswith(one)), "")
        if unit:
            number = Decimal(amount.removesuffix(unit))
            power = units.index(unit) + 1
            while number != int(number) and power:
                number, power = number * factor, power - 1
            while number and number % factor == 0 and power < len(units):
                number, power = number / factor, power + 1
            return (
                f"{int(number)}{units[power - 1] if power else ''}" if number == int(number) else f"{number * 1000:f}m"
            )
    milli = Decimal(amount.removesuffix("m")) * (1 if amount.endswith("m") else 1000)
    if milli % 1000:
        return f"{int(milli)}m"
    return canonical(f"{int(milli / 1000000)}k") if milli and milli % 1000000 == 0 else str(int(milli / 1000))
