"""What a warm pool's pods are made of, which engines may take one, and how one becomes an engine's pod.

The template is the pod that the plugin gives an engine without wishes, built by `pod.spec.build_pod` like any other. An
engine fits if its own pod and the template differ only in what a claim carries: so a field that is added later starts
cold until it is named here. Pure. Must not choose a member.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from linkis_ecm.agent.formats.startup import ZONE, read_at_start
from linkis_ecm.engine.admission.overrides import USER_PREFIX
from linkis_ecm.engine.names import (
    CLAIMED_ANNOTATION,
    DISRUPTABLE,
    MEMBER_SIZE_ANNOTATION,
    MEMBER_UID,
    POOL_LABEL,
    TEMPLATE_ANNOTATION,
    TICKET_ANNOTATION,
    UNDISRUPTED,
    label_hash,
)
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod.spec import InvalidSpecError, Sizes, build_pod, sizes
from linkis_ecm.engine.pod_view import ENGINE_CONTAINER, SPEC_ANNOTATION, PodView
from linkis_ecm.engine.resizing import is_guaranteed
from linkis_ecm.engine.soft_pause import has_size
from linkis_ecm.engine.view import EngineView, PluginView
from linkis_ecm.model.engineconn import API_VERSION, EngineConnSpec
from linkis_ecm.model.formats import parse_quantity
from linkis_ecm.model.plugin import EngineConnPluginSpec
from linkis_ecm.model.pod_template import SPEC_FIELDS

# In a report's `takes`: what the member's kernel takes with a claim.
TAKES_ENV, TAKES_FOLDER = "env", "workingDir"
# Variables of a member's agent alone.
MEMBER_ENV, PRELOAD_ENV = "ECM_MEMBER", "ECM_PRELOAD"
# Say whose engine the pod is: a member has none.
_OWN_ENV = frozenset({"ECM_NAME", "ECM_UID", "ECM_ATTEMPT", "ECM_TICKET_ID"})
_WORK_DIR = "ECM_WORK_DIR"
# Before the names of the user's variables.
_USERS_ENV = launch.kernel_name("")
# Of the agent's variables, those whose value a claim replaces.
_CARRIED_ENV = _OWN_ENV | {"ECM_NAMESPACE", "ECM_STOP_GRACE", "ECM_START_TIMEOUT", MEMBER_ENV, PRELOAD_ENV}
# Labels that say whose pod it is.
_OWN_LABELS = frozenset(
    {
        "app.kubernetes.io/instance",
        "linkis.apache.org/engineconn",
        "linkis.apache.org/user",
        "linkis.apache.org/attempt",
    }
)
# Annotations that a claim writes.
_OWN_ANNOTATIONS = frozenset({TICKET_ANNOTATION, SPEC_ANNOTATION, *UNDISRUPTED})
# The operator's own, on members and on pods that were members.
_POOL_ANNOTATIONS = frozenset({TEMPLATE_ANNOTATION, CLAIMED_ANNOTATION, MEMBER_SIZE_ANNOTATION})
# Its size is fixed when the pod starts, half of the memory that the engine has then: a warm engine keeps the member's.
_SHARED_MEMORY = "shm"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a user writes for a field of the pod, where it is not podTemplate.
_WORDS = {
    "volumes": "spec.volumes",
    "terminationGracePeriodSeconds": "spec.stopGrace",
    "initContainers": "podTemplate of the EngineConnPlugin",
}
_CONTAINER_WORDS = {
    "volumeMounts": "spec.volumes",
    "image": "image of the EngineConnPlugin",
    "workingDir": "spec.workingDir",
}
_ENV_WORDS = {"ECM_MODE": "spec.mode", _WORK_DIR: "spec.workingDir"}


def template(plugin: PluginView, namespace: str, settings: PodSettings) -> dict[str, Any]:
    """The pod of a member without its name: `member_pod` gives it one.

    Raises InvalidSpecError, naming the field, where the plugin gives no pod, or a program that no claim can reach.
    """
    if not launch.has_agent(plugin.spec.launch or launch.AGENT):
        raise InvalidSpecError(
            "spec.warmPool needs launch.kind agent: a process takes no user's environment once it runs. Remove warmPool"
        )
    pod = default_pod(plugin, namespace, settings)
    metadata, spec = pod["metadata"], pod["spec"]
    metadata["name"] = ""
    metadata["labels"] = {name: value for name, value in metadata["labels"].items() if name not in _OWN_LABELS} | {
        POOL_LABEL: label_hash(plugin.name)
    }
    # Nothing is lost with a node whose members wait, so autoscalers may take it.
    kept = {name: value for name, value in metadata["annotations"].items() if name not in _OWN_ANNOTATIONS}
    metadata["annotations"] = kept | DISRUPTABLE
    # Without blockOwnerDeletion, for which the operator would need a right on the plugin's finalizers.
    metadata["ownerReferences"] = [
        {
            "apiVersion": API_VERSION,
            "kind": "EngineConnPlugin",
            "name": plugin.name,
            "uid": plugin.uid,
            "controller": True,
        }
    ]
    spec["hostname"] = ""
    container = _engine_container(pod)
    container["env"] = [
        *(one for one in container["env"] if one["name"] not in _OWN_ENV),
        {"name": MEMBER_ENV, "value": "1"},
        {"name": PRELOAD_ENV, "value": ",".join((plugin.spec.warm_pool and plugin.spec.warm_pool.preload) or [])},
    ]
    if (small := _small(plugin.spec)) is not None:
        for kind, amounts in small.as_container.items():
            container["resources"][kind] = container["resources"][kind] | amounts
    metadata["annotations"][TEMPLATE_ANNOTATION] = _digest(pod)
    return pod


def member_pod(made_from: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A pod of this template with a name of its own."""
    pod = copy.deepcopy(dict(made_from))
    pod["metadata"]["name"] = pod["spec"]["hostname"] = name
    return pod


