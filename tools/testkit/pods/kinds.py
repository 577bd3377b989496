"""The kinds of pods that the operator builds, each as its manifest. For tests of what an API server makes of them.

Must not judge what is stored.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod.spec import build_pod
from linkis_ecm.engine.view import engine_view
from linkis_ecm.model.plugin import EngineConnPluginSpec

_SETTINGS = PodSettings(report_url="http://operator:9103", instance="ecm")
_PLUGIN = {
    "engineType": "python", "engineVersion": "3.11", "image": "example/engine-python:1", "runTypes": ["python"],
    "defaultResources": {"cpu": "1000m", "memory": "1024Mi"},
}  # fmt: skip
_PROCESS = {name: value for name, value in _PLUGIN.items() if name != "runTypes"}
_SECRET = {"valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}
_FIELD = {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
_CONFIG = {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
_MODELS = {"name": "models", "mountPath": "/models", "readOnly": True, "emptyDir": {"sizeLimit": "2048Mi"}}
_BESIDE = {
    "initContainers": [
        {
            "name": "fetch", "image": "fetch", "args": ["s3://models"], "env": [_FIELD, _CONFIG],
            "resources": {"limits": {"cpu": 1, "memory": "0.5Gi"}},
            "volumeMounts": [{"name": "models", "mountPath": "/to", "subPath": "", "readOnly": False}],
        },
        {
            "name": "proxy", "image": "registry:5000/proxy@sha256:" + "0" * 64, "restartPolicy": "Always",
            "startupProbe": {"httpGet": {"port": 1}, "periodSeconds": 0}, "ports": [{"containerPort": 1}],
        },
    ],
    "containers": [
        {
            "name": "shipper", "image": "shipper:latest", "imagePullPolicy": "IfNotPresent", "command": [],
            "env": [{"name": "EMPTY", "value": ""}, {"name": "S"} | _SECRET],
            "startupProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 0},
        }
    ],
    "hostAliases": [{"ip": "10.0.0.9", "hostnames": ["warehouse"]}],
}  # fmt: skip
_EXISTS = {"key": "k", "operator": "Exists", "values": []}
_POD_TERM = {
    "topologyKey": "zone",
    "labelSelector": {"matchLabels": {"a": ""}},
    "matchLabelKeys": ["linkis.apache.org/user"],
}
_PLACED: dict[str, Any] = {
    "metadata": {"labels": {"team": "blue"}, "annotations": {"note": "mine"}},
    "spec": {
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {"matchExpressions": [_EXISTS]}}
                ]
            },
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [_POD_TERM],
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 2, "podAffinityTerm": {"topologyKey": "host", "labelSelector": {}}}
                ],
            },
        },
        "dnsConfig": {"searches": ["a.example"], "nameservers": [], "options": [{"name": "ndots", "value": "2"}]},
        "imagePullSecrets": [{"name": "mine"}],
        "nodeSelector": {"priority": "high", "resources": ""},
        "tolerations": [{"key": "team", "operator": "Equal", "value": "blue", "effect": "NoSchedule"}],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"team": "blue"}}, "matchLabelKeys": ["linkis.apache.org/engine-type"],
            }
        ],
    },
}  # fmt: skip
_OWN = {"metadata": {"labels": {"user.linkis.apache.org/job": "1"}, "annotations": {"user.linkis.apache.org/n": "2"}}}
_VOLUMES = [
    {"name": "secret", "mountPath": "/secret", "readOnly": True, "secret": {"secretName": "s"}},
    {"name": "config", "mountPath": "/config", "configMap": {"name": "c"}},
    {"name": "claim", "mountPath": "/claim", "persistentVolumeClaim": {"claimName": "p"}},
    {"name": "scratch", "mountPath": "/scratch", "emptyDir": {}},
]

# By name: the plugin and the engine's spec.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "python": (_PLUGIN, {}),
    "shell": (
        _PLUGIN | {"engineType": "shell", "engineVersion": "5", "runTypes": ["shell"]},
        {"mode": "once", "code": "ls"},
    ),
    "volumes and variables": (
        _PLUGIN | {"env": [{"name": "EMPTY", "value": ""}]},
        {
            "volumes": _VOLUMES, "workingDir": "/scratch",
            "env": [{"name": "P"} | _SECRET, {"name": "D", "value": "$A"}],
            "resources": {"cpu": "1.5", "cpuLimit": "2000m", "memory": "1.5Gi"}, "stopGrace": "5m",
        },
    ),
    "devices": (
        _PLUGIN | {"maxResources": {"cpu": "4", "memory": "8Gi", "extended": {"nvidia.com/gpu": 2}}},
        {"resources": {"extended": {"nvidia.com/gpu": 2}}},
    ),
    "placed": (_PLUGIN | {"podTemplate": _PLACED}, {"podTemplate": _OWN}),
    "containers beside": (_PLUGIN | {"volumes": [_MODELS], "podTemplate": {"spec": _BESIDE}}, {}),
    "other users": (
        _PLUGIN
        | {
            "securityContext": {"runAsUser": 5, "supplementalGroups": []}, "userNamespaces": True,
            "imagePullPolicy": "Always", "doNotDisrupt": "always",
        },
        {},
    ),
    "a process": (_PROCESS | {"launch": {"kind": "process"}, "command": ["run"], "args": []}, {}),
    "a process with a port": (_PROCESS | {"launch": {"kind": "process", "port": 8080}, "workingDir": "/srv"}, {}),
    "a process with a check": (
        _PROCESS
        | {
            "volumes": [_MODELS], "podTemplate": {"spec": _BESIDE},
            "launch": {
                "kind": "process", "port": 8080,
                "ready": {"http": {"path": "/health"}, "initialDelaySeconds": 3, "timeoutSeconds": 2},
            },
        },
        {"volumes": _VOLUMES[:1]},
    ),
}  # fmt: skip


def manifest(kind: str, namespace: str = "team", **template: Any) -> dict[str, Any]:
    """The pod of an engine of that kind; `template` goes into the podTemplate's spec of its plugin."""
    plugin, spec = KINDS[kind]
    metadata = {
        "namespace": namespace, "name": "mine", "uid": "u1", "resourceVersion": "5", "generation": 1,
        "creationTimestamp": "2026-11-27T12:00:00Z",
    }  # fmt: skip
    overlay = plugin.get("podTemplate", {})
    overlay = overlay | {"spec": overlay.get("spec", {}) | template}
    body = {"metadata": metadata, "spec": {"engineType": plugin["engineType"], "user": "ana"} | spec}
    engine = engine_view(body, epoch=datetime(2026, 11, 27, tzinfo=UTC))
    assert engine.spec is not None, engine.invalid
    offered = EngineConnPluginSpec.model_validate(plugin | {"podTemplate": overlay})
    return build_pod(engine, engine.spec, offered, ticket="t", attempt=0, settings=_SETTINGS)
