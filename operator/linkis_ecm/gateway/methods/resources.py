"""getEngineMetrics, getResourceUsage, updateResource, reportResourceUsage: an engine's metrics, usage and resources.

The agent measures. The EngineConn's status has the agent's last report, and the database has the metrics of an ended
engine.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from linkis_ecm.api.models import (
    EngineMetricsAnswer,
    EngineRequest,
    NoAnswer,
    ReportResourceUsageRequest,
    Resources,
    ResourceUsageAnswer,
    UpdateResourceAnswer,
    UpdateResourceRequest,
    Usage,
)
from linkis_ecm.engine.admission.limits import Amount, Holder, amount
from linkis_ecm.engine.decision import Snapshot
from linkis_ecm.engine.pod import spec as podspec
from linkis_ecm.engine.pod.spec import InvalidSpecError, Sizes
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.engine.resizing import same_amount
from linkis_ecm.engine.soft_pause import whole_body
from linkis_ecm.gateway.agents.link import can_ask_agent
from linkis_ecm.gateway.agents.reported import number, whole
from linkis_ecm.gateway.answers import Answer
from linkis_ecm.gateway.context import Call, Gateway
from linkis_ecm.gateway.http.errors import Refused, bad_request, forbidden, no_login, unavailable
from linkis_ecm.gateway.http.validate import sentence
from linkis_ecm.gateway.inventory.places import refused_growth
from linkis_ecm.gateway.inventory.view import KnownEngine, startup_millis, view_of
from linkis_ecm.gateway.methods.create import limit_reached
from linkis_ecm.gateway.methods.explain import snapshot_of
from linkis_ecm.kube.errors import ApiError, Forbidden, Invalid, NotFound
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from linkis_ecm.model.agent_key import key_of
from linkis_ecm.model.engineconn import EngineConnSpec
from linkis_ecm.model.formats import parse_quantity
from linkis_ecm.model.plugin import EngineConnPluginSpec

log = logging.getLogger(__name__)

# The kubelet resizes within 1 or 2 s if the node has room, and later if it is busy with other pods. A resize that is
# not done in this time is undone and reported. It is half of the call's time limit.
RESIZE_SECONDS, RESIZE_POLL = 30.0, 0.5


async def get_engine_metrics(call: Call, request: EngineRequest) -> Answer:
    """The engine's times and tasks, from its agent; of an ended engine what the database kept."""
    engine = await call.engine(request.engine_id)
    if can_ask_agent(engine):
        report = await call.gateway.agents.status(engine)
        return Answer(
            EngineMetricsAnswer(
                engine_id=engine.engine_id,
                ticket_id=engine.shown_ticket,
                status=engine.status,
                live=True,
                **{name: whole(value) for name, value in report["metrics"].items() if name in _TIME_METRICS},
                tasks_started=whole(report.get("tasksStarted")),
                tasks_succeeded=whole(report.get("tasksSucceeded")),
                tasks_failed=whole(report.get("tasksFailed")),
                last_task_ended=report.get("lastTaskEnded", 0.0),
                startup_millis=startup_millis(engine.startup),
            )
        )
    kept = await _recorded_metrics(call.gateway, engine)
    return Answer(
        EngineMetricsAnswer(
            engine_id=engine.engine_id,
            ticket_id=engine.shown_ticket,
            status=engine.status,
            live=False,
            **{name: whole(kept.get(name)) if name in kept else None for name in _TIME_METRICS},
            tasks_started=None,
            tasks_succeeded=None,
            tasks_failed=None,
            startup_millis=startup_millis(engine.startup),
            kept=kept,
        )
    )


_TIME_METRICS = ("totalUnlockTimeMills", "totalIdleTimeMills", "totalBusyTimeMills", "totalLockTimeMills")


async def _recorded_metrics(gateway: Gateway, engine: KnownEngine) -> dict[str, Any]:
    """The metrics in the engine's record; {} if there are none. Raises Refused."""
    records = gateway.records
    row = await gateway.history.record_of(records, engine) if records is not None else None
    try:
        kept = orjson.loads(row.metrics) if row is not None and row.metrics else {}
    except orjson.JSONDecodeError:
        kept = {}
    return kept if isinstance(kept, dict) else {}