def digest(plugin: PluginView, namespace: str, settings: PodSettings) -> str:
    """Names the template: another one where anything of it changed. Raises InvalidSpecError."""
    return digest_of(template(plugin, namespace, settings))


def digest_of(made_from: Mapping[str, Any]) -> str:
    """The digest that a template, or a member's pod, carries."""
    return str(made_from["metadata"]["annotations"].get(TEMPLATE_ANNOTATION, ""))


def differences(
    pod: dict[str, Any], template: dict[str, Any], takes: frozenset[str], member: PodView | None = None
) -> tuple[str, ...]:  # fmt: skip
    """The fields in which an engine's own pod and the template differ beyond what a claim carries, as users write them.

    Empty: the engine may have a member. `takes` is what the member's kernel takes with a claim (TAKES_ENV,
    TAKES_FOLDER). Whether it can get the engine's size is asked of the `member`, as the API server has it: a LimitRange
    may have given it a cpu limit. Without one, of the template. Sorted.
    """
    found: set[str] = set()
    preload = _preload_of(template)
    asked, has = _carried_out(pod, takes, preload), _carried_out(template, takes, preload)
    for part in ("labels", "annotations"):
        if asked["metadata"][part] != has["metadata"][part]:
            found.add(f"spec.podTemplate.metadata.{part}")
    if asked["metadata"]["namespace"] != has["metadata"]["namespace"]:
        found.add("metadata.namespace")
    found |= _different(asked["spec"], has["spec"], _word)
    found |= _different(asked["engine"], has["engine"], lambda name: _CONTAINER_WORDS.get(name, f"pod.{name}"))
    found |= _different(asked["env"], has["env"], lambda name: _env_word(name, preload))
    if pod["spec"]["terminationGracePeriodSeconds"] > template["spec"]["terminationGracePeriodSeconds"]:
        found.add("spec.stopGrace")
    if member is not None:
        found |= {f"spec.resources ({why})" for why in [unresizable(pod, member)] if why}
    elif is_guaranteed(pod["spec"]) != is_guaranteed(template["spec"]):
        # A resize must leave the quality-of-service class as it is.
        found.add("spec.resources.cpuLimit")
    return tuple(sorted(found))


def unresizable(pod: Mapping[str, Any], member: PodView) -> str:
    """Why the API server never gives the member the size of `pod`; "" where it has it, or where nothing is known."""
    wanted = resize(pod, member)
    return member.refuses(wanted) if wanted is not None else ""


