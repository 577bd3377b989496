"""The custom resource EngineConnPlugin: one entry of the catalogue of engines (cluster-scoped).

It says which image runs an engine type and version, and with what defaults and bounds. See `model.engineconn` for how
models, CRD and parsing hang together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, model_validator

from linkis_ecm.model import pod_containers
from linkis_ecm.model.amounts import (
    START_TIMEOUT,
    STORED,
    WHOLE,
    Amount,
    AtMost,
    Before,
    Bound,
    Duration,
    Quantity,
    StartTimeout,
    StopGrace,
    broken_bound,
)
from linkis_ecm.model.engine_status import LIST_MAP_TYPE, Condition
from linkis_ecm.model.engineconn import (
    LIST_MAP_NAME,
    NO_SYSTEM_GROUP_TEXT,
    POD_TEMPLATE_TEXT,
    SHARED_LEVELS,
    WORKING_DIR_RULE,
    Camel,
    EngineTypeName,
    EngineVersion,
    EnvVar,
    GroupName,
    Launch,
    MountPath,
    PluginPodTemplate,
    RestartPolicy,
    RunType,
    UserName,
    Volume,
    linkis_name,
    rule,
)
from linkis_ecm.model.extended import Extended
from linkis_ecm.model.formats import parse_quantity
from linkis_ecm.model.warm_pool import SoftPause, WarmPool, WarmPoolStatus

# The longest that is in use is a few lines of shell; as long as a variable's value may be.
Argument = Annotated[str, Field(max_length=4096)]

# A field that engines may replace though the plugin sets it; of maps also one key.
_WHOLE_FIELDS = (
    "affinity", "annotations", "cpuLimit", "dnsConfig", "env", "idleTimeout", "imagePullSecrets", "labels",
    "maxLifetime", "nodeSelector", "priorityClassName", "runtimeClassName", "schedulerName", "tolerations",
    "topologySpreadConstraints",
)  # fmt: skip
_KEYED_FIELDS = ("affinity", "annotations", "dnsConfig", "env", "labels", "nodeSelector")
OVERRIDABLE_PATTERN = rf"^(({'|'.join(_WHOLE_FIELDS)})|({'|'.join(_KEYED_FIELDS)})/[A-Za-z0-9][A-Za-z0-9_./-]*)$"
# A user or group that is not root.
Id = Annotated[int, Field(ge=1, le=2**31 - 1)]
Overridable = Annotated[str, Field(pattern=OVERRIDABLE_PATTERN, max_length=320), WHOLE]


class FullResources(Camel):
    """Both figures, given; see Resources of an EngineConn."""

    cpu: Amount = Field(description="CPU, such as 500m or 2.")
    cpu_limit: Amount | None = Field(None, description="No limit where absent.")
    memory: Amount = Field(description="Memory, such as 512Mi or 2Gi.")
    extended: Extended | None = Field(
        None,
        description="GPUs and what else a device plugin offers, such as {nvidia.com/gpu: 1}. An engine may ask for"
        " those that maxResources names, else defaultResources, and for so many at most.",
    )


class Storage(Camel):
    """Local disk of one engine. Beyond it the kubelet evicts the pod (reason StorageExceeded)."""

    tmp: Amount = Field("4Gi", description="Room in /tmp.")
    volumes: Amount = Field(
        "8Gi",
        description="Room in the engine's emptyDir volumes together. A sizeLimit over it is refused; a volume without"
        " sizeLimit gets all of it.",
    )
    request: Quantity = Field(
        "0",
        description="What the scheduler sets aside on the node; 0 also suits nodes that count no local disk. Not above"
        " what each engine may use.",
    )


class PluginMaterial(Camel):
    """A file of the engine in Linkis's material library (BML)."""

    file_name: str = Field(min_length=1, max_length=255)
    file_size: int = Field(0, ge=0, description="Bytes.")
    last_modified: int = Field(0, ge=0, description="Milliseconds since 1970.")
    resource_id: str = Field(min_length=1, max_length=100)
    resource_version: Annotated[str, Field(pattern=r"^v[0-9]{6}$", max_length=200), WHOLE] = "v000001"
    checksum: str | None = Field(None, max_length=128, description="sha256:<hex>.")


class EngineSecurity(Camel):
    """As which user and groups engines run; what is left out the cluster chooses, as OpenShift does for a namespace."""

    run_as_user: Id | None = None
    run_as_group: Id | None = None
    fs_group: Id | None = Field(None, description="Owns the volumes; emptyDirs are writable by it.")
    supplemental_groups: list[Id] | None = Field(
        None, max_length=16, description="More groups, such as of an NFS share."
    )


