"""Builds an engine's pod, as plain data, from the engine and its plugin.

Restricted by the pod security standard whatever the engine's author writes: the overlay is taken by an allow-list,
because the operator makes the pod with its own rights. Image, command, arguments and environment come from the plugin;
what depends on the kind of launch comes from `engine.pod.launch`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from linkis_ecm.engine.admission import overrides
from linkis_ecm.engine.names import (
    INSTANCE,
    MANAGED_BY,
    TICKET_ANNOTATION,
    UNDISRUPTED,
    label_hash,
    pod_name,
)
from linkis_ecm.engine.pending import digests
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod.launch import LOG_DIR, PodSettings
from linkis_ecm.engine.pod.volumes import (
    RESTRICTED,
    USER_VOLUME,
    containers_beside,
    engine_volumes,
    plugin_volumes,
    refuse_hidden,
    refuse_protected_env,
    require_amount,
    working_dir_of,
)
from linkis_ecm.engine.pod.volumes import InvalidSpecError as InvalidSpecError  # noqa: PLC0414 - known by this module's name
from linkis_ecm.engine.pod_view import SPEC_ANNOTATION
from linkis_ecm.engine.view import EngineView, PluginView
from linkis_ecm.model.amounts import STOP_GRACE_MAX, Kind
from linkis_ecm.model.engineconn import API_VERSION, EngineConnSpec, EnvVar, Resources
from linkis_ecm.model.formats import parse_duration, parse_quantity
from linkis_ecm.model.plugin import LOG_VOLUME, EngineConnPluginSpec, FullResources, Storage, least_disk
from linkis_ecm.model.pod_template import PLUGIN_FIELDS, PLUGIN_SCHEMA, SCHEMA, SPEC_FIELDS, excess, not_taken

# The images' user (Dockerfile).
USER_ID = 10001
# A memory filesystem in place of the runtime's 64 MiB, on which pytorch's loaders, Chrome and databases die by SIGBUS.
# Its size is half of the memory limit, as Linux gives it half of a machine's memory: its pages count to that limit, so
# one that is full ends with an error of its own before the container is out of memory.
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a volume of the engine's own
# A running task, or a process, may go on for this long when the engine is to end, where nobody says otherwise.
GRACE_SECONDS = 30
GRACE_MAX = int(parse_duration(STOP_GRACE_MAX))

OVERLAY_METADATA = ("labels", "annotations")
# What runtimes of devices read in a container's environment: where one is a node's default, a variable alone gives a
# container all GPUs of the node, uncounted. An agent's container has the user's variables under other names.
_DEVICE_ENV = frozenset(
    {f"{maker}_VISIBLE_DEVICES" for maker in ("NVIDIA", "AMD", "ASCEND", "CAMBRICON", "HABANA", "MTHREADS", "METAX")}
    | {"NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES", "NVIDIA_IMEX_CHANNELS"}
)
_RESERVED_LABELS = ("app.kubernetes.io/", "linkis.apache.org/")


@dataclass(frozen=True, slots=True)
class Sizes:
    """The resources that an engine gets: texts for the pod, numbers for the record."""

    cpu: str
    cpu_limit: str | None
    memory: str
    memory_percent: int = 100
    # Extended resources by name, sorted.
    extended: tuple[tuple[str, int], ...] = ()

    @property
    def as_container(self) -> dict[str, dict[str, str]]:
        """Cpu and memory as a container of a pod has them: what can be changed while it runs."""
        limits = {"memory": self.memory} | ({"cpu": self.cpu_limit} if self.cpu_limit else {})
        return {"requests": {"cpu": self.cpu, "memory": self._memory_request}, "limits": limits}

    @property
    def whole_container(self) -> dict[str, dict[str, str]]:
        """The same with the extended resources, which a pod gets once."""
        extended = {name: str(number) for name, number in self.extended}
        return {kind: amounts | extended for kind, amounts in self.as_container.items()}

    @property
    def _memory_request(self) -> str:
        if self.memory_percent == 100:
            return self.memory
        mebi = -(-self.memory_bytes * self.memory_percent // (100 << 20))
        return f"{mebi}Mi" if mebi << 20 <= self.memory_bytes else self.memory

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
    """`stopGrace` in seconds, an hour at most: a spec may be edited after its pod was made, or be older than the
    bound."""
    return min(_grace(text), GRACE_MAX)


def _grace(text: str | None) -> int:
    return int(parse_duration(text)) if text else GRACE_SECONDS


def chosen_sizes(spec: EngineConnSpec, plugin: EngineConnPluginSpec) -> Sizes:
    """What the engine asks for, else the plugin's defaults; raises InvalidSpecError for devices alone."""
    wish, default = spec.resources or _NO_WISH, plugin.default_resources
    return Sizes(
        wish.cpu or default.cpu, wish.cpu_limit or default.cpu_limit, wish.memory or default.memory,
        plugin.memory_request_percent or 100, _extended(wish.extended or {}, plugin),
    )  # fmt: skip


