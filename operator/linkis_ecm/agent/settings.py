"""The agent's settings, read once from its environment (docs/design/interfaces.md, "Agent's environment").

A value that cannot be used is refused at start with one sentence that names the variable and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from linkis_ecm.agent.formats.names import DEFAULT_LOG_DIR, IDENTITY_FILE, MEMBER_UID

MIB = 1 << 20


class SettingsError(ValueError):
    """A variable of the environment cannot be used; the text says which, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Who this engine is and where it listens, writes and reports."""

    namespace: str
    name: str
    uid: str
    attempt: int
    ticket_id: str
    pod_uid: str
    # An enrolment that was made already, and its key (tests, a run by hand); both empty where the agent enrols itself.
    key: str = field(repr=False)
    nonce: str
    identity_file: str
    report_host: str
    report_port: int
    report_period: float
    host: str
    port: int
    log_dir: str
    stop_grace: float
    start_timeout: float = 120.0
    mode: str = "computation"
    # Whether this agent waits in a warm pool for its engine, and the Python modules that its kernel imports meanwhile.
    # Then namespace is the pool's, and name and ticket_id are empty.
    member: bool = False
    preload: tuple[str, ...] = ()
    # Processes and threads of the container; 0: no bound.
    max_processes: int = 0
    # What stdout and stderr each keep, and all files of the log folder together, of a volume over whose limit (4 GiB:
    # model.plugin.LOG_VOLUME) the kubelet evicts the pod.
    log_file_bytes: int = 512 * MIB
    log_total_bytes: int = 2048 * MIB


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`. Raises SettingsError."""
    report_host, report_port = _report_address(environment.get("ECM_REPORT_URL", ""))
    key = environment.get("ECM_AGENT_KEY", "")
    if not key and not report_host:
        raise SettingsError("ECM_REPORT_URL is empty: set it to the operator's reports service, which gives the key")
    member, mode = environment.get("ECM_MEMBER") == "1", _mode(environment.get("ECM_MODE", ""))
    if member and mode != "computation":
        raise SettingsError(f"ECM_MODE is {mode!r}: a member of a warm pool runs no job, so leave ECM_MODE out")
    return Settings(
        namespace=environment.get("ECM_NAMESPACE", ""),
        name="" if member else environment.get("ECM_NAME", ""),
        uid=MEMBER_UID if member else environment.get("ECM_UID", ""),
        attempt=0 if member else _whole(environment, "ECM_ATTEMPT", 0, top=1_000_000),
        ticket_id="" if member else environment.get("ECM_TICKET_ID", ""),
        pod_uid=environment.get("ECM_POD_UID", ""),
        key=key,
        nonce=environment.get("ECM_ENROLMENT", ""),
        identity_file=environment.get("ECM_IDENTITY_FILE") or IDENTITY_FILE,
        report_host=report_host,
        report_port=report_port,
        report_period=_seconds(environment, "ECM_REPORT_PERIOD", 10.0),
        host=environment.get("ECM_AGENT_HOST", ""),
        port=_whole(environment, "ECM_AGENT_PORT", 9105, top=65535),
        log_dir=environment.get("ECM_LOG_DIR") or DEFAULT_LOG_DIR,
        # With what follows on it (interrupt, kill, last report: 8 s at most) under Kubernetes's 30 s for a pod.
        stop_grace=_seconds(environment, "ECM_STOP_GRACE", 20.0),
        start_timeout=_seconds(environment, "ECM_START_TIMEOUT", 120.0),
        mode=mode,
        member=member,
        preload=tuple(filter(None, map(str.strip, environment.get("ECM_PRELOAD", "").split(",")))) if member else (),
        max_processes=_whole(environment, "ECM_MAX_PROCESSES", 0, top=4194304),
        log_file_bytes=_whole(environment, "ECM_LOG_FILE_MIB", 512, low=8, top=1 << 20) * MIB,
        log_total_bytes=_whole(environment, "ECM_LOG_TOTAL_MIB", 2048, low=32, top=1 << 20) * MIB,
    )


def _report_address(url: str) -> tuple[str, int]:
    """Host and port of the operator's reports service; ("", 0) where nothing is reported."""
    if not url:
        return "", 0
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if host is None or parts.scheme != "http":
        raise SettingsError(f"ECM_REPORT_URL is {url!r}: write it like http://host:9103, or leave it empty")
    return host, port


def _mode(text: str) -> str:
    if text not in ("", "computation", "once"):
        raise SettingsError(f"ECM_MODE is {text!r}: write computation or once")
    return text or "computation"


def _whole(environment: Mapping[str, str], name: str, default: int, *, low: int = 0, top: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= top:
        raise SettingsError(f"{name} is {text!r}: write a whole number from {low} to {top}")
    return int(text)


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.05 <= value <= 86400:
        raise SettingsError(f"{name} is {text!r}: write a number of seconds from 0.05 to 86400")
    return value
