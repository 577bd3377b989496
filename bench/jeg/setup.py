"""Jupyter Enterprise Gateway on the cluster for its benchmark: images, rights, a Deployment for each way to run it.

As its own chart has it, but that its rights are of one namespace and its pod is restricted. Must not measure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import clean
from tools.cluster import images
from tools.testkit.cluster import kubectl

NAMESPACE = "ecm-bench-jeg"
PORT = 8888
RESPONSE_PORT = 8877
TOKEN = "bench"
KERNELSPEC = "python_kubernetes"
ACCOUNT = "enterprise-gateway"
# Long enough that no start is given up on a slow machine; they cost nothing where it is fast.
PATIENCE = {"EG_KERNEL_LAUNCH_TIMEOUT": "80", "EG_KERNEL_INFO_TIMEOUT": "60"}


@dataclass(frozen=True)
class Way:
    """A way to run it: a name, its settings, and whether the client acknowledges at once."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    quick: bool = False

    @property
    def deployment(self) -> str:
        return f"jeg-{self.name}"


SHIPPED = Way("shipped")
# Its event loop sleeps EG_SOCKET_TIMEOUT (5 ms) in each accept() on the socket that kernels report to, and each message
# of an execution waits for that; a start is looked at each EG_POLL_INTERVAL (500 ms). Below these it got no faster.
TUNED = Way("tuned", {"EG_SOCKET_TIMEOUT": "0.001", "EG_POLL_INTERVAL": "0.1"}, quick=True)
WAYS = (SHIPPED, TUNED)


@dataclass(frozen=True)
class Images:
    gateway: str
    kernel: str


def build(engine_image: str) -> Images:
    """The gateway's image, and a kernel's on the image of our engine."""
    here = Path(__file__).parent
    dockerfile, pins = here / "jeg.Dockerfile", here / "jeg-requirements.txt"
    gateway = images.build_beside("gateway", dockerfile, pins)
    return Images(gateway, images.build_beside("kernel", dockerfile, pins, ENGINE_IMAGE=engine_image))


def kernel_settings(image: str, resources: dict[str, str]) -> dict[str, str]:
    """What a request for a kernel says about its pod: our engine's image, size, user, and a namespace that is there."""
    return {
        "KERNEL_IMAGE": image,
        "KERNEL_NAMESPACE": NAMESPACE,
        "KERNEL_USERNAME": "hadoop",
        "KERNEL_UID": "10001",
        "KERNEL_GID": "10001",
        "KERNEL_CPUS": resources["cpu"],
        "KERNEL_MEMORY": resources["memory"],
        "KERNEL_MEMORY_LIMIT": resources["memory"],
    }


def install(image: str) -> None:
    """Its namespace anew, with a gateway for each way; returns when all are ready."""
    remove()
    objects = [*_rights(), *(one for way in WAYS for one in _gateway(way, image))]
    kubectl.must("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    for way in WAYS:
        kubectl.must("rollout", "status", "-n", NAMESPACE, f"deployment/{way.deployment}", "--timeout=110s")


def remove() -> None:
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")


def logs() -> str:
    """The last lines of each gateway, for whoever has to find out why it failed."""
    return "\n".join(
        kubectl.run("logs", "-n", NAMESPACE, f"deployment/{way.deployment}", "--tail=30").out for way in WAYS
    )


def _meta(name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "labels": labels or {}}


def _rights() -> list[dict[str, Any]]:
    """The namespace and what the gateway may do in it. Its kernels' pods do not meet the restricted standard."""
    rbac = "rbac.authorization.k8s.io"
    verbs = ["get", "list", "watch", "create", "delete"]
    return [
        {"apiVersion": "v1", "kind": "Namespace",
         "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "baseline", **clean.LABELS}}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(ACCOUNT)},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": _meta(ACCOUNT),
         "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]},
        {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": _meta(ACCOUNT),
         "roleRef": {"apiGroup": rbac, "kind": "Role", "name": ACCOUNT},
         "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}]},
    ]  # fmt: skip


def _gateway(way: Way, image: str) -> list[dict[str, Any]]:
    labels = {"gateway-selector": way.deployment}
    settings = {
        "EG_IP": "0.0.0.0",
        "EG_PORT": str(PORT),
        "EG_PORT_RETRIES": "0",
        "EG_RESPONSE_PORT": str(RESPONSE_PORT),
        "EG_NAMESPACE": NAMESPACE,
        "EG_AUTH_TOKEN": TOKEN,
        "EG_INHERITED_ENVS": "PATH",
        "EG_DEFAULT_KERNEL_NAME": KERNELSPEC,
        **PATIENCE,
        **way.settings,
    }
    container = {
        # Its chart says DEBUG; fewer lines cost less.
        "name": "gateway", "image": image, "imagePullPolicy": "IfNotPresent", "args": ["--log-level=WARN"],
        "env": [{"name": name, "value": value} for name, value in settings.items()],
        "ports": [{"containerPort": PORT}, {"containerPort": RESPONSE_PORT}],
        # Its HTTP answers nobody without the token.
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 2},
        # As our gateway's.
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }  # fmt: skip
    pod = {
        "serviceAccountName": ACCOUNT,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _meta(way.deployment, labels),
         "spec": {"replicas": 1, "selector": {"matchLabels": labels},
                  "template": {"metadata": {"labels": labels}, "spec": pod}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": _meta(way.deployment, labels),
         "spec": {"selector": labels, "ports": [{"name": "http", "port": PORT}]}},
    ]  # fmt: skip
