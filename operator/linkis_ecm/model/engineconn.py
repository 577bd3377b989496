"""The spec of the custom resource EngineConn: one engine, as a user asks for it. Its status is in `engine_status`.

These models are the one source of the CRD schema (`model.crd`), of the gateway's validation and of what the operator
parses. The operator parses leniently, so that a field of a newer version does not crash an older operator; the API
server and the gateway refuse unknown fields. Every rule here must also be in the CRD's schema or CEL rules: a corpus of
objects in the tests is checked by both.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from linkis_ecm.model import formats, pod_template, users
from linkis_ecm.model.amounts import (
    STORED,
    WHOLE,
    Amount,
    AtMost,
    Duration,
    StartTimeout,
    StopGrace,
    broken_bound,
)
from linkis_ecm.model.extended import Extended

GROUP = "linkis.apache.org"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
# Names that the agent's own settings use: an engine's environment must not replace them.
RESERVED_ENV_PREFIX = "ECM_"
RESERVED_ENV_TEXT = (
    f"names that begin with {RESERVED_ENV_PREFIX} are the engine's own: those that choose a kernel"
    " (ECM_EXECUTOR, ECM_KERNEL_NAME) are set in the image, by ENV"
)

VALUE_OR_SOURCE_TEXT = "give one of value and valueFrom"
# Variables of one engine that come from Secrets: the admission policy asks the API server about each by an expression
# of its own, and 28 are the most in a policy.
SECRET_ENV_MAX = 16
SECRET_ENV_TEXT = f"{SECRET_ENV_MAX} variables at most may have a valueFrom: mount the Secret as a volume instead"


# As a company writes it; read as the user that it is in Linkis.
UserName = Annotated[
    str, Field(pattern=users.LOGIN_PATTERN, max_length=users.LOGIN_MAX), WHOLE, AfterValidator(users.linkis_user)
]
CreatorName = Annotated[str, Field(pattern=formats.CREATOR_PATTERN, max_length=64), WHOLE]
TenantName = Annotated[str, Field(pattern=formats.CREATOR_PATTERN, max_length=64), WHOLE]
EngineTypeName = Annotated[str, Field(pattern=formats.ENGINE_TYPE_PATTERN, max_length=formats.ENGINE_TYPE_MAX), WHOLE]
EngineVersion = Annotated[str, Field(pattern=formats.VERSION_PATTERN, max_length=40), WHOLE]
RunType = Annotated[str, Field(pattern=formats.RUN_TYPE_PATTERN, max_length=formats.RUN_TYPE_MAX), WHOLE]
# An object's name as Kubernetes has it (RFC 1123), short enough for a label's value.
ObjectName = Annotated[str, Field(pattern=formats.OBJECT_NAME_PATTERN, max_length=63), WHOLE]
EnvName = Annotated[str, Field(pattern=formats.ENV_NAME_PATTERN, max_length=128), WHOLE]
TicketId = Annotated[str, Field(pattern=UUID_PATTERN, max_length=36), WHOLE]
Port = Annotated[int, Field(ge=1, le=65535)]
# The path of an HTTP request, with its query: printable ASCII without blanks.
HttpPath = Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=256), WHOLE]
PATH_PATTERN = r"^/[A-Za-z0-9_./-]*$"
MountPath = Annotated[str, Field(pattern=PATH_PATTERN, max_length=256), WHOLE]

LIST_MAP_NAME: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


def rule(expression: str, message: str, *, field_path: str | None = None) -> JsonDict:
    """One `x-kubernetes-validations` entry: what the API server checks where pydantic's own checks do not reach."""
    entry: JsonDict = {"rule": expression, "message": message, "reason": "FieldValueInvalid"}
    if field_path:
        entry["fieldPath"] = field_path
    return entry


def immutable(name: str) -> JsonDict:
    """The CEL rule that an optional field may be neither changed, added nor taken away."""
    entry = rule(
        f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
        f"spec.{name} is part of the engine's identity and cannot change: create another engine",
    )
    return entry | {"reason": "FieldValueForbidden"}


def linkis_name(name: str) -> JsonDict:
    """The CEL rule that says why a field of Linkis's label takes few characters; its pattern alone does not."""
    return rule(
        f"!has(self.{name}) || self.{name}.matches('{formats.CREATOR_PATTERN}')",
        f"spec.{name}: use letters, digits, '_' and '.', and begin with one of the first three: {formats.LABEL_RULE}",
        field_path=f".{name}",
    )


WORKING_DIR_RULE = rule(
    f"!has(self.workingDir) || self.workingDir.matches('{PATH_PATTERN}')",
    "spec.workingDir: write an absolute path, which begins with '/', of letters, digits, '_', '.', '-' and '/'",
    field_path=".workingDir",
)