async def get_resource_usage(call: Call, request: EngineRequest) -> Answer:
    """What was asked for and what is used: measured now where the agent answers, else the last word."""
    gateway = call.gateway
    engine = await call.engine(request.engine_id)
    if not engine.in_cluster:
        raise bad_request(f"{engine.title} has ended and uses nothing: its last figures are in getEngineMetrics")
    snapshot = await snapshot_of(gateway, engine)
    used = None
    if snapshot.report is not None and snapshot.report.usage:
        used = _usage(snapshot.report.usage, "agent", gateway.executions.now())
    elif (reported := gateway.usage_reports.get(engine.uid)) is not None:
        used = reported
    elif isinstance(kept := snapshot.engine.status.get("usage"), dict):
        used = _usage(kept, "operator", 0.0)
    return Answer(ResourceUsageAnswer(engine_id=engine.engine_id, requested=_requested(snapshot), used=used))


def _usage(figures: Any, source: str, at: float) -> Usage:
    memory, peak, cpu = (number(figures.get(name)) for name in ("memoryBytes", "memoryPeakBytes", "cpuSeconds"))
    return Usage(
        memory_bytes=None if memory is None else int(memory),
        memory_peak_bytes=None if peak is None else int(peak),
        cpu_seconds=None if cpu is None else float(cpu),
        source=source,
        at=at,
    )


def _requested(snapshot: Snapshot) -> Resources:
    """The engine's requested resources, with its plugin's defaults for the rest."""
    try:
        size = _sizes(snapshot, snapshot.engine.spec)
    except Refused:
        return Resources()
    return _resources(size)


def _resources(size: Sizes) -> Resources:
    return Resources(
        cpu=size.cpu, cpu_limit=size.cpu_limit, memory=size.memory, extended=dict(size.extended) or None
    )  # fmt: skip


def _sizes(
    snapshot: Snapshot,
    spec: EngineConnSpec | None,
    resolve: Callable[[EngineConnSpec, EngineConnPluginSpec], Sizes] = podspec.sizes,
) -> Sizes:
    """The resolved sizes. Raises Refused for what `resolve` refuses."""
    if spec is None or snapshot.plugin is None:
        raise unavailable("The engine's plugin cannot be read now: try again")
    try:
        return resolve(spec, snapshot.plugin.spec)
    except InvalidSpecError as error:
        raise bad_request(str(error)) from None


