"""The volumes of an engine's pod, and the containers that its plugin puts beside the engine. Pure.

Whatever their author writes, a volume hides nothing of the system or of the agent, and a container is as restricted as
the engine's own. Must not know what else a pod is made of.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

from linkis_ecm.engine.names import PLUGIN_VOLUME
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod.launch import LOG_DIR
from linkis_ecm.model import amounts
from linkis_ecm.model.engineconn import EngineConnSpec, EnvVar, Volume
from linkis_ecm.model.formats import parse_quantity
from linkis_ecm.model.plugin import EngineConnPluginSpec, Storage
from linkis_ecm.model.pod_containers import broken_amounts

# Where programs of the image are, what the kernel shows, and what the agent writes to: a mount there would replace code
# that runs before the user's.
_SYSTEM_FOLDERS = (
    "/bin/", "/boot/", "/dev/", "/etc/", "/opt/", "/proc/", "/root/", "/run/", "/sbin/", "/sys/", "/usr/", "/var/run/",
    "/var/lock/", f"{LOG_DIR}/", f"{launch.IDENTITY_DIR}/",
)  # fmt: skip
_WHOLE_FOLDERS = ("/", "/tmp", "/var", "/var/log", "/var/lib")  # noqa: S108 - as a name
_LIB = re.compile(r"/lib(32|64|x32|exec)?(/|$)")
# Before the names of an engine's own volumes in its pod.
USER_VOLUME = "user-"
# Of each container, whoever wrote it: what the pod security standard `restricted` asks, and no writes to the image.
RESTRICTED = {
    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
}  # fmt: skip


class InvalidSpecError(ValueError):
    """The engine's spec cannot be turned into a pod; the text names the field and the remedy."""


def require_amount(kind: amounts.Kind, text: str, where: str, *, of_plugin: bool) -> None:
    """Raises InvalidSpecError for an amount under the least of its kind; `where` is its field."""
    if fault := amounts.too_small(kind, text):
        whose, remedy = (" of the EngineConnPlugin", "have the platform give") if of_plugin else ("", "ask for")
        raise InvalidSpecError(f"{where} {text}{whose} {fault}: {remedy} {amounts.LEAST[kind]} or more")