def default_pod(plugin: PluginView, namespace: str, settings: PodSettings) -> dict[str, Any]:
    """The pod of an engine without wishes. Raises InvalidSpecError."""
    return build_pod(
        _stand_in(namespace), _no_wishes(plugin.spec), plugin.spec, ticket=MEMBER_UID, attempt=0, settings=settings
    )


def claim_patch(member: PodView, pod: dict[str, Any], attempt: int) -> list[dict[str, Any]]:
    """A JSON Patch that makes the member the pod of the engine for which `pod` was built.

    The API server refuses it (422) where the pod is another one by now, or no member any more. The annotation
    READY_ANNOTATION stays: it has the enrolment by which a successor of this process can finish the claim.
    """
    metadata = pod["metadata"]
    annotations = metadata["annotations"] | {CLAIMED_ANNOTATION: str(attempt)}
    if resize(pod, member) is not None:
        annotations[MEMBER_SIZE_ANNOTATION] = "/".join((member.cpu_request, member.cpu_limit, member.memory_limit))
    pool = f"/metadata/labels/{_pointer(POOL_LABEL)}"
    return [
        {"op": "test", "path": "/metadata/uid", "value": member.uid},
        {"op": "test", "path": pool, "value": member.member.pool if member.member is not None else ""},
        {"op": "remove", "path": pool},
        {"op": "replace", "path": "/metadata/ownerReferences", "value": metadata["ownerReferences"]},
        *(_added("labels", name, value) for name, value in sorted(metadata["labels"].items())),
        # What members have is taken away, also where somebody has done so already: a removal alone would fail then.
        *(_added("annotations", name, value) for name, value in sorted((DISRUPTABLE | annotations).items())),
        *(
            {"op": "remove", "path": f"/metadata/annotations/{_pointer(name)}"}
            for name in sorted(DISRUPTABLE.keys() - annotations.keys())
        ),
    ]