def sizes(spec: EngineConnSpec, plugin: EngineConnPluginSpec) -> Sizes:
    """The same; raises InvalidSpecError under the least amounts and over the plugin's bounds."""
    chosen, wish, bound = chosen_sizes(spec, plugin), spec.resources or _NO_WISH, plugin.max_resources
    _refuse_too_small("spec.resources", wish)
    _refuse_too_small("defaultResources", plugin.default_resources, wish)
    if bound is not None:
        _refuse_too_small("maxResources", bound)
        for field, asked, most in (("cpu", chosen.cpu, bound.cpu), ("memory", chosen.memory, bound.memory)):
            if parse_quantity(asked) > parse_quantity(most):
                raise InvalidSpecError(
                    f"spec.resources.{field} {asked} is over the plugin's {most}: ask for {most} at most"
                )
    try:
        overrides.check_cpu_limit(plugin, wish.cpu_limit)
    except overrides.FixedError as error:
        raise InvalidSpecError(str(error)) from None
    if chosen.cpu_limit is not None and parse_quantity(chosen.cpu_limit) < parse_quantity(chosen.cpu):
        raise InvalidSpecError(
            f"spec.resources.cpuLimit {chosen.cpu_limit} is under cpu {chosen.cpu}: raise it or leave it out"
        )
    return chosen


def sizes_now(engine: EngineView, plugin: PluginView | None) -> Sizes | None:
    """What a pod of the engine would get by now: its spec may have been edited. None where it can have no pod."""
    if engine.spec is None or plugin is None:
        return None
    try:
        return sizes(engine.spec, plugin.spec)
    except InvalidSpecError:
        return None


_NO_WISH = Resources(cpu=None, cpu_limit=None, memory=None, extended=None)


def _refuse_too_small(where: str, given: Resources | FullResources, instead: Resources = _NO_WISH) -> None:
    """Raises InvalidSpecError for an amount of `given` under the least; one that `instead` replaces is not looked at.

    The API server refuses most of them. Objects that it had stored before it did still have them.
    """
    amounts: tuple[tuple[str, Kind, str | None, str | None], ...] = (
        ("cpu", "cpu", given.cpu, instead.cpu),
        ("cpuLimit", "cpu", given.cpu_limit, instead.cpu_limit),
        ("memory", "memory", given.memory, instead.memory),
    )
    for field, kind, amount, replaced in amounts:
        if amount is not None and replaced is None:
            require_amount(kind, amount, f"{where}.{field}", of_plugin=isinstance(given, FullResources))


