"""The operator's settings, from the environment; docs/settings.md is made from these fields."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, SecretBytes, SecretStr

from linkis_ecm.engine.admission.limits import NO_LIMITS, LimitsSetting
from linkis_ecm.process.environment import (
    KEY_FILE,
    MIB,
    PORT,
    SWITCH,
    KeySettings,
    SettingsError,
    names,
    variable,
    whole,
)
from linkis_ecm.process.forms import (
    CONFIGMAP,
    HOST_PORT,
    LEASE,
    NAMESPACE,
    NAMESPACES,
    NAMESPACES_BY_LEASE,
    ORIGIN,
    ORIGINS,
    SERVICE,
)
from linkis_ecm.process.ports.connections import ConnectionLimits

__all__ = ["OperatorSettings", "SettingsError", "from_environment"]


class OperatorSettings(KeySettings):
    """Whom the operator serves, where its parts are, what it bounds."""

    database_url: Annotated[
        SecretStr,
        variable(
            "ECM_DATABASE_URL",
            "The database, as a SQLAlchemy URL.",
            unset="is not set: write a SQLAlchemy URL such as sqlite:////data/ecm.sqlite3 into it",
        ),
    ]
    ecm_instance: Annotated[
        str,
        HOST_PORT,
        variable(
            "ECM_INSTANCE",
            "The gateway's host:port, as Linkis knows this ECM.",
            unset="is not set: write the gateway's host:port, as Linkis knows this ECM into it",
        ),
    ]
    report_url: Annotated[
        str,
        ORIGIN,
        variable(
            "ECM_REPORT_URL",
            "Where agents send their reports: the operator's reports service.",
            unset="is not set: write the URL of the operator's reports service, such as"
            " http://linkis-ecm-operator:9103 into it",
        ),
    ]
    token_key: Annotated[
        SecretBytes,
        KEY_FILE,
        variable(
            "ECM_TOKEN_KEY_FILE",
            "The file with the master key of the engines' tokens, the same for operator and gateway.",
            unset="is not set: write the path of the file with the master key of the engines' tokens into it",
        ),
    ]
    namespace: Annotated[
        str, NAMESPACE, variable("ECM_POD_NAMESPACE", "The operator's own namespace, where its Lease is.")
    ] = "default"
    lease_name: Annotated[
        str,
        LEASE,
        variable("ECM_LEASE_NAME", "The Lease of this installation: two in one namespace need two."),
    ] = "linkis-ecm-operator"
    adopt_instances: Annotated[
        tuple[str, ...],
        names(r"[^\s,]{1,253}", "ECM_INSTANCE"),
        variable(
            "ECM_ADOPT_INSTANCES",
            "Values of ECM_INSTANCE whose engines this installation takes over: its former names. Without it, engines"
            " that another installation has accepted are left alone.",
            default="none",
        ),
    ] = ()
    shards_configmap: Annotated[
        str | None,
        CONFIGMAP,
        variable(
            "ECM_SHARDS_CONFIGMAP",
            "The ConfigMap in which the operators of this installation write which namespaces each of them serves. It"
            " must be there.",
            default="none: this operator alone serves all",
        ),
    ] = None
    neighbours: Annotated[
        dict[str, tuple[str, ...]],
        NAMESPACES_BY_LEASE,
        variable(
            "ECM_SHARD_NEIGHBOURS",
            "The namespaces of the other operators of this installation, by the names of their Leases.",
            default="none",
        ),
    ] = Field(default_factory=dict)
    report_urls: Annotated[
        dict[str, str],
        ORIGINS,
        variable(
            "ECM_REPORT_URLS",
            "Where the agents of a namespace send their reports, in place of ECM_REPORT_URL: a Service that leads to"
            " whoever serves the namespace.",
            default="none",
        ),
    ] = Field(default_factory=dict)
    identity: Annotated[
        str, variable("ECM_POD_NAME", "The name of this replica in the Lease.", default="the host's name")
    ] = Field(default_factory=socket.gethostname)
    watch_namespaces: Annotated[
        tuple[str, ...],
        NAMESPACES,
        variable("ECM_WATCH_NAMESPACES", "The namespaces whose engines the operator runs.", default="all"),
    ] = ()
    engine_service: Annotated[
        str, SERVICE, variable("ECM_ENGINE_SERVICE", "The headless Service behind the names of engines' pods.")
    ] = "linkis-engines"
    engine_service_namespaces: Annotated[
        tuple[str, ...],
        NAMESPACES,
        variable(
            "ECM_ENGINE_SERVICE_NAMESPACES",
            "Where that Service is; elsewhere an engine's service instance is its address.",
            default="all",
        ),
    ] = ()
    admission: Annotated[
        bool,
        SWITCH,
        variable(
            "ECM_ADMISSION_POLICY",
            "Whether the chart's admission policy checks EngineConns; else engines may name a PriorityClass only where"
            " their plugin lets them.",
            default="false",
        ),
    ] = False
    admission_policies: Annotated[
        tuple[str, ...],
        names(r"[a-z0-9][a-z0-9.-]{0,252}", "name of a policy"),
        variable(
            "ECM_ADMISSION_POLICIES",
            "The ValidatingAdmissionPolicies that check EngineConns, whose bindings have the same names. No engine is"
            " started whose spec was written while one of them was not there or was another.",
            default="none: it is not looked",
        ),
    ] = ()
    admission_fields: Annotated[
        tuple[str, ...],
        names(
            r"(policy|binding)/[a-z0-9][a-z0-9.-]{0,252}/[A-Za-z]+=[0-9a-f]{32}",
            "policy/NAME/FIELD=DIGEST or binding/NAME/FIELD=DIGEST",
        ),
        variable(
            "ECM_ADMISSION_FIELDS",
            "The fields of those policies' and bindings' specs, as the chart wrote them. One that was changed since"
            " counts as if it were not there; one of another release does so after 15 minutes.",
            default="none: a change in place is not seen",
        ),
    ] = ()
    protected: Annotated[
        tuple[str, ...],
        names(r"(secret|persistentvolumeclaim)/[a-z0-9][a-z0-9.-]*", "secret/… or persistentvolumeclaim/…"),
        variable(
            "ECM_PROTECTED_OBJECTS",
            "Secrets and claims of the operator's own namespace that no engine may mount, as secret/NAME and"
            " persistentvolumeclaim/NAME.",
            default="none",
        ),
    ] = ()
    report_port: Annotated[int, PORT, variable("ECM_REPORT_PORT", "Where agents send reports and files.")] = 9103
    health_port: Annotated[
        int, PORT, variable("ECM_HEALTH_PORT", "Where /healthz, /readyz and /metrics are served.")
    ] = 9104
    report_period: Annotated[
        float,
        whole(1, 65535),
        variable(
            "ECM_REPORT_PERIOD", "Seconds between two reports of an agent to which nothing happens.", default="10"
        ),
    ] = 10.0
    # An agent sends 20 at most; a task of a millisecond flips its engine's state 300 times a second.
    reports_per_second: Annotated[
        int, whole(0, 10_000), variable("ECM_REPORT_RATE", "Reports a second that one engine may send; 0: no limit.")
    ] = 20
    # An agent has two or three. Engines on one node may share an address where the cluster's network hides pods'.
    peer_connections: Annotated[
        int,
        whole(0, 100_000),
        variable(
            "ECM_PEER_CONNECTIONS", "Connections of one address at a time to each port of the operator; 0: no limit."
        ),
    ] = 256
    # Each takes 6 KiB while it says nothing: 70 MiB of the chart's 512. An engine's agent has one or two.
    max_connections: Annotated[
        int,
        whole(16, 100_000),
        variable("ECM_REPORT_CONNECTIONS", "Connections of agents at a time; each takes 6 KiB."),
    ] = 12_000
    # All agents connect again within one report's period after a restart, and log in with their first request.
    max_strangers: Annotated[
        int,
        whole(8, 100_000),
        variable(
            "ECM_REPORT_STRANGERS",
            "Connections at a time on which no agent has shown its key, of ECM_REPORT_CONNECTIONS; a new one then takes"
            " the place of one that says nothing.",
        ),
    ] = 1000
    archive_url: Annotated[
        SecretStr,
        variable(
            "ECM_ARCHIVE_URL",
            "Where logs and results of ended engines are kept, as an fsspec URL.",
            unset="is not set: write an fsspec URL such as file:///data/archive into it",
        ),
    ]
    archive_days: Annotated[
        int, whole(1, 36500), variable("ECM_ARCHIVE_DAYS", "Days for which logs and results of ended engines are kept.")
    ] = 7
    history_days: Annotated[
        int, whole(1, 36500), variable("ECM_HISTORY_DAYS", "Days for which the states of engines are kept, each.")
    ] = 90
    archive_file_max: Annotated[
        int,
        whole(1, 1 << 20, scale=MIB),
        variable("ECM_ARCHIVE_FILE_MAX_MIB", "The most that one file in the archive may have, in MiB.", default="1024"),
    ] = 1024 * MIB
    # The most of an engine's logs (2 GiB, engine/pod/launch.py) and its results (512 MiB, controller/pods/evidence.py).
    archive_engine_max: Annotated[
        int,
        whole(1, 1 << 30, scale=MIB),
        variable(
            "ECM_ARCHIVE_ENGINE_MAX_MIB",
            "The most that all files of one engine in the archive may have, of all its attempts, in MiB.",
            default="2560",
        ),
    ] = 2560 * MIB
    # Half of the whole: nobody alone fills the archive.
    archive_user_max: Annotated[
        int,
        whole(1, 1 << 30, scale=MIB),
        variable(
            "ECM_ARCHIVE_USER_MAX_MIB",
            "The most that one user's files in the archive may have, in MiB; the user's oldest are deleted first.",
            default="4096",
        ),
    ] = 4096 * MIB
    archive_total: Annotated[
        int,
        whole(1, 1 << 30, scale=MIB),
        variable(
            "ECM_ARCHIVE_TOTAL_MIB",
            "The most that all files in the archive may have, in MiB; of the user who has most the"
            " oldest are deleted first.",
            default="8192",
        ),
    ] = 8192 * MIB
    limits: LimitsSetting = NO_LIMITS
    # Two series each, some 200 bytes of a scrape.
    metrics_engines: Annotated[
        int,
        whole(0, 10_000),
        variable(
            "ECM_METRICS_ENGINES",
            "Engines whose CPU time and memory have time series of their own: so many at a time, those with most"
            " memory. Who may scrape reads their tickets and users.",
        ),
    ] = 0
    canary: Annotated[
        bool,
        SWITCH,
        variable("ECM_CANARY", "Whether the operator tests itself with an engine without a pod.", default="true"),
    ] = True

    @property
    def report_connections(self) -> ConnectionLimits:
        """The bounds of the agents' port."""
        return ConnectionLimits(self.max_connections, self.max_strangers, self.peer_connections)


def from_environment(env: Mapping[str, str]) -> OperatorSettings:
    """Reads ECM_*; raises SettingsError for the first that is wrong."""
    settings = OperatorSettings.read(env)
    _check_shards(settings)
    return settings


def _check_shards(settings: OperatorSettings) -> None:
    """Of several operators each must know what it serves and where they write it down, and none what another serves."""
    if not settings.neighbours:
        return
    name = "ECM_SHARD_NEIGHBOURS"
    if not settings.watch_namespaces:
        raise SettingsError(f"{name} is set and ECM_WATCH_NAMESPACES is not: name the namespaces of this shard")
    if not settings.shards_configmap:
        raise SettingsError(f"{name} is set and ECM_SHARDS_CONFIGMAP is not: name the ConfigMap of the shards' claims")
    if settings.lease_name in settings.neighbours:
        raise SettingsError(f"{name} has {settings.lease_name}, which is this shard's own Lease: leave it out")
    for lease, found in settings.neighbours.items():
        if twice := sorted(set(found) & set(settings.watch_namespaces)):
            raise SettingsError(
                f"{name} gives {twice[0]} to {lease}, and ECM_WATCH_NAMESPACES has it, too: leave one out"
            )