async def update_resource(call: Call, request: UpdateResourceRequest) -> Answer:
    """Give a running engine more or less, in place: its pod is resized by the kubelet, nothing restarts.

    The pod first: the API server's refusal (a quota, an older cluster) is the caller's answer and changes nothing.
    """
    gateway = call.gateway
    engine = await call.engine(request.engine_id)
    if engine.is_final or engine.is_ending or not engine.pod_name:
        raise bad_request(f"{engine.title} has no running pod: its resources are those that it was created with")
    snapshot = await snapshot_of(gateway, engine)
    spec = snapshot.engine.spec
    # Not bounded: an amount of 0 that was stored before it was refused is mended by this call.
    before = _sizes(snapshot, spec, resolve=podspec.chosen_sizes)
    requested = request.resources.model_dump(by_alias=True, exclude_none=True)
    if not requested:
        raise bad_request("Parameter resources cannot be empty: give cpu, cpuLimit or memory")
    if request.resources.extended is not None:
        raise bad_request(
            "resources.extended cannot be changed while the engine runs, as Kubernetes never changes it in a pod:"
            " create another engine with it"
        )
    body = spec.model_dump(by_alias=True, exclude_none=True) if spec is not None else {}
    body["resources"] = {**(body.get("resources") or {}), **requested}
    try:
        after = _sizes(snapshot, EngineConnSpec.model_validate(body))
    except ValidationError as error:
        raise sentence(EngineConnSpec, error) from None
    to = amount(after.cpu, after.memory)
    with _refusals_of(engine):
        pod = await gateway.cluster.get(PODS, engine.pod_name, namespace=engine.namespace)
    # Of a soft-paused engine as it is while it is used: it grows from there, and goes back to there.
    pod = whole_body(snapshot.engine, pod)
    if why := pod_view(pod).refuses(after.as_container):
        raise bad_request(
            f"{engine.title} cannot have these resources while it runs: {why}. Give resources.cpu and"
            " resources.cpuLimit that keep to that, or create another engine with them"
        )
    # No await between question and hold: of two calls at a time the second counts the first.
    _require_place(gateway, engine, before=_less(amount(before.cpu, before.memory), _size_of(pod)), to=to)
    with gateway.growing.hold((engine.namespace, engine.name), to):
        with _refusals_of(engine):
            given = snapshot.plugin.spec.soft_pause if snapshot.plugin is not None else None
            await _resize(gateway, engine, pod, after, given.cpu if given is not None else "")
        try:
            change = {"spec": {"resources": body["resources"]}}
            written = await gateway.cluster.patch(ENGINECONNS, engine.name, change, namespace=engine.namespace)
            gateway.engines.update_if_newer(view_of(written))
        except ApiError as error:
            raise unavailable(
                f"The pod of {engine.title} is resized and its resource is not ({error.reason}): repeat the call, or"
                " its next pod has the old size"
            ) from None
    log.info("%s was resized by %s", engine.title, call.caller.user)
    return Answer(
        UpdateResourceAnswer(engine_id=engine.engine_id, before=_resources(before), after=_resources(after)),
        message="the engine's resources are updated",
    )


def _require_place(gateway: Gateway, engine: KnownEngine, *, before: Amount, to: Amount) -> None:
    """Raises Refused, with figure and remedy, if the limits of people leave no place for what the engine grows by."""
    refused = refused_growth(
        before,
        Holder(engine.namespace, engine.name, engine.user, to),
        engines=gateway.engines,
        plugins=gateway.plugins,
        growing=gateway.growing,
        limits=gateway.settings.limits,
    )
    if refused is not None:
        raise limit_reached(gateway, refused, f"The resources of {engine.title} stay as they are. {{}}")


def _less(of_spec: Amount, of_pod: Amount) -> Amount:
    """What an engine has for certain: a spec that was edited to a bigger size has given its pod nothing."""
    return Amount(1, min(of_spec.cpu_milli, of_pod.cpu_milli), min(of_spec.memory_bytes, of_pod.memory_bytes))


def _size_of(pod: dict[str, Any]) -> Amount:
    """What the engine's container has."""
    for container in pod["spec"]["containers"]:
        if container.get("name") == "engine":
            given = container.get("resources") or {}
            cpu, memory = (given.get("requests") or {}).get("cpu"), (given.get("limits") or {}).get("memory")
            return amount(str(cpu or ""), str(memory or ""))
    return amount("", "")


async def _resize(
    gateway: Gateway, engine: KnownEngine, pod: dict[str, Any], size: Sizes, paused_cpu: str
) -> None:  # fmt: skip
    """Resize the pod and wait for its kubelet. Raises Refused and ApiError; the pod then has its old size."""
    resources = size.as_container
    before = pod["spec"]["containers"]
    # A merge patch replaces a whole list, so all containers are sent, with the one change.
    after = [one | {"resources": _resized(one, resources)} if one.get("name") == "engine" else one for one in before]
    pod = await _patch(gateway, engine, after)
    deadline = asyncio.get_running_loop().time() + RESIZE_SECONDS
    while not _is_resized(pod, resources, paused_cpu):
        why = _resize_refusal(pod)
        if why.startswith("Infeasible") or asyncio.get_running_loop().time() > deadline:
            await _patch(gateway, engine, before)  # a refusal changes nothing
            raise bad_request(f"The node does not give {engine.title} the new resources: {why}", canRetry=True)
        await asyncio.sleep(RESIZE_POLL)
        pod = await gateway.cluster.get(PODS, engine.pod_name or "", namespace=engine.namespace)