def claim_environment(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """The variables of the engine's own pod as the claim carries them: literal values as the container would see them.

    Entries with `valueFrom` are left for the caller to resolve, the plugin's too: the kubelet read a member's Secrets
    when the member was made, and they may be others by now.
    """
    return [
        # Kubernetes reads $$ as one dollar sign; nobody does that for a claim.
        one if "valueFrom" in one else {"name": one["name"], "value": one["value"].replace("$$", "$")}
        for one in _engine_container(pod)["env"]
    ]


def resize(pod: Mapping[str, Any], member: PodView) -> dict[str, Any] | None:
    """Cpu and memory that the member must get for the engine of `pod`, as a container has them; None if it has them."""
    resources = _engine_container(pod)["resources"]
    wanted = {kind: {name: resources[kind][name] for name in ("cpu", "memory") if name in resources[kind]}
              for kind in ("requests", "limits")}  # fmt: skip
    requests, limits = wanted["requests"], wanted["limits"]
    has_them = has_size(member, cpu=requests["cpu"], cpu_limit=limits.get("cpu"), memory=limits["memory"])
    return None if has_them else wanted


def member_sizes(plugin: EngineConnPluginSpec) -> Sizes:
    """What a member has before a claim."""
    return _small(plugin) or sizes(_no_wishes(plugin), plugin)


def _stand_in(namespace: str) -> EngineView:
    """An engine of nobody, for the builder of pods."""
    return EngineView(
        namespace=namespace, name=MEMBER_UID, uid=MEMBER_UID, version=0, generation=0, created=_EPOCH, deleting=False,
        spec=None, invalid="", status={},
    )  # fmt: skip


def _no_wishes(plugin: EngineConnPluginSpec) -> EngineConnSpec:
    return EngineConnSpec.model_validate({"user": MEMBER_UID, "engineType": plugin.engine_type})


def _small(plugin: EngineConnPluginSpec) -> Sizes | None:
    """What a member has in place of an engine's default; None where the plugin gives no other amounts.

    A plugin whose engines have as much cpu as they ask for and no more (quality of service Guaranteed) gets such
    members: a resize must not change that class.
    """
    given = plugin.warm_pool.resources if plugin.warm_pool is not None else None
    if given is None:
        return None
    default = plugin.default_resources
    limit = default.cpu_limit
    if limit is not None and (
        parse_quantity(limit) == parse_quantity(default.cpu) or parse_quantity(limit) < parse_quantity(given.cpu)
    ):
        limit = given.cpu
    return Sizes(given.cpu, limit, given.memory, plugin.memory_request_percent or 100)


def _digest(pod: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(pod, sort_keys=True).encode()).hexdigest()[:32]


def _engine_container(pod: Mapping[str, Any]) -> dict[str, Any]:
    return next(one for one in pod["spec"]["containers"] if one["name"] == ENGINE_CONTAINER)


def _preload_of(template: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules that its kernel has imported."""
    given = next((one["value"] for one in _engine_container(template)["env"] if one["name"] == PRELOAD_ENV), "")
    return tuple(filter(None, given.split(",")))


def _carried_out(pod: dict[str, Any], takes: frozenset[str], preload: tuple[str, ...]) -> dict[str, Any]:
    """The pod without what a claim carries, in the parts that are compared."""
    metadata, container = pod["metadata"], _engine_container(pod)
    spec = {
        name: value
        for name, value in pod["spec"].items()
        if name not in ("hostname", "terminationGracePeriodSeconds", "containers")
    }
    spec["volumes"] = [{"name": _SHARED_MEMORY} if one["name"] == _SHARED_MEMORY else one for one in spec["volumes"]]
    spec["sidecars"] = [one for one in pod["spec"]["containers"] if one["name"] != ENGINE_CONTAINER]
    fixed = {
        kind: {name: amount for name, amount in amounts.items() if name not in ("cpu", "memory")}
        for kind, amounts in container["resources"].items()
    }
    disk = {kind: amounts.pop("ephemeral-storage", None) for kind, amounts in fixed.items()}
    engine = {name: value for name, value in container.items() if name not in ("env", "resources")}
    spec["disk"], spec["extended"] = disk, fixed
    return {
        "metadata": {
            "namespace": metadata["namespace"],
            "labels": _foreign(metadata["labels"], _OWN_LABELS | {POOL_LABEL}),
            "annotations": _foreign(metadata["annotations"], _OWN_ANNOTATIONS | _POOL_ANNOTATIONS),
        },
        "spec": spec,
        "engine": engine,
        "env": {one["name"]: one for one in container["env"] if not _env_carried(one, takes, preload)},
    }


def _foreign(given: Mapping[str, str], own: frozenset[str]) -> dict[str, str]:
    """Labels or annotations that only a new pod can have: other programs may read them when it is made."""
    return {name: value for name, value in given.items() if name not in own and not name.startswith(USER_PREFIX)}


def _env_carried(entry: Mapping[str, Any], takes: frozenset[str], preload: tuple[str, ...]) -> bool:
    name = entry["name"]
    if name == _WORK_DIR:
        return TAKES_FOLDER in takes
    if not name.startswith(_USERS_ENV):
        return name in _CARRIED_ENV
    return TAKES_ENV in takes and not read_at_start(name.removeprefix(_USERS_ENV), preload, entry.get("value", ""))


def _env_word(name: str, preload: tuple[str, ...]) -> str:
    variable = name.removeprefix(_USERS_ENV)
    named = variable == ZONE or read_at_start(variable, preload)
    return f"spec.env {variable}" if named else _ENV_WORDS.get(name, "spec.env")


def _different(asked: Mapping[str, Any], has: Mapping[str, Any], word: Callable[[str], str]) -> set[str]:
    return {word(name) for name in asked.keys() | has.keys() if asked.get(name) != has.get(name)}


def _word(name: str) -> str:
    if name in SPEC_FIELDS:
        return f"spec.podTemplate.spec.{name}"
    words = _WORDS | {
        "disk": "spec.volumes", "extended": "spec.resources.extended", "sidecars": _WORDS["initContainers"],
    }  # fmt: skip
    return words.get(name, f"pod.spec.{name}")


def _pointer(name: str) -> str:
    """A key as a part of a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _added(part: str, name: str, value: str) -> dict[str, Any]:
    return {"op": "add", "path": f"/metadata/{part}/{_pointer(name)}", "value": value}