# Figures of which one must not be above another: that is refused where it is written, not at each engine or never.
BOUNDS: tuple[Bound, ...] = (
    AtMost(
        "warmPool.resources.cpu", "defaultResources.cpu",
        "a pod of the pool grows to an engine's size, so lower it, raise defaultResources.cpu or leave"
        " warmPool.resources out",
    ),
    AtMost(
        "warmPool.resources.memory", "defaultResources.memory",
        "a pod of the pool grows to an engine's size, so lower it, raise defaultResources.memory or leave"
        " warmPool.resources out",
    ),
    AtMost(
        "softPause.cpu", "defaultResources.cpu",
        "a pause gives cpu back and none would, so lower it, raise defaultResources.cpu or leave softPause out",
    ),
    AtMost(
        "defaultResources.cpu", "maxResources.cpu",
        "each engine that names no cpu would be refused, so lower it or raise maxResources.cpu",
    ),
    AtMost(
        "defaultResources.memory", "maxResources.memory",
        "each engine that names no memory would be refused, so lower it or raise maxResources.memory",
    ),
    AtMost(
        "defaultResources.cpu", "defaultResources.cpuLimit",
        "each engine that names no cpu would be refused, so raise cpuLimit or leave it out",
    ),
    Before(
        "softPause.after", "idleTimeout",
        "each engine would end before its pause, so lower it, raise idleTimeout (0s: never) or leave softPause out",
        unless="idleTimeout",
    ),
    Before(
        "softPause.after", "maxLifetime",
        "each engine would end before its pause, so lower it, raise maxLifetime (0s: never) or leave softPause out",
        unless="maxLifetime",
    ),
    Before(
        "launch.ready.initialDelaySeconds", "startTimeout",
        "no engine would be asked whether it is ready before its start has failed, so lower it or raise startTimeout",
        in_seconds=True,
    ),
)  # fmt: skip
# A folder that grows past this ends the engine by eviction rather than the node by a full disk. The agent's own files
# drop their beginnings long before (engine.pod.launch.LOG_TOTAL_MIB). The rest is room for what a filesystem keeps
# ready behind a file's end (xfs: as much again as the file has).
LOG_VOLUME = "4Gi"
# What the kubelet keeps of a container's own output: five files of 10 MiB by default, one of them while it is rotated.
CONTAINER_LOG = "64Mi"
DISK_TEXT = (
    "spec.storage.request must not be above the disk that an engine without volumes may use, which is storage.tmp,"
    f" {CONTAINER_LOG} of output and {LOG_VOLUME} for an agent's files: no pod would be made, so lower it or raise"
    " storage.tmp"
)
# Where the plugin has emptyDirs the operator alone adds up: the API server refuses a rule with such a sum for its cost.
_DISK_CEL = (
    "!has(self.storage) || (has(self.volumes) && self.volumes.exists(v, has(v.emptyDir)))"
    " || quantity(string(self.storage.request)).compareTo(quantity(string(self.storage.tmp))"
    f".add(quantity('{CONTAINER_LOG}'))"
    f".add(quantity(has(self.launch) && self.launch.kind == 'process' ? '0' : '{LOG_VOLUME}'))) <= 0"
)
EXTENDED_TEXT = (
    "spec.defaultResources.extended must not be above maxResources.extended: lower it or raise maxResources.extended"
)
SHARE_AS_TEXT = "spec.shareAs must be given where spec.share is group or server"
SHARE_GROUPS_TEXT = "spec.shareGroups must be given where spec.share is group, and not where it is server"
SHARED_AGENT_TEXT = "spec.share group and server need launch.kind agent: nobody gives a process a kernel for each user"