@contextmanager
def _refusals_of(engine: KnownEngine) -> Iterator[None]:
    """The API server's errors about the engine's pod, as Refused."""
    try:
        yield
    except NotFound:
        raise bad_request(
            f"The pod of {engine.title} cannot be resized: it is gone, or this cluster's version does not resize pods"
            " in place (Kubernetes 1.33 and later do): create another engine with the new resources"
        ) from None
    except (Invalid, Forbidden) as error:
        text = " ".join(error.message.split())[:500]
        raise bad_request(f"The API server refuses the new resources of {engine.title}: {text}") from None
    except ApiError as error:
        raise unavailable(f"The API server does not resize {engine.title} now ({error.reason}): try again") from None


def _resized(container: dict[str, Any], resources: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The container's resources with other cpu and memory. What else it has, such as local disk, cannot be resized. A
    limit cannot be taken away, and a LimitRange gives one of cpu to each pod without."""
    before = container.get("resources") or {}
    return {kind: dict(before.get(kind) or {}) | amounts for kind, amounts in resources.items()}


async def _patch(gateway: Gateway, engine: KnownEngine, containers: list[dict[str, Any]]) -> dict[str, Any]:
    change = {"spec": {"containers": containers}}
    name, namespace = engine.pod_name or "", engine.namespace
    return await gateway.cluster.patch(PODS, name, change, namespace=namespace, subresource="resize")


def _is_resized(pod: dict[str, Any], resources: dict[str, dict[str, str]], paused_cpu: str) -> bool:
    """Whether the kubelet reports that the container has exactly these resources.

    The operator may have paused the engine since (softPause): it makes no pod smaller whose resize is under way, so one
    that asks for the `paused_cpu` by now had the cpu that was asked for.
    """
    asked = next((one.get("resources") or {} for one in pod["spec"]["containers"] if one.get("name") == "engine"), {})
    cpu = str((asked.get("requests") or {}).get("cpu") or "")
    paused = same_amount(cpu, paused_cpu) and not same_amount(cpu, resources["requests"]["cpu"])
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        if container.get("name") == "engine":
            actual = container.get("resources") or {}
            return all(
                parse_quantity(str((actual.get(kind) or {}).get(name, "0"))) == parse_quantity(amount)
                for kind, amounts in resources.items()
                for name, amount in amounts.items()
                if name != "cpu" or not paused
            )
    return False


def _resize_refusal(pod: dict[str, Any]) -> str:
    """The kubelet's reason why a resize is not done yet."""
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") in ("PodResizePending", "PodResizeInProgress") and condition.get("status") == "True":
            return f"{condition.get('reason') or condition['type']} {condition.get('message') or ''}".strip()
    return "its kubelet has not answered in time"


@dataclass(frozen=True, slots=True)
class EngineReport:
    """An engine's report of its own usage. `token` is the bearer token of the request, or empty."""

    token: str
    usage: ReportResourceUsageRequest


async def report_resource_usage(call: Call, report: EngineReport) -> Answer:
    """What an engine says of itself. Only with its own token: usage cannot be told for others, not even by an admin."""
    gateway, request, token = call.gateway, report.usage, report.token
    view = gateway.engines.resolve(request.engine_id)
    if not token:
        raise no_login("Authorization is missing: an engine reports with its own token, as a Bearer token")
    expected = None
    if view is not None and not view.is_final:
        expected = key_of(gateway.settings.master_keys, view.agent_key, view.uid, view.attempt)
    if view is None or expected is None or not hmac.compare_digest(expected.encode(), token.encode(errors="replace")):
        raise forbidden("the token is not that of this engine: an engine reports of itself only")
    before = gateway.usage_reports.get(view.uid)
    peak = max(request.memory_bytes, (before.memory_peak_bytes or 0) if before is not None else 0)
    gateway.usage_reports.put(
        view.uid,
        Usage(
            memory_bytes=request.memory_bytes,
            memory_peak_bytes=peak,
            cpu_seconds=request.cpu_seconds,
            source="reported",
            at=gateway.executions.now(),
        ),
    )
    return Answer(NoAnswer())
