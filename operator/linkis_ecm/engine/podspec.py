"""Builds an engine's pod, as plain data, from the engine and its plugin.

Restricted by the pod security standard whatever the engine's author writes: the overlay is taken by an allow-list,
because the operator makes the pod with its own rights. Image, command, arguments and environment come from the plugin;
what depends on the kind of launch comes from `engine.launch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from linkis_ecm.engine import launch
from linkis_ecm.engine.launch import LOG_DIR, PodSettings
from linkis_ecm.engine.names import MANAGED_BY, label_hash, pod_name
from linkis_ecm.engine.view import EngineView
from linkis_ecm.model.engineconn import API_VERSION, EngineConnSpec, EnvVar, Resources, Volume
from linkis_ecm.model.formats import parse_duration, parse_quantity
from linkis_ecm.model.plugin import EngineConnPluginSpec

# The images' user (Dockerfile).
USER_ID = 10001
# A folder that grows past this ends the engine by eviction rather than the node by a full disk. The agent's own files
# drop their beginnings long before (launch.LOG_TOTAL_MIB). The rest is room for what a filesystem keeps ready behind a
# file's end (xfs: as much again as the file has).
LOG_VOLUME = "4Gi"
TMP_VOLUME = "4Gi"
# A running task, or a process, may go on for this long when the engine is to end, where nobody says otherwise.
GRACE_SECONDS = 30
GRACE_MAX = 3600

OVERLAY_METADATA = ("labels", "annotations")
OVERLAY_SPEC = (
    "affinity", "dnsConfig", "imagePullSecrets", "nodeSelector", "priorityClassName", "runtimeClassName",
    "schedulerName", "tolerations", "topologySpreadConstraints",
)  # fmt: skip
_RESERVED_LABELS = ("app.kubernetes.io/", "linkis.apache.org/")


class InvalidSpecError(ValueError):
    """The engine's spec cannot be turned into a pod; the text names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The resources that an engine gets: texts for the pod, numbers for the record."""

    cpu: str
    cpu_limit: str | None
    memory: str

    @property
    def as_container(self) -> dict[str, dict[str, str]]:
        """As a container of a pod has them."""
        limits = {"memory": self.memory} | ({"cpu": self.cpu_limit} if self.cpu_limit else {})
        return {"requests": {"cpu": self.cpu, "memory": self.memory}, "limits": limits}

    @property
    def cpu_milli(self) -> int:
        return int(parse_quantity(self.cpu) * 1000)

    @property
    def memory_bytes(self) -> int:
        return int(parse_quantity(self.memory))


def grace_seconds(text: str | None) -> int:
    """`stopGrace` in seconds; raises InvalidSpecError over an hour."""
    seconds = _grace(text)
    if seconds > GRACE_MAX:
        raise InvalidSpecError(f"spec.stopGrace {text} is over {GRACE_MAX} s: ask for 1h at most")
    return seconds


def bounded_grace(text: str | None) -> int:
    """`stopGrace` in seconds, an hour at most: a spec may be edited after its pod was made."""
    return min(_grace(text), GRACE_MAX)


def _grace(text: str | None) -> int:
    return int(parse_duration(text)) if text else GRACE_SECONDS


def sizes(spec: EngineConnSpec, plugin: EngineConnPluginSpec) -> Sizes:
    """What the engine asks for, else the plugin's defaults; raises InvalidSpecError over the plugin's bounds."""
    wish = spec.resources or Resources(cpu=None, cpu_limit=None, memory=None)
    default, bound = plugin.default_resources, plugin.max_resources
    chosen = Sizes(wish.cpu or default.cpu, wish.cpu_limit or default.cpu_limit, wish.memory or default.memory)
    if bound is not None:
        for field, asked, most in (("cpu", chosen.cpu, bound.cpu), ("memory", chosen.memory, bound.memory)):
            if parse_quantity(asked) > parse_quantity(most):
                raise InvalidSpecError(
                    f"spec.resources.{field} {asked} is over the plugin's {most}: ask for {most} at most"
                )
    if chosen.cpu_limit is not None and parse_quantity(chosen.cpu_limit) < parse_quantity(chosen.cpu):
        raise InvalidSpecError(
            f"spec.resources.cpuLimit {chosen.cpu_limit} is under cpu {chosen.cpu}: raise it or leave it out"
        )
    return chosen