class Camel(BaseModel):
    """camelCase on the wire, snake_case here; unknown fields are dropped (see the module's text)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class Resources(Camel):
    """What the engine's container gets: memory as its limit, cpu as its request.

    memoryRequestPercent of the plugin says how much of the memory is its request; all of it by default. A cpu limit
    throttles the start, when agent and kernel boot side by side; there is one only where it is asked for.
    """

    cpu: Amount | None = Field(None, description="CPU, such as 500m or 2; the plugin's default where absent.")
    cpu_limit: Amount | None = Field(None, description="No limit where absent here and in the plugin.")
    memory: Amount | None = Field(None, description="Memory, such as 512Mi or 2Gi; the plugin's default where absent.")
    extended: Extended | None = Field(
        None,
        description="GPUs and what else a device plugin offers, such as {nvidia.com/gpu: 1}, as requests and limits"
        " alike; of those that the plugin has in maxResources or defaultResources. 0: none of the plugin's default.",
    )


class SecretKey(Camel):
    """One entry of a Secret of the engine's namespace."""

    name: ObjectName
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=253), WHOLE]


class EnvSource(Camel):
    """Where a variable's value comes from; the kubelet reads it when the container starts."""

    secret_key_ref: SecretKey


class EnvVar(Camel):
    """One environment variable of the engine."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    f"!self.name.startsWith('{RESERVED_ENV_PREFIX}')",
                    RESERVED_ENV_TEXT,
                ),
                # The API server writes the default, an empty value, before it checks.
                rule("!has(self.valueFrom) || !has(self.value) || self.value == ''", VALUE_OR_SOURCE_TEXT),
            ]
        }
    )

    name: EnvName
    value: str = Field("", max_length=4096)
    value_from: EnvSource | None = Field(
        None, description="A Secret's entry instead of value, so that the value stands in no resource."
    )

    @model_validator(mode="after")
    def _not_reserved(self) -> EnvVar:
        if self.name.startswith(RESERVED_ENV_PREFIX):
            raise ValueError(f"env {self.name}: {RESERVED_ENV_TEXT}")
        if self.value_from is not None and self.value:
            raise ValueError(f"env {self.name}: {VALUE_OR_SOURCE_TEXT}")
        return self


class ClaimSource(Camel):
    """A PersistentVolumeClaim of the engine's namespace."""

    claim_name: ObjectName


class ConfigMapSource(Camel):
    """A ConfigMap of the engine's namespace."""

    name: ObjectName


class SecretSource(Camel):
    """A Secret of the engine's namespace."""

    secret_name: ObjectName


class EmptyDirSource(Camel):
    """Scratch space that ends with the engine."""

    size_limit: Amount | None = None


class Volume(Camel):
    """A volume and where the engine finds it. Host paths are left out on purpose."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "[has(self.persistentVolumeClaim), has(self.configMap), has(self.secret), has(self.emptyDir)]"
                    ".filter(x, x).size() == 1",
                    "give one of persistentVolumeClaim, configMap, secret, emptyDir",
                )
            ]
        }
    )

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=50), WHOLE]
    mount_path: MountPath
    read_only: bool = False
    persistent_volume_claim: ClaimSource | None = None
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    empty_dir: EmptyDirSource | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Volume:
        sources = (self.persistent_volume_claim, self.config_map, self.secret, self.empty_dir)
        if sum(source is not None for source in sources) != 1:
            raise ValueError(f"volume {self.name}: give one of persistentVolumeClaim, configMap, secret, emptyDir")
        return self


class RestartPolicy(Camel):
    """Whether a dead engine gets a new pod."""

    type: Literal["Never", "OnFailure", "OnInfrastructureFailure"] = "Never"
    max_attempts: int = Field(3, ge=1, le=10, description="Pods in all, the first included.")


class TcpCheck(Camel):
    """Ready when the port accepts a connection."""

    port: Port | None = Field(None, description="launch.port where absent.")


class HttpCheck(Camel):
    """Ready when a GET is answered with a status of 200 to 399."""

    path: HttpPath = "/"
    port: Port | None = Field(None, description="launch.port where absent.")


GROUP_MAX = 256
# A group of people as an identity provider names it. Kubernetes's own groups, such as system:authenticated, are none.
GROUP_PATTERN = r"^[^ \x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^ \x00-\x1f\x7f])?$"
_SYSTEM_GROUP = "system:"


def _no_system_group(name: str) -> str:
    if name.startswith(_SYSTEM_GROUP):
        raise ValueError(NO_SYSTEM_GROUP_TEXT)
    return name


NO_SYSTEM_GROUP_TEXT = f"groups that begin with {_SYSTEM_GROUP} are Kubernetes's own, not of people: name another"
GroupName = Annotated[str, Field(pattern=GROUP_PATTERN, max_length=GROUP_MAX), WHOLE, AfterValidator(_no_system_group)]
SHARED_LEVELS = ("group", "server")
SHARE_GROUP_TEXT = "share.group belongs to share.level group, and only there"


class Share(Camel):
    """That an engine is made to be lent from one asker to the next; see docs/sharing.md."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "has(self.group) == (self.level == 'group')",
                    SHARE_GROUP_TEXT,
                ),
                rule(f"!has(self.group) || !self.group.startsWith('{_SYSTEM_GROUP}')", NO_SYSTEM_GROUP_TEXT),
            ]
        }
    )

    level: Literal["group", "server"] = Field(description="As the plugin's share.")
    group: GroupName | None = Field(None, description="Whose members may get it, at level group.")

    @model_validator(mode="after")
    def _group_of_its_level(self) -> Share:
        if (self.group is not None) != (self.level == "group"):
            raise ValueError(SHARE_GROUP_TEXT)
        return self