class EngineConnPluginSpec(Camel):
    """What the platform team offers."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "!has(self.warmPool) || !has(self.launch) || self.launch.kind != 'process'",
                    "spec.warmPool needs launch.kind agent: a process takes no user once it runs",
                    field_path=".warmPool",
                ),
                rule(
                    "!has(self.softPause) || !has(self.launch) || self.launch.kind != 'process'",
                    "spec.softPause needs launch.kind agent: a process does not say when it is used",
                    field_path=".softPause",
                ),
                rule(
                    "has(self.runTypes) || (has(self.launch) && self.launch.kind == 'process')",
                    "spec.runTypes must be given where spec.launch.kind is agent",
                ),
                rule(
                    f"has(self.shareAs) || !has(self.share) || !(self.share in {list(SHARED_LEVELS)})",
                    SHARE_AS_TEXT,
                    field_path=".shareAs",
                ),
                rule(
                    "!has(self.share) || (self.share == 'group' ? has(self.shareGroups)"
                    " : self.share != 'server' || !has(self.shareGroups))",
                    SHARE_GROUPS_TEXT,
                    field_path=".shareGroups",
                ),
                rule(
                    "!has(self.shareGroups) || !self.shareGroups.exists(g, g.startsWith('system:'))",
                    NO_SYSTEM_GROUP_TEXT,
                    field_path=".shareGroups",
                ),
                rule(
                    f"!has(self.share) || !(self.share in {list(SHARED_LEVELS)})"
                    " || !has(self.launch) || self.launch.kind != 'process'",
                    SHARED_AGENT_TEXT,
                    field_path=".share",
                ),
                linkis_name("engineVersion"),
                WORKING_DIR_RULE,
                *(rule(bound.cel, bound.text, field_path=f".{bound.field}") for bound in BOUNDS),
                rule(_DISK_CEL, DISK_TEXT, field_path=".storage"),
                rule(
                    "!has(self.maxResources) || !has(self.maxResources.extended)"
                    " || !has(self.defaultResources.extended) || self.defaultResources.extended.all(name,"
                    " !(name in self.maxResources.extended)"
                    " || self.defaultResources.extended[name] <= self.maxResources.extended[name])",
                    EXTENDED_TEXT,
                    field_path=".defaultResources.extended",
                ),
            ]
        }
    )

    engine_type: EngineTypeName = Field(description="Linkis's engine type, such as python.")
    engine_version: EngineVersion = Field(description="The version that engines of this entry carry in their label.")
    default: bool = Field(False, description="Taken for an engine of this type that names no version.")
    share: Literal["connection", "user", "group", "server"] = Field(
        "user",
        description="Who may get a running engine of this entry by askEngineConn: connection, nobody but whoever it was"
        " made for; user, the same user with the same creator, once it is free; group, the members of one of"
        " shareGroups, one after another; server, everybody, one after another. Of the last two docs/sharing.md says"
        " what the users of one engine can do to each other. Running engines follow a change.",
    )
    share_as: UserName | None = Field(
        None,
        description="Of share group and server: the user who has these engines, reads their logs and ends them; their"
        " places under the limits of people are this user's. A user of its own, who is no asker. With another share it"
        " says nothing, and may stay.",
    )
    share_groups: list[GroupName] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="Of share group: the groups whose members share engines; the first here that an asker's login has"
        " is the asker's.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    share_locks: int = Field(
        2,
        ge=1,
        le=100,
        description="Of share group and server: engines of this entry that one asker may hold at once.",
    )
    share_kernel: bool = Field(
        False,
        description="Of share group and server: keeps the kernel at a change of user, with all variables of the one"
        " before.",
    )
    image: str = Field(
        min_length=1, max_length=512, description="The engine's image; the agent is in it where launch.kind is agent."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    launch: Launch | None = Field(None, description="What the container runs; an agent where absent.")
    run_types: list[RunType] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="What executeCode accepts as runType; a process takes no code.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    command: list[Argument] | None = Field(None, max_length=64, description="Replaces the image's entry point.")
    args: list[Argument] | None = Field(None, max_length=256)
    env: list[EnvVar] | None = Field(None, max_length=64, json_schema_extra=LIST_MAP_NAME)
    working_dir: MountPath | None = Field(
        None,
        description="Where engines start that name none: any folder that their user may enter; the home where absent.",
    )
    default_resources: FullResources
    max_resources: FullResources | None = None
    memory_request_percent: int | None = Field(
        None,
        ge=1,
        le=100,
        description="How much of an engine's memory the scheduler sets aside for it; all where absent. With less, a"
        " node takes more engines than it has memory for, and where they use it, it evicts some (reason Evicted)."
        " Limits of people count the whole memory.",
    )
    storage: Storage | None = None
    max_processes: int = Field(
        2048,
        ge=0,
        le=4194304,
        description="Processes and threads of one engine. Its agent ends an engine with more (reason TooManyProcesses);"
        " 0: no bound of ours. An engine of launch.kind process has only the kubelet's (podPidsLimit).",
    )
    user_namespaces: bool = Field(
        False,
        description="Runs engines with hostUsers: false, so that their user is nobody on the node. Needs a kernel, a"
        " runtime and a filesystem with idmapped mounts; elsewhere the engine's pod does not start.",
    )
    do_not_disrupt: Literal["always", "busy", "never"] | None = Field(
        None,
        description="Whether the cluster autoscaler and Karpenter must leave the node of an engine alone: for its life,"
        " or while it starts, works and a minute after (busy), or never, as where absent. A process counts as busy.",
    )
    pod_template: PluginPodTemplate | None = Field(None, description=POD_TEMPLATE_TEXT)
    volumes: list[Volume] | None = Field(
        None,
        max_length=16,
        description="Volumes that each engine of this entry has at mountPath, from objects of the engine's namespace;"
        " nobody's rights are asked for them. Containers of podTemplate mount them by name.",
        json_schema_extra=LIST_MAP_NAME,
    )
    security_context: EngineSecurity | None = Field(
        None,
        description="Replaces the user 10001, its group and fsGroup of engines; {} leaves all to the cluster.",
    )
    overridable: list[Overridable] | None = Field(
        None,
        max_length=64,
        description="What engines may replace though this plugin sets it: a field such as idleTimeout or tolerations,"
        " or one key of env, labels, annotations, nodeSelector, affinity or dnsConfig, such as env/HTTPS_PROXY. labels"
        " and annotations also let engines set keys without the prefix user.linkis.apache.org/.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    materials: list[PluginMaterial] | None = Field(None, max_length=64)
    warm_pool: WarmPool | None = None
    soft_pause: SoftPause | None = Field(
        None, description="Gives cpu back while nobody uses an engine. Running engines follow a change."
    )
    idle_timeout: Duration = Field("30m", description="As in an EngineConn; 0s: never.")
    idle_counts_background: bool = Field(
        False,
        description="Counts as use what a session does without a task: threads and child processes that print or use"
        " the processor.",
    )
    max_lifetime: Duration = Field("0s", description="As in an EngineConn; 0s: never.")
    start_timeout: StartTimeout = Field(START_TIMEOUT, description="Linkis's own default is 8 minutes; 1s at least.")
    stop_grace: StopGrace = Field("30s", description="As in an EngineConn.")
    restart_policy: RestartPolicy | None = Field(None, description="Of engines that name none; Never where absent.")
    ttl_after_finished: Duration = Field(
        "24h", description="How long an ended engine's resource stays; 0s: not at all."
    )

    @model_validator(mode="after")
    def _run_types_of_an_agent(self) -> EngineConnPluginSpec:
        if self.run_types is None and (self.launch is None or self.launch.kind != "process"):
            raise ValueError("spec.runTypes must be given where spec.launch.kind is agent")
        return self

    @model_validator(mode="after")
    def _in_bounds(self, info: ValidationInfo) -> EngineConnPluginSpec:
        if info.context == STORED:
            # One from before these rules: its engines go on, and it stays in the catalogue.
            return self
        if broken := broken_bound(BOUNDS, self.model_dump(by_alias=True, exclude_none=True)):
            raise ValueError(broken)
        has_scratch = any(one.empty_dir is not None for one in self.volumes or [])
        if self.storage is not None and not has_scratch and _over_least_disk(self, self.storage):
            raise ValueError(DISK_TEXT)
        if broken := pod_containers.broken_resources(self.pod_template):
            raise ValueError(broken)
        most = (self.max_resources.extended if self.max_resources is not None else None) or {}
        default = self.default_resources.extended or {}
        if any(number > most.get(name, number) for name, number in default.items()):
            raise ValueError(EXTENDED_TEXT)
        return self

    @model_validator(mode="after")
    def _shared_engines(self) -> EngineConnPluginSpec:
        is_shared = self.share in SHARED_LEVELS
        if is_shared and self.share_as is None:
            raise ValueError(SHARE_AS_TEXT)
        has_groups = self.share_groups is not None
        if (self.share == "group" and not has_groups) or (self.share == "server" and has_groups):
            raise ValueError(SHARE_GROUPS_TEXT)
        if is_shared and self.launch is not None and self.launch.kind == "process":
            raise ValueError(SHARED_AGENT_TEXT)
        return self


def least_disk(spec: EngineConnPluginSpec) -> list[str]:
    """What each engine of the plugin may have on disk, also one without volumes: its container's limit is the sum."""
    storage = spec.storage or Storage.model_validate({})
    logs = [] if spec.launch is not None and spec.launch.kind == "process" else [LOG_VOLUME]
    scratch = [one.empty_dir.size_limit or storage.volumes for one in spec.volumes or [] if one.empty_dir is not None]
    return [CONTAINER_LOG, storage.tmp, *logs, *scratch]


def _over_least_disk(spec: EngineConnPluginSpec, storage: Storage) -> bool:
    return parse_quantity(storage.request) > sum(map(parse_quantity, least_disk(spec)))


class EngineConnPluginStatus(Camel):
    """What the operator says of the entry."""

    observed_generation: int | None = Field(None, ge=0)
    warm_pool: WarmPoolStatus | None = None
    conditions: list[Condition] | None = Field(None, max_length=16, json_schema_extra=LIST_MAP_TYPE)


class EngineConnPlugin(Camel):
    """The whole resource, as parsed from the API."""

    metadata: dict[str, Any]
    spec: EngineConnPluginSpec
    status: EngineConnPluginStatus = Field(default_factory=EngineConnPluginStatus)
