"""The launch description: what an engine's container runs, and how to find out whether it is ready, alive or stopped.

Two kinds (`model.engineconn.Launch`). `agent`: linkis_ecm.agent, which reports its state, takes the request to stop and
runs code. `process`: any other program; the kubelet checks whether it is ready, its container's state says whether it
is alive, and SIGTERM stops it. Only this module of the core knows what follows from the kind. Pure. Must not choose a
state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from linkis_ecm.agent.formats.names import DEFAULT_LOG_DIR, IDENTITY_FILE, KERNEL_ENV_PREFIX
from linkis_ecm.engine.names import AGENT_PORT
from linkis_ecm.engine.pod_view import LAUNCH_ANNOTATION, PodView
from linkis_ecm.engine.view import EngineView, PluginView
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import Launch, ReadyCheck
from linkis_ecm.model.reasons import Reason

AGENT = Launch(kind="agent")
# On pods without an agent; the chart's headless Service selects by it.
LAUNCH_LABEL = "linkis.apache.org/launch"
# Whom the token that proves an agent's pod is for: no other service takes it, the API server neither.
IDENTITY_AUDIENCE = "linkis-ecm"
# The kubelet renews it in time. An agent needs it once, at its start; ten minutes is the API server's least.
IDENTITY_SECONDS = 600
IDENTITY_DIR, _, _IDENTITY_NAME = IDENTITY_FILE.rpartition("/")
LOG_DIR = DEFAULT_LOG_DIR
# MiB. The agent's log files drop their oldest lines: each file beyond the first limit, and all files together, with
# those that the user's code writes, beyond the second.
LOG_FILE_MIB, LOG_TOTAL_MIB = 512, 2048
# Seconds that the agent needs at most after the task: 5 s to interrupt and kill, 10 s for its last report and its logs.
AFTER_GRACE = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """The operator's settings for every engine's pod."""

    # Where agents report; `report_urls` has other addresses, by the engine's namespace.
    report_url: str
    report_urls: Mapping[str, str] = field(default_factory=dict, hash=False)
    # The installation's name, for the label of its pods; "" for none.
    instance: str = ""
    service: str = "linkis-engines"
    # Where that Service is; None: in each namespace. Elsewhere no host name of an engine resolves.
    service_namespaces: frozenset[str] | None = None
    report_period: float = 10.0
    # EngineConns are checked by the chart's admission policy: their authors were asked for a priority class.
    admission: bool = False
    # The operator's own namespace, and what engines there may not mount: "secret/…" and "persistentvolumeclaim/…".
    own_namespace: str = ""
    protected: frozenset[str] = frozenset()

    def has_service(self, namespace: str) -> bool:
        """Whether engines of that namespace have a host name."""
        return self.service_namespaces is None or namespace in self.service_namespaces

    def protected_in(self, namespace: str) -> frozenset[str]:
        """What engines of that namespace may not mount."""
        return self.protected if namespace == self.own_namespace else frozenset()


def of(engine: EngineView, plugin: PluginView | None, pod: PodView | None = None) -> Launch:
    """The launch with which the engine's pod was created; before it has a pod, its plugin's.

    The status has it, unless its write after the pod's creation failed; then the pod itself says it.
    """
    written = engine.status.get("launch")
    if written is not None:
        try:
            return Launch.model_validate(written)
        except ValidationError:
            pass  # edited by hand
    if pod is not None and pod.launch is not None:
        return pod.launch
    if written is None and engine.text("podName"):
        return AGENT
    return (plugin.spec.launch if plugin is not None else None) or AGENT


def has_agent(launch: Launch) -> bool:
    """Whether an agent runs in the pod: it reports, takes the request to stop, and runs code."""
    return launch.kind == "agent"


def port(launch: Launch) -> int:
    """The port of the engine's address; 0 for a process without a port."""
    return AGENT_PORT if has_agent(launch) else launch.port or 0


def ready_reason(launch: Launch) -> Reason:
    """The reason of the first Idle of an engine with this launch."""
    return reasons.KERNEL_READY if has_agent(launch) else reasons.PROCESS_READY


def written(launch: Launch) -> dict[str, Any] | None:
    """The description for `status.launch`, so that a changed plugin does not change a running engine; None for an
    agent."""
    return None if has_agent(launch) else launch.model_dump(by_alias=True, exclude_none=True)


# --- the pod


def pod_annotations(launch: Launch) -> dict[str, str]:
    """What the pod says of its launch."""
    return {LAUNCH_ANNOTATION: launch.model_dump_json(by_alias=True, exclude_none=True)}


def pod_labels(launch: Launch) -> dict[str, str]:
    """What the headless Service selects: a process is called by its host name. Agents are not: they are called by their
    addresses, and a name that is listed tells every pod whose engine it is."""
    return {} if has_agent(launch) else {LAUNCH_LABEL: launch.kind}