def build_pod(
    engine: EngineView,
    spec: EngineConnSpec,
    plugin: EngineConnPluginSpec,
    *,
    ticket: str,
    attempt: int,
    settings: PodSettings,
) -> dict[str, Any]:
    """The pod's manifest. Raises InvalidSpecError, naming the field."""
    name = pod_name(engine.name, engine.uid, attempt)
    overlay = _merge(_overlay(plugin.pod_template, "plugin"), _overlay(spec.pod_template, "engine"))
    size = sizes(spec, plugin)
    grace = grace_seconds(spec.stop_grace or plugin.stop_grace)
    mounts, volumes = _volumes(spec.volumes or [])
    launched = plugin.launch or launch.AGENT
    env = _user_env(plugin.env, spec.env, for_kernel=launch.has_agent(launched))
    if launch.has_agent(launched):
        identity = {"name": "identity", "mountPath": launch.IDENTITY_DIR, "readOnly": True}
        mounts = [{"name": "log", "mountPath": LOG_DIR}, identity, *mounts]
        volumes = [{"name": "log", "emptyDir": {"sizeLimit": LOG_VOLUME}}, launch.identity_volume(), *volumes]
        env += launch.agent_env(
            engine, engine_type=plugin.engine_type, mode=spec.mode, ticket=ticket, attempt=attempt, grace=grace,
            settings=settings,
        )  # fmt: skip
    elif spec.mode == "once":
        raise InvalidSpecError(
            "spec.mode is once, and the plugin's launch.kind is process: a process takes no code, so leave mode and"
            " code out"
        )
    container: dict[str, Any] = {
        "name": "engine",
        "image": plugin.image,
        "ports": launch.container_ports(launched),
        "env": env,
        "resources": size.as_container,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],  # noqa: S108
        # The last lines of the log say why an engine died even after its files are gone.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    for field, value in (
        ("imagePullPolicy", plugin.image_pull_policy),
        ("command", plugin.command),
        ("args", plugin.args),
        ("readinessProbe", launch.readiness_probe(launched)),
    ):
        if value is not None:
            container[field] = value
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": engine.namespace,
            "labels": overlay.get("labels", {}) | _labels(engine, spec, plugin, attempt),
            "annotations": overlay.get("annotations", {}) | {"linkis.apache.org/ticket-id": ticket},
            "ownerReferences": [_owner(engine)],
        },
        "spec": overlay.get("spec", {})
        | {
            "hostname": name,
            "subdomain": settings.service,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": launch.termination_grace(launched, grace),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "runAsGroup": USER_ID,
                "fsGroup": USER_ID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "tmp", "emptyDir": {"sizeLimit": TMP_VOLUME}},
                *volumes,
            ],
        },
    }


def _owner(engine: EngineView) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "EngineConn",
        "name": engine.name,
        "uid": engine.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _labels(engine: EngineView, spec: EngineConnSpec, plugin: EngineConnPluginSpec, attempt: int) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": f"engine-{plugin.engine_type}".replace("_", "-"),
        "app.kubernetes.io/instance": label_hash(engine.name),
        "app.kubernetes.io/version": label_hash(plugin.engine_version),
        "app.kubernetes.io/component": "engine",
        "app.kubernetes.io/part-of": "linkis",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        "linkis.apache.org/engineconn": label_hash(engine.name),
        "linkis.apache.org/engine-type": plugin.engine_type,
        "linkis.apache.org/user": label_hash(spec.user),
        "linkis.apache.org/attempt": str(attempt),
    }


def _user_env(
    plugin: list[EnvVar] | None, engine: list[EnvVar] | None, *, for_kernel: bool
) -> list[dict[str, Any]]:  # fmt: skip
    """The plugin's variables as the platform wrote them; the engine's for its kernel alone, where there is an agent."""
    merged = {variable.name: variable.value for variable in plugin or []}
    wished = {variable.name: variable.value for variable in engine or []}
    merged |= launch.kernel_env(wished) if for_kernel else wished
    # A variable of the user may hold a dollar sign: Kubernetes would expand $(NAME).
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in merged.items()]


def _volumes(volumes: list[Volume]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    mounts, sources = [], []
    for volume in volumes:
        name = f"user-{volume.name}"
        if f"{volume.mount_path.rstrip('/')}/".startswith(
            (f"{LOG_DIR}/", f"{launch.IDENTITY_DIR}/", "/proc/", "/sys/", "/dev/")
        ):
            raise InvalidSpecError(
                f"spec.volumes {volume.name}: mountPath {volume.mount_path} is the engine's own: take another"
            )
        mounts.append({"name": name, "mountPath": volume.mount_path, "readOnly": volume.read_only})
        body = volume.model_dump(by_alias=True, exclude_none=True, exclude={"name", "mount_path", "read_only"})
        sources.append({"name": name} | body)
    return mounts, sources


def _overlay(template: dict[str, Any] | None, whose: str) -> dict[str, Any]:
    """The allowed part of an overlay as {labels, annotations, spec}; raises InvalidSpecError for anything else."""
    field = "spec.podTemplate" if whose == "engine" else "podTemplate of the EngineConnPlugin"
    out: dict[str, Any] = {}
    for part, value in (template or {}).items():
        if part not in ("metadata", "spec") or not isinstance(value, dict):
            raise InvalidSpecError(f"{field}.{part} is not taken: write metadata or spec")
        allowed = OVERLAY_METADATA if part == "metadata" else OVERLAY_SPEC
        for name in value:
            if name not in allowed:
                raise InvalidSpecError(f"{field}.{part}.{name} is not taken: {part} may hold {', '.join(allowed)}")
        if part == "spec":
            out["spec"] = dict(value)
        else:
            out |= {name: _texts(value.get(name), f"{field}.metadata.{name}") for name in OVERLAY_METADATA}
    return out


def _texts(value: Any, field: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise InvalidSpecError(f"{field} must map names to texts")
    for name in value:
        if str(name).startswith(_RESERVED_LABELS):
            raise InvalidSpecError(f"{field}.{name} is the operator's own: take another prefix")
    return dict(value)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in ("labels", "annotations", "spec"):
        merged[part] = below.get(part, {}) | above.get(part, {})
    return merged