def _extended(wish: Mapping[str, int], plugin: EngineConnPluginSpec) -> tuple[tuple[str, int], ...]:
    """The plugin's default with what the engine asks for; raises InvalidSpecError for what the plugin does not offer.

    A device may be the node's own, such as /dev/kvm, and GPUs are few: an engine gets none unasked for by the platform.
    """
    default = plugin.default_resources.extended or {}
    bound = (plugin.max_resources.extended or {}) if plugin.max_resources is not None else {}
    for name, asked in wish.items():
        most = bound.get(name, default.get(name, 0))
        if asked > most:
            offered = ", ".join(sorted(key for key, number in (default | bound).items() if number)) or "none"
            raise InvalidSpecError(
                f"spec.resources.extended {name} {asked} is over the plugin's {most}: ask for {most} at most, or ask"
                f" the platform for maxResources.extended in the EngineConnPlugin (it offers {offered})"
            )
    return tuple(sorted((name, number) for name, number in (default | dict(wish)).items() if number))


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
    size = sizes(spec, plugin)
    launched = plugin.launch or launch.AGENT
    try:
        overrides.check_lifetimes(plugin, spec.idle_timeout, spec.max_lifetime)
        overlay = _merged(plugin, spec, admission=settings.admission)
        env = _user_env(plugin, spec, for_kernel=launch.has_agent(launched))
    except overrides.FixedError as error:
        raise InvalidSpecError(str(error)) from None
    # A plugin that was stored before the bound still has a catalogue's worth of engines to start.
    grace = grace_seconds(spec.stop_grace) if spec.stop_grace else bounded_grace(plugin.stop_grace)
    storage = plugin.storage or Storage.model_validate({})
    protected = settings.protected_in(engine.namespace)
    refuse_protected_env(spec.env or [], protected)
    for field, room in (("tmp", storage.tmp), ("volumes", storage.volumes)):
        require_amount("disk", room, f"storage.{field}", of_plugin=True)
    given_mounts, given = plugin_volumes(plugin.volumes or [], storage, protected=protected)
    mounts, volumes = engine_volumes(spec.volumes or [], storage, protected=protected)
    refuse_hidden(spec.volumes or [], plugin.volumes or [])
    mounts, volumes = [*given_mounts, *mounts], [*given, *volumes]
    pod_spec = dict(overlay.get("spec", {}))
    beside = containers_beside(pod_spec, plugin.volumes or [], protected=protected)
    working_dir = working_dir_of(spec, plugin, [mount["mountPath"] for mount in mounts])
    if launch.has_agent(launched):
        identity = {"name": "identity", "mountPath": launch.IDENTITY_DIR, "readOnly": True}
        mounts = [{"name": "log", "mountPath": LOG_DIR}, identity, *mounts]
        volumes = [{"name": "log", "emptyDir": {"sizeLimit": LOG_VOLUME}}, launch.identity_volume(), *volumes]
        env += launch.agent_env(
            engine, engine_type=plugin.engine_type, mode=spec.mode, ticket=ticket, attempt=attempt, grace=grace,
            start_timeout=parse_duration(spec.start_timeout or plugin.start_timeout),
            max_processes=plugin.max_processes, working_dir=working_dir, settings=settings,
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
        "resources": _with_disk(size.whole_container, plugin, volumes),
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "shm", "mountPath": SHARED_MEMORY},
            *mounts,
        ],
        # The last lines of the log say why an engine died even after its files are gone.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    for field, value in (
        ("imagePullPolicy", plugin.image_pull_policy),
        ("command", plugin.command),
        ("args", plugin.args),
        ("readinessProbe", launch.readiness_probe(launched)),
        # An agent makes the folder and goes there itself: a runtime would make it as root.
        ("workingDir", None if launch.has_agent(launched) else working_dir),
    ):
        if value is not None:
            container[field] = value
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": engine.namespace,
            "labels": overlay.get("labels", {})
            | _labels(engine, spec, plugin, attempt, settings.instance)
            | launch.pod_labels(launched),
            "annotations": overlay.get("annotations", {})
            | {TICKET_ANNOTATION: ticket, SPEC_ANNOTATION: json.dumps(dict(digests(spec)))}
            | launch.pod_annotations(launched)
            # Of a plugin that holds busy engines, the operator takes them away once the engine is idle.
            | (UNDISRUPTED if plugin.do_not_disrupt in ("always", "busy") else {}),
            "ownerReferences": [_owner(engine)],
        },
        "spec": pod_spec
        | ({"initContainers": beside["initContainers"]} if beside["initContainers"] else {})
        | ({"hostUsers": False} if plugin.user_namespaces else {})
        | {
            "hostname": name,
            "subdomain": settings.service,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": launch.termination_grace(launched, grace),
            "securityContext": _security_context(plugin),
            "containers": [container, *beside["containers"]],
            "volumes": [
                {"name": "tmp", "emptyDir": {"sizeLimit": storage.tmp}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(size.memory_bytes // 2)}},
                *volumes,
            ],
        },
    }


def _security_context(plugin: EngineConnPluginSpec) -> dict[str, Any]:
    """Whoever engines run as, they are never root, as an image's own user could be."""
    users: dict[str, Any] = {"runAsUser": USER_ID, "runAsGroup": USER_ID, "fsGroup": USER_ID}
    if plugin.security_context is not None:
        users = plugin.security_context.model_dump(by_alias=True, exclude_none=True)
    return {"runAsNonRoot": True} | users | {"seccompProfile": {"type": "RuntimeDefault"}}


def _owner(engine: EngineView) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "EngineConn",
        "name": engine.name,
        "uid": engine.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _labels(
    engine: EngineView, spec: EngineConnSpec, plugin: EngineConnPluginSpec, attempt: int, instance: str
) -> dict[str, str]:
    return ({INSTANCE: label_hash(instance)} if instance else {}) | {
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


def _user_env(plugin: EngineConnPluginSpec, spec: EngineConnSpec, *, for_kernel: bool) -> list[dict[str, Any]]:
    """The plugin's variables as the platform wrote them; the engine's for its kernel alone, where there is an agent.

    Raises overrides.FixedError for a variable that the plugin fixed.
    """
    wished = spec.env or []
    overrides.check_env(plugin, wished)
    for variable in wished if not for_kernel else ():
        if variable.name in _DEVICE_ENV and not overrides.may_override(plugin, "env", variable.name):
            raise overrides.FixedError(
                f"spec.env {variable.name} gives a container devices of its node: ask for them in"
                " spec.resources.extended"
            )
    merged = {variable.name: variable for variable in plugin.env or []}
    merged |= {launch.kernel_name(one.name) if for_kernel else one.name: one for one in wished}
    return [{"name": name} | _env_value(variable) for name, variable in merged.items()]


def _env_value(variable: EnvVar) -> dict[str, Any]:
    if variable.value_from is not None:
        return {"valueFrom": variable.value_from.model_dump(by_alias=True)}
    # A variable of the user may hold a dollar sign: Kubernetes would expand $(NAME).
    return {"value": variable.value.replace("$", "$$")}


def _with_disk(
    resources: dict[str, dict[str, str]], plugin: EngineConnPluginSpec, volumes: list[dict[str, Any]]
) -> dict[str, dict[str, str]]:
    """The container's resources with a limit of local disk: all emptyDirs of the pod and the container's output.

    The request is written too: without one, Kubernetes takes the limit for it, and a node has room for a few engines.
    Raises InvalidSpecError for a request above the limit, which a plugin has that was stored before that was refused.
    """
    storage = plugin.storage or Storage.model_validate({})
    users = any("emptyDir" in volume for volume in volumes if volume["name"].startswith(USER_VOLUME))
    sizes = (*least_disk(plugin), *((storage.volumes,) if users else ()))
    # Whole mebibytes, and no fewer than all together.
    most = math.ceil(sum(map(parse_quantity, sizes)) / (1 << 20))
    if parse_quantity(storage.request) > most << 20:
        raise InvalidSpecError(
            f"storage.request {storage.request} of the EngineConnPlugin is above the {most}Mi of disk that the"
            " engine may use: have the platform lower it or raise storage.tmp"
        )
    return {
        "requests": resources["requests"] | {"ephemeral-storage": storage.request},
        "limits": resources["limits"] | {"ephemeral-storage": f"{most}Mi"},
    }


def _overlay(template: dict[str, Any] | None, whose: str) -> dict[str, Any]:
    """The allowed part of an overlay as {labels, annotations, spec}; raises InvalidSpecError for anything else."""
    field = "spec.podTemplate" if whose == "engine" else "podTemplate of the EngineConnPlugin"
    out: dict[str, Any] = {}
    for part, value in (template or {}).items():
        if part not in ("metadata", "spec") or not isinstance(value, dict):
            raise InvalidSpecError(f"{field}.{part} is not taken: write metadata or spec")
        allowed = OVERLAY_METADATA if part == "metadata" else SPEC_FIELDS if whose == "engine" else PLUGIN_FIELDS
        for name in value:
            if name not in allowed:
                raise InvalidSpecError(not_taken(field, part, name, allowed))
        if part == "spec":
            out["spec"] = dict(value)
        else:
            out |= {name: _texts(value.get(name), f"{field}.metadata.{name}") for name in OVERLAY_METADATA}
    # The API server holds these bounds; what was stored before it knew them is refused here.
    if over := excess(template or {}, SCHEMA if whose == "engine" else PLUGIN_SCHEMA):
        raise InvalidSpecError(f"{field}{over.removeprefix('podTemplate')}: make it smaller")
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


def _merged(plugin: EngineConnPluginSpec, spec: EngineConnSpec, *, admission: bool) -> dict[str, Any]:
    below, above = _overlay(plugin.pod_template, "plugin"), _overlay(spec.pod_template, "engine")
    merged: dict[str, Any] = {
        part: overrides.merged_metadata(
            plugin, part, below.get(part, {}), above.get(part, {}), f"spec.podTemplate.metadata.{part}"
        )
        for part in OVERLAY_METADATA
    }
    merged["spec"] = overrides.merged_pod_spec(
        plugin, below.get("spec", {}), above.get("spec", {}), admission=admission
    )
    return merged