class ReadyCheck(Camel):
    """How the kubelet finds out whether a process is ready; names, bounds and meaning are those of its probes."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [rule("!(has(self.tcp) && has(self.http))", "give one of tcp and http")]
        }
    )

    tcp: TcpCheck | None = None
    http: HttpCheck | None = None
    initial_delay_seconds: int = Field(0, ge=0, le=3600, description="Not ready before the container ran this long.")
    period_seconds: int = Field(2, ge=1, le=60)
    timeout_seconds: int = Field(1, ge=1, le=10)
    failure_threshold: int = Field(3, ge=1, le=10, description="Unready after so many checks that failed in a row.")

    @model_validator(mode="after")
    def _one_check(self) -> ReadyCheck:
        if self.tcp is not None and self.http is not None:
            raise ValueError("give one of tcp and http")
        return self


class Launch(Camel):
    """What an engine's container runs, and how it is known to be ready, alive and stopped."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.kind == 'process' || (!has(self.port) && !has(self.ready))",
                    "launch.port and launch.ready belong to launch.kind process",
                ),
                rule(
                    "has(self.port) || !has(self.ready) || (!has(self.ready.tcp) && !has(self.ready.http))",
                    "launch.port must be given where launch.ready has tcp or http",
                ),
            ]
        }
    )

    kind: Literal["agent", "process"] = Field(
        "agent", description="agent: linkis_ecm.agent, which reports. process: any program; the kubelet says how it is."
    )
    port: Port | None = Field(None, description="Of a process: where it listens; the engine's address has it.")
    ready: ReadyCheck | None = Field(
        None,
        description="Of a process: absent, a connection to `port` says that it is ready; without `port`, that it runs.",
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Launch:
        if self.kind != "process" and (self.port is not None or self.ready is not None):
            raise ValueError("launch.port and launch.ready belong to launch.kind process")
        checks = self.ready is not None and (self.ready.tcp is not None or self.ready.http is not None)
        if checks and self.port is None:
            raise ValueError("launch.port must be given where launch.ready has tcp or http")
        return self


# What an engine is, as against what may be asked of it later.
IDENTITY = ("engineType", "engineVersion", "plugin", "tenant", "ticketId", "code", "runType", "env", "share")
IDENTITY_REQUIRED = ("user", "creator", "mode")
# What both are given by the engine's author; what the plugin gives is looked at when the pod is made.
ENGINE_BOUNDS = (
    AtMost("resources.cpu", "resources.cpuLimit", "lower it, raise cpuLimit or leave cpuLimit out"),
)  # fmt: skip

POD_TEMPLATE_TEXT = (
    "An overlay of the engine's pod. Taken: metadata.labels, metadata.annotations, and of spec affinity, dnsConfig,"
    " imagePullSecrets, nodeSelector, priorityClassName, runtimeClassName, schedulerName, tolerations,"
    " topologySpreadConstraints; of a plugin also serviceAccountName, hostAliases, initContainers and containers, which"
    " mount the plugin's volumes by their names and are as restricted as the engine's container. Each is bounded, and"
    " the API server takes anything else out or refuses it. Refused with the reason InvalidSpec is, of an engine, a"
    " value for what its plugin set and does not name in overridable, a podAffinity or podAntiAffinity, which reach"
    " other pods, and a label or annotation without the prefix user.linkis.apache.org/."
)

# Any object here, so that one that was stored under an older schema is read: the API server holds the schema, and
# whoever builds the pod asks again.
PodTemplate = Annotated[dict[str, Any], WithJsonSchema(pod_template.SCHEMA)]
PluginPodTemplate = Annotated[dict[str, Any], WithJsonSchema(pod_template.PLUGIN_SCHEMA)]


class EngineConnSpec(Camel):
    """What is asked for. Identity is immutable; desiredState, timeouts and resources may change."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule("has(self.engineType) || has(self.plugin)", "spec.engineType or spec.plugin must be given"),
                rule(
                    "self.mode != 'once' || (has(self.code) && size(self.code) > 0)",
                    "spec.code must be given where spec.mode is once",
                ),
                rule(
                    "oldSelf.desiredState != 'Stopped' || self.desiredState == 'Stopped'",
                    "a stopped engine stays stopped: create another engine",
                    field_path=".desiredState",
                ),
                rule(
                    f"!has(self.env) || self.env.filter(e, has(e.valueFrom)).size() <= {SECRET_ENV_MAX}",
                    SECRET_ENV_TEXT,
                    field_path=".env",
                ),
                *[rule(bound.cel, bound.text, field_path=f".{bound.field}") for bound in ENGINE_BOUNDS],
                *[linkis_name(name) for name in ("creator", "tenant", "engineVersion")],
                WORKING_DIR_RULE,
                *[immutable(name) for name in (*IDENTITY, *IDENTITY_REQUIRED)],
            ]
        }
    )

    engine_type: EngineTypeName | None = Field(
        None,
        description="Linkis's engine type, such as python; absent where `plugin` names the catalogue entry.",
    )
    engine_version: EngineVersion | None = Field(None, description="The plugin's default version where absent.")
    plugin: ObjectName | None = Field(None, description="An EngineConnPlugin by name, instead of engineType.")
    user: UserName = Field(description="Whose engine it is: only this user and admins may use it or read its logs.")
    creator: CreatorName = Field("IDE", description="Linkis's creator: the application that asks.")
    tenant: TenantName | None = Field(None, description="Linkis's tenant label.")
    ticket_id: TicketId | None = Field(
        None, description="The ticket of a Linkis manager; the resource's uid where absent."
    )
    share: Share | None = Field(
        None,
        description="Made to be lent to askers, one after another, as its plugin's share says. The gateway sets it; who"
        " names a group needs the right to impersonate it (groups of linkis.apache.org). Has no effect unless the"
        " plugin's shareAs is spec.user.",
    )
    mode: Literal["computation", "once"] = Field("computation", description="A session, or one job that ends.")
    code: str | None = Field(None, max_length=524288, description="What a `once` engine runs.")
    run_type: RunType | None = Field(None, description="The language of `code`.")
    resources: Resources | None = None
    idle_timeout: Duration | None = Field(None, description="Ends an engine without a task for this long; 0s: never.")
    max_lifetime: Duration | None = Field(None, description="Ends an engine of this age; 0s: never.")
    start_timeout: StartTimeout | None = Field(
        None, description="Fails an engine that is not ready by then; 1s at least."
    )
    stop_grace: StopGrace | None = Field(
        None,
        description="How long a running task may go on when the engine is to end; 0s: no longer, 1h at most, 30s where"
        " absent.",
    )
    ttl_after_finished: Duration | None = Field(
        None, description="Removes the ended engine's resource after this; 0s: at once."
    )
    restart_policy: RestartPolicy | None = None
    env: list[EnvVar] | None = Field(
        None,
        max_length=64,
        description="Environment variables of the engine's kernel, or of its process.",
        json_schema_extra=LIST_MAP_NAME,
    )
    volumes: list[Volume] | None = Field(
        None,
        max_length=16,
        description="Claims, ConfigMaps, Secrets and scratch space that the engine finds at mountPath.",
        json_schema_extra=LIST_MAP_NAME,
    )
    working_dir: MountPath | None = Field(
        None,
        description="Where the engine's code starts: /tmp, the mountPath of one of volumes, or a folder below these,"
        " which is made where it is missing. The plugin's where absent, else the home, /tmp/home.",
    )
    pod_template: PodTemplate | None = Field(None, description=POD_TEMPLATE_TEXT)
    desired_state: Literal["Running", "Stopped"] = Field("Running", description="Stopped ends the engine for good.")

    @model_validator(mode="after")
    def _rules(self, info: ValidationInfo) -> EngineConnSpec:
        if self.engine_type is None and self.plugin is None:
            raise ValueError("spec.engineType or spec.plugin must be given")
        if self.mode == "once" and not self.code:
            raise ValueError("spec.code must be given where spec.mode is once")
        if sum(variable.value_from is not None for variable in self.env or []) > SECRET_ENV_MAX:
            raise ValueError(f"spec.env: {SECRET_ENV_TEXT}")
        written = {"resources": self.resources.model_dump(by_alias=True, exclude_none=True)} if self.resources else {}
        if info.context != STORED and (broken := broken_bound(ENGINE_BOUNDS, written)):
            raise ValueError(broken)
        return self