def plugin_volumes(
    volumes: list[Volume], storage: Storage, *, protected: frozenset[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Mounts and sources of the plugin's own volumes. Their sizes are the platform's: only absent ones are bounded."""
    mounts, sources = [], []
    for volume in volumes:
        name = f"{PLUGIN_VOLUME}{volume.name}"
        _refuse_protected_volume(volume, protected, whose="volumes of the EngineConnPlugin")
        mounts.append({"name": name, "mountPath": _mount_path(volume, "volumes of the EngineConnPlugin"),
                       "readOnly": volume.read_only})  # fmt: skip
        body = volume.model_dump(by_alias=True, exclude_none=True, exclude={"name", "mount_path", "read_only"})
        if volume.empty_dir is not None:
            size = volume.empty_dir.size_limit or storage.volumes
            require_amount("disk", size, f"volumes {volume.name}: sizeLimit", of_plugin=True)
            body = {"emptyDir": {"sizeLimit": size}}
        sources.append({"name": name} | body)
    return mounts, sources


def refuse_hidden(volumes: list[Volume], fixed: list[Volume]) -> None:
    """Raises InvalidSpecError for an engine's mount that would hide, or stand in, one of its plugin's."""
    for volume in volumes:
        path = f"{_normal(volume)}/"
        for own in fixed:
            other = f"{_normal(own)}/"
            if path.startswith(other) or other.startswith(path):
                raise InvalidSpecError(
                    f"spec.volumes {volume.name}: mountPath {volume.mount_path} is where the EngineConnPlugin has its"
                    f" volume {own.name} ({own.mount_path}): take another"
                )


def containers_beside(
    pod_spec: dict[str, Any], volumes: list[Volume], *, protected: frozenset[str]
) -> dict[str, list[dict[str, Any]]]:
    """Takes the plugin's containers out of the overlay, and returns them as the pod has them, by kind."""
    known, names = {volume.name for volume in volumes}, {"engine"}
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in ("initContainers", "containers"):
        found[kind] = []
        where = f"podTemplate.spec.{kind} of the EngineConnPlugin"
        for body in _objects(pod_spec.pop(kind, None), where):
            name = body.get("name")
            if not name or not body.get("image") or name in names:
                raise InvalidSpecError(f"{where}: give each its image and a name of its own, other than engine")
            names.add(name)
            mounts = _objects(body.get("volumeMounts"), f"{where}: volumeMounts of {name}")
            for mount in mounts:
                if mount.get("name") not in known:
                    raise InvalidSpecError(
                        f"{where}: {name} mounts {mount.get('name')}, and the plugin's volumes are"
                        f" {', '.join(sorted(known)) or 'none'}"
                    )
            for variable in _objects(body.get("env"), f"{where}: env of {name}"):
                secret = _part(_part(variable, "valueFrom"), "secretKeyRef").get("name")
                if secret:
                    _refuse_protected(f"{where}: {name}", "secret", str(secret), protected)
            if fault := broken_amounts(_part(body, "resources")):
                raise InvalidSpecError(f"{where}: resources of {name}: {fault}")
            found[kind].append(
                body
                | {"volumeMounts": [mount | {"name": f"{PLUGIN_VOLUME}{mount['name']}"} for mount in mounts]}
                | {"securityContext": RESTRICTED, "terminationMessagePolicy": "FallbackToLogsOnError"}
            )
    return found


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    """What the API server's schema holds, asked again of what was stored before it."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidSpecError(f"{where} must be a list of objects")
    return value


def _part(body: dict[str, Any], name: str) -> dict[str, Any]:
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def engine_volumes(
    volumes: list[Volume], storage: Storage, *, protected: frozenset[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    mounts, sources = [], []
    for volume in volumes:
        name = f"{USER_VOLUME}{volume.name}"
        path = _mount_path(volume)
        _refuse_protected_volume(volume, protected)
        mounts.append({"name": name, "mountPath": path, "readOnly": volume.read_only})
        body = volume.model_dump(by_alias=True, exclude_none=True, exclude={"name", "mount_path", "read_only"})
        if volume.empty_dir is not None:
            body = {"emptyDir": {"sizeLimit": _scratch_size(volume.name, volume.empty_dir.size_limit, storage)}}
        sources.append({"name": name} | body)
    return mounts, sources


def _scratch_size(name: str, asked: str | None, storage: Storage) -> str:
    """The size of an emptyDir of the engine; raises InvalidSpecError over the plugin's bound and for one of 0."""
    if asked is not None:
        require_amount("disk", asked, f"spec.volumes {name}: sizeLimit", of_plugin=False)
    if asked is not None and parse_quantity(asked) > parse_quantity(storage.volumes):
        raise InvalidSpecError(
            f"spec.volumes {name}: sizeLimit {asked} is over the plugin's {storage.volumes} for scratch space: ask for"
            f" {storage.volumes} at most, or ask the platform for a greater storage.volumes in the EngineConnPlugin"
        )
    return asked or storage.volumes


def working_dir_of(spec: EngineConnSpec, plugin: EngineConnPluginSpec, mounts: list[str]) -> str | None:
    """Where the engine's code starts; None: in its home. Raises InvalidSpecError for a folder that is not the author's.

    The plugin's may be any folder of its image.
    """
    if spec.working_dir is None:
        return _normal_path(plugin.working_dir) if plugin.working_dir is not None else None
    path = _normal_path(spec.working_dir)
    if not any(f"{path}/".startswith(f"{own}/") for own in ("/tmp", *mounts)):  # noqa: S108 - as a name
        raise InvalidSpecError(
            f"spec.workingDir {spec.working_dir} is in none of spec.volumes: take the mountPath of one, /tmp, or a"
            " folder below"
        )
    return path


def _normal(volume: Volume) -> str:
    return _normal_path(volume.mount_path)


def _normal_path(path: str) -> str:
    # normpath keeps two leading slashes, which POSIX leaves open and Linux does not.
    return "/" + posixpath.normpath(path).lstrip("/")


def _mount_path(volume: Volume, whose: str = "spec.volumes") -> str:
    """The path as the kubelet would find it; raises InvalidSpecError for a folder of the system or of the agent."""
    path = _normal(volume)
    if path in _WHOLE_FOLDERS or f"{path}/".startswith(_SYSTEM_FOLDERS) or _LIB.match(path):
        raise InvalidSpecError(
            f"{whose} {volume.name}: mountPath {volume.mount_path} is the engine's own: take another"
        )
    return path


def _refuse_protected_volume(volume: Volume, protected: frozenset[str], whose: str = "spec.volumes") -> None:
    """Raises InvalidSpecError for an object that holds this ECM's keys or records."""
    if volume.secret is not None:
        _refuse_protected(f"{whose} {volume.name}", "secret", volume.secret.secret_name, protected)
    elif volume.persistent_volume_claim is not None:
        claim = volume.persistent_volume_claim.claim_name
        _refuse_protected(f"{whose} {volume.name}", "persistentvolumeclaim", claim, protected)


def refuse_protected_env(variables: list[EnvVar], protected: frozenset[str]) -> None:
    for variable in variables:
        if variable.value_from is not None:
            secret = variable.value_from.secret_key_ref.name
            _refuse_protected(f"spec.env {variable.name}", "secret", secret, protected)


def _refuse_protected(field: str, kind: str, named: str, protected: frozenset[str]) -> None:
    # Helm keeps a release's values there, passwords among them.
    if f"{kind}/{named}" in protected or (kind == "secret" and named.startswith("sh.helm.release.")):
        raise InvalidSpecError(f"{field}: {kind} {named} is the ECM's own: take another")