def container_ports(launch: Launch) -> list[dict[str, Any]]:
    if has_agent(launch):
        return [{"name": "agent", "containerPort": AGENT_PORT}]
    return [{"name": "engine", "containerPort": launch.port}] if launch.port is not None else []


def agent_env(
    engine: EngineView,
    *,
    engine_type: str,
    mode: str,
    ticket: str,
    attempt: int,
    grace: int,
    start_timeout: float,
    max_processes: int,
    working_dir: str | None,
    settings: PodSettings,
) -> list[dict[str, Any]]:
    """The agent's environment (docs/design/interfaces.md). `grace` and `start_timeout` are in seconds.

    No value of it is secret.
    """
    values = {
        "ECM_NAMESPACE": engine.namespace,
        "ECM_NAME": engine.name,
        "ECM_UID": engine.uid,
        "ECM_ATTEMPT": str(attempt),
        "ECM_TICKET_ID": ticket,
        "ECM_REPORT_URL": settings.report_urls.get(engine.namespace, settings.report_url),
        "ECM_REPORT_PERIOD": f"{settings.report_period:g}",
        "ECM_AGENT_PORT": str(AGENT_PORT),
        "ECM_LOG_DIR": LOG_DIR,
        "ECM_LOG_FILE_MIB": str(LOG_FILE_MIB),
        "ECM_LOG_TOTAL_MIB": str(LOG_TOTAL_MIB),
        "ECM_ENGINE_TYPE": engine_type,
        "ECM_STOP_GRACE": str(max(grace, 1)),
        "ECM_MODE": mode,
        "ECM_MAX_PROCESSES": str(max_processes),
        # Within the agent's bounds.
        "ECM_START_TIMEOUT": f"{min(max(start_timeout, 0.05), 86400.0):g}",
    }
    if working_dir is not None:
        values["ECM_WORK_DIR"] = working_dir
    pod_uid = {"name": "ECM_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
    return [*({"name": name, "value": value} for name, value in values.items()), pod_uid]


def kernel_name(name: str) -> str:
    """The name under which a variable of the user is in the pod: it means nothing to the agent's own process, nor to
    Python or its loader. The agent gives it to the kernel under its own."""
    return f"{KERNEL_ENV_PREFIX}{name}"


def identity_volume() -> dict[str, Any]:
    """The token by which an agent proves its pod: made by the kubelet, bound to this pod, for our audience alone."""
    source = {"audience": IDENTITY_AUDIENCE, "expirationSeconds": IDENTITY_SECONDS, "path": _IDENTITY_NAME}
    return {"name": "identity", "projected": {"sources": [{"serviceAccountToken": source}]}}


def readiness_probe(launch: Launch) -> dict[str, Any] | None:
    """The container's readinessProbe; None where nothing is asked: an agent reports, a process without a port runs."""
    if has_agent(launch) or launch.port is None:
        return None
    check = launch.ready or ReadyCheck.model_validate({})
    if check.http is not None:
        probe: dict[str, Any] = {"httpGet": {"path": check.http.path, "port": check.http.port or launch.port}}
    else:
        probe = {"tcpSocket": {"port": (check.tcp.port if check.tcp is not None else None) or launch.port}}
    return probe | {
        "initialDelaySeconds": check.initial_delay_seconds,
        "periodSeconds": check.period_seconds,
        "timeoutSeconds": check.timeout_seconds,
        "failureThreshold": check.failure_threshold,
    }


def termination_grace(launch: Launch, grace: int) -> int:
    """Seconds between SIGTERM and SIGKILL for an engine of that `grace`; 1 at least: 0 would leave the kubelet out."""
    return grace + AFTER_GRACE if has_agent(launch) else max(grace, 1)


# --- a process, by its pod


def process_ready_at(launch: Launch, pod: PodView) -> datetime | None:
    """From when on the process counts as ready; None while it does not.

    The time may lie ahead: a process without a check is ready when it has run for its initial delay.
    """
    if not pod.ready or pod.started is None:
        return None
    delay = timedelta(seconds=launch.ready.initial_delay_seconds if launch.ready is not None else 0)
    return max(pod.ready_since or pod.started, pod.started + delay)


def waits_for(launch: Launch) -> str:
    """What a container that runs has not done yet, in a sentence, for an engine that was not ready in time."""
    if has_agent(launch):
        return "Its container runs, but the agent has not reported: see the engine's log."
    probe = readiness_probe(launch)
    if probe is None:
        return "Its container runs, but not yet for launch.ready.initialDelaySeconds."
    if "httpGet" in probe:
        unanswered = (
            f"GET {probe['httpGet']['path']} on port {probe['httpGet']['port']} is not answered with 200 to 399"
        )
    else:
        unanswered = f"port {probe['tcpSocket']['port']} takes no connection"
    return f"Its container runs, but {unanswered}: see the engine's log."
