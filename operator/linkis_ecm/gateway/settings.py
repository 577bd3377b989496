"""The gateway's settings, read once from the environment.

A value that cannot be used is refused at start with one sentence that names the variable and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from linkis_ecm.model.token import master_key

MIB = 1 << 20


class SettingsError(ValueError):
    """A variable of the environment cannot be used; the text says which, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """Whose JWTs are taken, and what they say."""

    issuer: str
    audience: str
    jwks_url: str = ""
    user_claim: str = "preferred_username"
    groups_claim: str = ""
    admin_group: str = ""
    # Whom to trust for the issuer's certificate, instead of the system's authorities; what to show it for its keys.
    ca_file: str = ""
    token_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the gateway listens, whom it knows, what it bounds."""

    host: str = ""
    port: int = 9102
    # Where engines go that name no namespace, and the others that users may name; none: only an admin may name one.
    namespace: str
    watch_namespaces: tuple[str, ...] = ()
    instance: str = ""
    tokens_file: str = ""
    admins: frozenset[str] = frozenset()
    # Bearer tokens of Kubernetes, checked by its TokenReview; for these audiences, or for the API server's own.
    kubernetes_auth: bool = False
    kubernetes_audiences: tuple[str, ...] = ()
    oidc: OidcSettings | None = None
    token_key: bytes = field(repr=False)
    database_url: str = field(default="", repr=False)
    archive_url: str = field(default="", repr=False)
    # The agent's own limit, so that what passes here is not refused there.
    max_body_bytes: int = 8 * MIB
    # Of bodies and log pages, at a time: half of the chart's default memory limit is everything else's.
    max_held_bytes: int = 192 * MIB
    # The real ECM refuses logs over 100 MB because it has them in its own disk's way; we stream. 0: no limit.
    max_download_bytes: int = 0
    # Calls under way at a time, waiting ones included: each holds a socket and up to one body.
    max_requests: int = 1000
    # Of one user: calls a second, in a burst, and under way at a time. A loop of short tasks makes 200 a second; others
    # must have as much left of what one core serves.
    user_per_second: int = 500
    user_burst: int = 1000
    user_at_once: int = 100
    execute_seconds: int = 3600
    execute_seconds_max: int = 86400
    # A client that takes or gives nothing for so long is cut.
    client_seconds: float = 60.0
    # For an agent in the same cluster, to accept a connection; and to begin or go on with an answer.
    connect_seconds: float = 5.0
    agent_seconds: float = 30.0
    shutdown_seconds: float = 20.0


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`. Raises SettingsError."""
    port = _whole(environment, "ECM_GATEWAY_PORT", 9102, low=1, top=65535)
    namespace = environment.get("ECM_NAMESPACE", "")
    if not namespace:
        raise SettingsError("ECM_NAMESPACE is empty: set it to the namespace that engines go to by default")
    return Settings(
        host=environment.get("ECM_GATEWAY_HOST", ""),
        port=port,
        namespace=namespace,
        watch_namespaces=_names(environment.get("ECM_WATCH_NAMESPACES", "")),
        instance=environment.get("ECM_INSTANCE", "") or f"localhost:{port}",
        tokens_file=environment.get("ECM_TOKENS_FILE", ""),
        admins=frozenset(_names(environment.get("ECM_ADMINS", ""))),
        kubernetes_auth=_switch(environment, "ECM_AUTH_KUBERNETES"),
        kubernetes_audiences=_names(environment.get("ECM_AUTH_AUDIENCES", "")),
        oidc=_oidc(environment),
        token_key=_key(environment.get("ECM_TOKEN_KEY_FILE", "")),
        database_url=environment.get("ECM_DATABASE_URL", ""),
        archive_url=environment.get("ECM_ARCHIVE_URL", ""),
        max_download_bytes=_whole(environment, "ECM_DOWNLOAD_LIMIT_MIB", 0, low=0, top=1 << 20) * MIB,
        max_requests=_whole(environment, "ECM_GATEWAY_MAX_REQUESTS", 1000, low=1, top=100_000),
        user_per_second=_whole(environment, "ECM_GATEWAY_USER_RATE", 500, low=0, top=100_000),
        user_burst=_whole(environment, "ECM_GATEWAY_USER_BURST", 1000, low=1, top=100_000),
        user_at_once=_whole(environment, "ECM_GATEWAY_USER_CALLS", 100, low=0, top=100_000),
        execute_seconds=_whole(environment, "ECM_EXECUTE_SECONDS", 3600, low=1, top=86400),
    )


def _switch(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "")
    if text not in ("", "true", "false"):
        raise SettingsError(f"{name} is {text!r}: write true or false")
    return text == "true"


def _oidc(environment: Mapping[str, str]) -> OidcSettings | None:
    issuer, audience = environment.get("ECM_OIDC_ISSUER", ""), environment.get("ECM_OIDC_AUDIENCE", "")
    if not issuer:
        return None
    if not issuer.startswith(("https://", "http://")):
        raise SettingsError(f"ECM_OIDC_ISSUER is {issuer[:100]!r}: write the issuer's URL, as it stands in its tokens")
    if not audience:
        raise SettingsError("ECM_OIDC_AUDIENCE is empty: set it to the audience that tokens for this gateway carry")
    return OidcSettings(
        issuer=issuer,
        audience=audience,
        jwks_url=environment.get("ECM_OIDC_JWKS_URL", ""),
        user_claim=environment.get("ECM_OIDC_USER_CLAIM", "") or "preferred_username",
        groups_claim=environment.get("ECM_OIDC_GROUPS_CLAIM", ""),
        admin_group=environment.get("ECM_OIDC_ADMIN_GROUP", ""),
        ca_file=environment.get("ECM_OIDC_CA_FILE", ""),
        token_file=environment.get("ECM_OIDC_TOKEN_FILE", ""),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _key(path: str) -> bytes:
    if not path:
        raise SettingsError("ECM_TOKEN_KEY_FILE is empty: set it to the file with the key that the operator uses too")
    try:
        return master_key(Path(path).read_bytes())
    except OSError as error:
        raise SettingsError(f"ECM_TOKEN_KEY_FILE {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"ECM_TOKEN_KEY_FILE {path}: {error}") from None


def _whole(environment: Mapping[str, str], name: str, default: int, *, low: int, top: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= top:
        raise SettingsError(f"{name} is {text!r}: write a whole number from {low} to {top}")
    return int(text)
