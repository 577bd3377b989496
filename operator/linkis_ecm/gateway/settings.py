"""The gateway's settings, from the environment; docs/settings.md is made from these fields.

A value that cannot be used is refused at start with one sentence that names the variable and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any

from pydantic import Field, SecretBytes, SecretStr

from linkis_ecm.engine.admission.limits import NO_LIMITS, LimitsSetting
from linkis_ecm.engine.names import AGENT_PORT
from linkis_ecm.engine.pod.launch import IDENTITY_AUDIENCE
from linkis_ecm.process.environment import (
    KEY_FILE,
    KIB,
    MIB,
    PORT,
    SWITCH,
    Form,
    KeySettings,
    ProcessSettings,
    SettingsError,
    choice,
    names,
    variable,
    whole,
)
from linkis_ecm.process.forms import CONFIGMAP, HOST_PORT, HTTP_URL, NAMESPACE, NAMESPACES, NETWORKS, USERS

__all__ = ["KIB", "MIB", "OidcSettings", "Settings", "SettingsError", "read_settings"]


def _people(text: str) -> str:
    """An audience of people's tokens. Raises ValueError for that of engines' tokens: user code reads its engine's, so
    with it each engine would have a login."""
    if text.strip() == IDENTITY_AUDIENCE:
        raise ValueError(
            f"has {IDENTITY_AUDIENCE}, the audience of the tokens by which engines prove their pods: take another, such"
            f" as {IDENTITY_AUDIENCE}-gateway, here and at the issuer"
        )
    return text


def _peoples(text: str) -> tuple[str, ...]:
    found: tuple[str, ...] = names().parse(text)
    return tuple(_people(name) for name in found)


class OidcSettings(ProcessSettings):
    """Whose JWTs are taken, and what they say."""

    issuer: Annotated[
        str,
        HTTP_URL,
        variable(
            "ECM_OIDC_ISSUER",
            "The issuer whose JWTs are taken; without it none are, and the other ECM_OIDC_ variables are not read.",
            default="none",
        ),
    ]
    audience: Annotated[
        str,
        Form("text", _people),
        variable(
            "ECM_OIDC_AUDIENCE",
            "The audience of tokens for this gateway; needed with an issuer.",
            unset="is empty: set it to the audience that tokens for this gateway carry",
            default="needed with an issuer",
        ),
    ]
    jwks_url: Annotated[
        str, HTTP_URL, variable("ECM_OIDC_JWKS_URL", "Where the issuer's keys are.", default="as the issuer says")
    ] = ""
    user_claim: Annotated[str, variable("ECM_OIDC_USER_CLAIM", "The claim with the user's name.")] = (
        "preferred_username"
    )
    groups_claim: Annotated[
        str, variable("ECM_OIDC_GROUPS_CLAIM", "The claim with the user's groups.", default="none")
    ] = ""
    admin_group: Annotated[
        str, variable("ECM_OIDC_ADMIN_GROUP", "The group whose members are admins.", default="none")
    ] = ""
    ca_file: Annotated[
        str,
        variable(
            "ECM_OIDC_CA_FILE",
            "The file with the authorities that sign the issuer's certificate.",
            default="the system's authorities",
        ),
    ] = ""
    client_id: Annotated[
        str,
        variable(
            "ECM_OIDC_CLIENT_ID",
            "The issuer's public client for the console's login (code flow with PKCE); without it people paste tokens.",
            default="none",
        ),
    ] = ""
    scopes: Annotated[
        str, variable("ECM_OIDC_SCOPES", "The scopes that the console's login asks for, with blanks between them.")
    ] = "openid profile"
    token_file: Annotated[
        str,
        variable(
            "ECM_OIDC_TOKEN_FILE", "The file with the bearer token that the issuer wants for its keys.", default="none"
        ),
    ] = ""


class Settings(KeySettings):
    """Where the gateway listens, whom it knows, what it bounds."""

    host: Annotated[
        str, variable("ECM_GATEWAY_HOST", "The address that the gateway listens on.", default="all addresses")
    ] = ""
    port: Annotated[int, PORT, variable("ECM_GATEWAY_PORT", "The port of the REST API.")] = 9102
    metrics_port: Annotated[
        int,
        whole(0, 65535),
        variable(
            "ECM_GATEWAY_METRICS_PORT",
            "The port of /metrics alone, with the scheme of the other, so that a network policy can say who scrapes;"
            " 0: /metrics is on ECM_GATEWAY_PORT.",
        ),
    ] = 0
    tls_cert_file: Annotated[
        str,
        variable(
            "ECM_TLS_CERT_FILE",
            "The file with the certificate and its chain (PEM); the port then speaks HTTPS alone. A changed file counts"
            " within 10 s, without a restart.",
            default="none: the port speaks HTTP",
        ),
    ] = ""
    tls_key_file: Annotated[
        str,
        variable("ECM_TLS_KEY_FILE", "The file with that certificate's key (PEM, not encrypted).", default="none"),
    ] = ""
    tls_min_version: Annotated[
        str, choice("1.2", "1.3"), variable("ECM_TLS_MIN_VERSION", "The lowest version of TLS that is spoken.")
    ] = "1.2"
    namespace: Annotated[
        str,
        NAMESPACE,
        variable(
            "ECM_NAMESPACE",
            "The namespace of engines that name none.",
            unset="is empty: set it to the namespace that engines go to by default",
        ),
    ]
    own_namespace: Annotated[
        str,
        NAMESPACE,
        variable(
            "ECM_POD_NAMESPACE",
            "The gateway's own namespace, where its ConfigMap is.",
            default="as ECM_NAMESPACE",
        ),
    ] = Field(default_factory=lambda fields: str(fields.get("namespace", "")))
    state_configmap: Annotated[
        str,
        CONFIGMAP,
        variable(
            "ECM_STATE_CONFIGMAP",
            "The ConfigMap with what an admin has set of this ECM: two installations in one namespace need two.",
        ),
    ] = "linkis-ecm-em"
    watch_namespaces: Annotated[
        tuple[str, ...],
        NAMESPACES,
        variable(
            "ECM_WATCH_NAMESPACES",
            "The other namespaces that users may name; without it only an admin may name one.",
            default="none",
        ),
    ] = ()
    instance: Annotated[
        str,
        HOST_PORT,
        variable("ECM_INSTANCE", "This gateway's host:port, as Linkis knows it.", default="localhost and the port"),
    ] = Field(default_factory=lambda fields: f"localhost:{fields.get('port', '')}")
    tokens_file: Annotated[
        str,
        variable(
            "ECM_TOKENS_FILE",
            "The file with the tokens of Linkis's services; without it none is taken.",
            default="none",
        ),
    ] = ""
    admins: Annotated[frozenset[str], USERS, variable("ECM_ADMINS", "Users who may do everything.", default="none")] = (
        frozenset()
    )
    kubernetes_auth: Annotated[
        bool,
        SWITCH,
        variable("ECM_AUTH_KUBERNETES", "Whether bearer tokens of Kubernetes are taken.", default="false"),
    ] = False
    kubernetes_audiences: Annotated[
        tuple[str, ...],
        Form(names().words, _peoples),
        variable(
            "ECM_AUTH_AUDIENCES",
            "The audiences of which a bearer token of Kubernetes must have one.",
            default="the API server's",
        ),
    ] = ()
    # Each is a call to the API server, for everybody else's there too. A proxy's users share its address.
    failed_logins_per_second: Annotated[
        int,
        whole(0, 100_000),
        variable(
            "ECM_AUTH_FAILED_RATE",
            "Bearer tokens of one address a second that Kubernetes may refuse before its next ones wait for each other;"
            " 0: no limit.",
        ),
    ] = 5
    kubernetes_service_accounts_only: Annotated[
        bool,
        SWITCH,
        variable(
            "ECM_AUTH_SERVICE_ACCOUNTS_ONLY",
            "Whether of Kubernetes's bearer tokens those of service accounts alone are taken: they are checked by the"
            " API server's public keys first, so no wrong token costs a call to it.",
            default="false",
        ),
    ] = False
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        NETWORKS,
        variable(
            "ECM_TRUSTED_PROXIES",
            "The networks of the proxies in front of the gateway: from them alone the client's address is taken from"
            " ECM_FORWARDED_HEADER.",
            default="none: the client is whoever connects",
        ),
    ] = ()
    forwarded_header: Annotated[
        str,
        choice("X-FORWARDED-FOR", "FORWARDED"),
        variable(
            "ECM_FORWARDED_HEADER",
            "The header to which these proxies append the address of whoever connects to them; the other one is not"
            " read.",
        ),
    ] = "X-FORWARDED-FOR"
    oidc: OidcSettings | None = None
    token_key: Annotated[
        SecretBytes,
        KEY_FILE,
        variable(
            "ECM_TOKEN_KEY_FILE",
            "The file with the master key of the engines' tokens, the same for operator and gateway.",
            unset="is empty: set it to the file with the key that the operator uses too",
        ),
    ]
    database_url: Annotated[
        SecretStr,
        variable(
            "ECM_DATABASE_URL",
            "The operator's database, as a SQLAlchemy URL; without it there is no history and no journal.",
            default="none",
        ),
    ] = SecretStr("")
    archive_url: Annotated[
        SecretStr,
        variable(
            "ECM_ARCHIVE_URL",
            "The operator's archive, as an fsspec URL; without it logs and results go with the pod.",
            default="none",
        ),
    ] = SecretStr("")
    limits: LimitsSetting = NO_LIMITS
    # The agent's own limit, so that what passes here is not refused there.
    max_body_bytes: int = 8 * MIB
    # Of bodies and log pages, at a time: half of the chart's default memory limit is everything else's.
    max_held_bytes: Annotated[
        int,
        whole(64, 1 << 20, scale=MIB),
        variable(
            "ECM_GATEWAY_HELD_MIB",
            "Bodies, pages and results in memory at a time, in MiB; at most half of the container's memory limit.",
            default="192",
        ),
    ] = 192 * MIB
    # The real ECM refuses logs over 100 MB because it has them in its own disk's way; we stream.
    max_download_bytes: Annotated[
        int,
        whole(0, 1 << 20, scale=MIB),
        variable("ECM_DOWNLOAD_LIMIT_MIB", "The longest log that is sent whole, in MiB; 0: no limit.", default="0"),
    ] = 0
    # Waiting calls included: each holds a socket and up to one body.
    max_requests: Annotated[
        int, whole(1, 100_000), variable("ECM_GATEWAY_MAX_REQUESTS", "The most calls at the same time, of all users.")
    ] = 1000
    # A TLS connection that says nothing takes 72 KiB: 105 MiB of the chart's 512, beside 192 of bodies and pages. What
    # strangers leave is as much as calls may be under way.
    max_connections: Annotated[
        int,
        whole(16, 100_000),
        variable(
            "ECM_GATEWAY_CONNECTIONS",
            "Connections at a time, of which one user has an eighth; each takes 72 KiB with TLS, 6 KiB without.",
        ),
    ] = 1500
    max_strangers: Annotated[
        int,
        whole(8, 100_000),
        variable(
            "ECM_GATEWAY_STRANGERS",
            "Connections at a time on which nobody has logged in, of ECM_GATEWAY_CONNECTIONS; a new one then takes the"
            " place of one that says nothing.",
        ),
    ] = 500
    # A loop of short tasks makes 200 calls a second; others must have as much left of what one core serves.
    user_per_second: Annotated[
        int, whole(0, 100_000), variable("ECM_GATEWAY_USER_RATE", "Calls a second of one user; 0: no limit.")
    ] = 500
    user_burst: Annotated[
        int, whole(1, 100_000), variable("ECM_GATEWAY_USER_BURST", "Calls of one user in a burst.")
    ] = 1000
    user_at_once: Annotated[
        int, whole(0, 100_000), variable("ECM_GATEWAY_USER_CALLS", "Calls of one user at a time; 0: no limit.")
    ] = 100
    # Each holds a connection, and 128 KiB of ECM_GATEWAY_HELD_MIB, of which all together have a third.
    max_streams: Annotated[
        int,
        whole(1, 100_000),
        variable(
            "ECM_GATEWAY_STREAMS",
            "Streams at a time (watchEngines, taskEvents, followEngineLog), of which one token and one address have"
            " half; each reserves 128 KiB of ECM_GATEWAY_HELD_MIB, of which they get a third.",
        ),
    ] = 500
    # A console has one for its list and one for the task or log that it shows.
    user_streams: Annotated[
        int,
        whole(1, 100_000),
        variable(
            "ECM_GATEWAY_USER_STREAMS",
            "Streams of one user at a time; raise it by the chart's gateway.extraEnv, with ECM_GATEWAY_STREAMS, for"
            " a crowd that follows one task as one user. The logs of an engine have 8 followers together, whatever it"
            " says.",
        ),
    ] = 50
    execute_seconds: Annotated[
        int,
        whole(1, 86400),
        variable("ECM_EXECUTE_SECONDS", "Seconds after which a task is cancelled whose caller names no limit."),
    ] = 3600
    execute_seconds_max: int = 86400
    # The port of every agent; 0 for tests, whose agents are on any port of loopback.
    agent_port: int = AGENT_PORT
    # A client that takes or gives nothing for so long is cut.
    client_seconds: float = 60.0
    # For an agent in the same cluster, to accept a connection; and to begin or go on with an answer.
    connect_seconds: float = 5.0
    agent_seconds: float = 30.0
    # With what else a stop takes (gateway.main) it is less than the chart's terminationGracePeriodSeconds.
    shutdown_seconds: float = 15.0

    @property
    def owner(self) -> str:
        """The installation's name, which operator and gateway share; "" where it is not set, and only guessed here."""
        return self.instance if "instance" in self.model_fields_set else ""

    @property
    def engine_namespaces(self) -> tuple[str, ...]:
        """The namespaces that engines go to, that of engines that name none first; each once."""
        return tuple(dict.fromkeys((self.namespace, *self.watch_namespaces)))


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`. Raises SettingsError."""
    more: dict[str, Any] = {}
    if environment.get("ECM_OIDC_ISSUER", "").strip():
        oidc = more["oidc"] = OidcSettings.read(environment)
        if oidc.admin_group and not oidc.groups_claim:
            raise SettingsError(
                "ECM_OIDC_ADMIN_GROUP is set and ECM_OIDC_GROUPS_CLAIM is not: name the claim with the user's groups,"
                " else nobody is in the group"
            )
    found = Settings.read(environment, **more)
    if bool(found.tls_cert_file) != bool(found.tls_key_file):
        has, lacks = "ECM_TLS_CERT_FILE", "ECM_TLS_KEY_FILE"
        if found.tls_key_file:
            has, lacks = lacks, has
        raise SettingsError(f"{lacks} is empty: set it to the other file of the pair, or leave {has} empty too")
    return found
