"""The operator's settings, from the environment. A wrong one is told in a sentence with its name and the remedy."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from linkis_ecm.model.token import master_key


class SettingsError(ValueError):
    """A setting is missing or wrong; the text names it and says what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """See each variable's text in `from_environment`."""

    database_url: str
    ecm_instance: str
    report_url: str
    token_key: bytes
    namespace: str
    identity: str
    watch_namespaces: tuple[str, ...] = ()
    engine_service: str = "linkis-engines"
    report_port: int = 9103
    health_port: int = 9104
    report_period: float = 10.0
    archive_url: str = "memory://"
    archive_days: int = 7
    archive_file_max: int = 1 << 30
    archive_total: int = 8 << 30
    canary: bool = True


def from_environment(env: Mapping[str, str]) -> OperatorSettings:
    """Reads ECM_*; raises SettingsError for the first that is wrong."""
    return OperatorSettings(
        database_url=_needed(env, "ECM_DATABASE_URL", "a SQLAlchemy URL such as sqlite:////data/ecm.sqlite3"),
        ecm_instance=_needed(env, "ECM_INSTANCE", "the gateway's host:port, as Linkis knows this ECM"),
        report_url=_url(env, "ECM_REPORT_URL"),
        token_key=_key(env, "ECM_TOKEN_KEY_FILE"),
        namespace=env.get("ECM_POD_NAMESPACE") or "default",
        identity=env.get("ECM_POD_NAME") or socket.gethostname(),
        watch_namespaces=_names(env, "ECM_WATCH_NAMESPACES"),
        engine_service=env.get("ECM_ENGINE_SERVICE") or "linkis-engines",
        report_port=_port(env, "ECM_REPORT_PORT", 9103),
        health_port=_port(env, "ECM_HEALTH_PORT", 9104),
        report_period=float(_port(env, "ECM_REPORT_PERIOD", 10)),
        archive_url=_needed(env, "ECM_ARCHIVE_URL", "an fsspec URL such as file:///data/archive"),
        archive_days=_whole(env, "ECM_ARCHIVE_DAYS", 7, top=36500),
        archive_file_max=_whole(env, "ECM_ARCHIVE_FILE_MAX_MIB", 1024, top=1 << 20) << 20,
        archive_total=_whole(env, "ECM_ARCHIVE_TOTAL_MIB", 8192, top=1 << 30) << 20,
        canary=_whole(env, "ECM_CANARY", 1, low=0, top=1) == 1,
    )


def _needed(env: Mapping[str, str], name: str, what: str) -> str:
    value = env.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set: write {what} into it")
    return value


def _url(env: Mapping[str, str], name: str) -> str:
    value = _needed(env, name, "the URL of the operator's reports service, such as http://linkis-ecm-operator:9103")
    if not re.fullmatch(r"https?://[^/\s]+", value):
        raise SettingsError(f"{name} is {value!r}: write scheme, host and port only, such as http://host:9103")
    return value


def _key(env: Mapping[str, str], name: str) -> bytes:
    path = _needed(env, name, "the path of the file with the master key of the engines' tokens")
    try:
        return master_key(Path(path).read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{name} names {path}, which cannot be read ({error.strerror}): mount the Secret"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{name} names {path}: {error}") from error


def _names(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in env.get(name, "").split(",") if part.strip())
    for one in names:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", one):
            raise SettingsError(f"{name} holds {one!r}, which is no namespace: write names with commas between them")
    return names


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    return _whole(env, name, default, top=65535)


def _whole(env: Mapping[str, str], name: str, default: int, *, low: int = 1, top: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not low <= int(text) <= top:
        raise SettingsError(f"{name} is {text!r}: write a whole number from {low} to {top}")
    return int(text)
