"""explainEngine, previewCull, getPostMortem: why an engine is in its state, when it will end, and what is kept of it.

The answers come from the operator's own pure functions (`engine.facts`) over the same API objects. Must not change
anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.agent.formats.names import JOB_RESULT
from linkis_ecm.api.models import (
    CullCandidate,
    Deadline,
    EngineInfo,
    EngineRequest,
    ExplainAnswer,
    PostMortemAnswer,
    PreviewCullAnswer,
    PreviewCullRequest,
)
from linkis_ecm.archive.bundles import BUNDLE, Archive
from linkis_ecm.engine import facts, restart, soft_pause
from linkis_ecm.engine.agent_report import InvalidReportError, parse_report
from linkis_ecm.engine.decision import Snapshot
from linkis_ecm.engine.status.conditions import not_resized_because
from linkis_ecm.engine.times import format_time, parse_time
from linkis_ecm.engine.view import engine_view, plugin_view
from linkis_ecm.gateway.agents.reported import is_shallow
from linkis_ecm.gateway.answers import Answer
from linkis_ecm.gateway.context import Call, Gateway
from linkis_ecm.gateway.http.errors import Refused, bad_request, unavailable
from linkis_ecm.gateway.inventory.info import info_of
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.results.json_budget import objects
from linkis_ecm.kube.errors import ApiError, NotFound
from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import sentences
from linkis_ecm.model.states import AVAILABLE, EngineState

# Requests to agents at a time for one preview, and the largest number of engines that it checks.
MAX_CONCURRENT_REQUESTS = 16
PREVIEW_MAX = 500
# The longest file of a bundle that a post-mortem shows: a `once` job's result of many outputs may be longer.
SHOWN_BYTES = 16 << 20


async def explain_engine(call: Call, request: EngineRequest) -> Answer:
    """What the engine waits for, which deadlines it has, what blocks them."""
    engine = await call.engine(request.engine_id)
    if not engine.in_cluster:
        info = info_of(engine, call.gateway.clock(), asked=request.engine_id)
        return Answer(ExplainAnswer(engine=info, summary=_summary(info)))
    engine = await call.gateway.lookup.current(engine)
    snapshot = await snapshot_of(call.gateway, engine)
    now = call.gateway.clock()
    info = info_of(engine, now, asked=request.engine_id)
    return Answer(
        ExplainAnswer(
            engine=info,
            summary=_summary(info, _pause(snapshot, now)),
            deadlines=_deadlines(snapshot, engine.state, now),
            cull_blocked_by=(facts.cull_blocked_by(snapshot) or None) if engine.state in AVAILABLE else None,
            attempts_allowed=restart.policy(snapshot).max_attempts,
            restart_policy=restart.policy(snapshot).type,
            last_end=snapshot.engine.status.get("lastEnd"),
            conditions=list(snapshot.engine.status.get("conditions") or []),
            agent_answered=snapshot.report is not None,
            execution=dict(snapshot.report.task) or None if snapshot.report is not None else None,
            usage=dict(snapshot.report.usage) if snapshot.report is not None else {},
        )
    )


async def snapshot_of(gateway: Gateway, engine: KnownEngine) -> Snapshot:
    """The engine as the operator sees it, with a fresh report of its agent. Raises Refused."""
    try:
        body = await gateway.cluster.get(ENGINECONNS, engine.name, namespace=engine.namespace)
    except NotFound:
        raise bad_request(f"{engine.title} was just deleted: ask for it by its ticket") from None
    except ApiError as error:
        raise unavailable(f"The API server does not tell of {engine.title} now ({error.reason}): try again") from None
    view = engine_view(body, epoch=gateway.clock())
    plugin = None
    if (entry := gateway.plugins.of(engine)) is not None:
        try:
            plugin = plugin_view(await gateway.cluster.get(PLUGINS, entry.name))
        except ApiError:
            plugin = None
    report = None
    if engine.takes_code:
        try:
            body = await gateway.agents.status(engine)
            report = parse_report(body, view, None, gateway.clock())
        except (Refused, InvalidReportError):
            report = None
    return Snapshot(engine=view, pod=None, plugin=plugin, report=report)


def _pause(snapshot: Snapshot, now: datetime) -> str:
    """What people need to know of an engine that has given cpu back, or that did not get its size; "" for others."""
    record, why = soft_pause.paused(snapshot.engine), not_resized_because(snapshot.engine.status.get("conditions"))
    if record is None:
        return why.rstrip(".")
    if facts.is_used(snapshot, now):
        if why:
            return f"It was soft-paused while nobody used it. {why.rstrip('.')}"
        return f"It was soft-paused while nobody used it, and gets its cpu of {record.full_cpu} back now"
    return soft_pause.in_words(record)


def _summary(info: EngineInfo, pause: str = "") -> str:
    known = reasons.by_name(info.reason)
    claim = ""
    if info.claimed:
        until = info.claimed_until or "it is given back by the command unlock"
        if info.claimed_until is None and info.status == EngineState.BUSY:
            until += ", or some minutes after its task"
        claim = f"It is claimed by {info.claimed_by} until {until}; askEngineConn gives it to nobody else"
    return sentences(
        f"It is {info.status}", *((known.sentence, known.remedy) if known else ()), claim, _start(info), pause
    )


def _start(info: EngineInfo) -> str:
    """Whether the engine took a pod of a warm pool, and why not where its plugin has one; "" where it has none."""
    if info.startup.get("kind") == "warm":
        return "It took a pod of its plugin's warm pool, so it started warm"
    because = info.startup.get("coldBecause", "")
    return f"It started cold. {because}" if because else ""


def _deadlines(s: Snapshot, state: EngineState, now: datetime) -> list[Deadline]:
    """The engine's deadlines, the next one first."""
    found: list[tuple[str, datetime | None, str]] = []
    if state is EngineState.STARTING:
        found.append(("nextAttempt", parse_time(s.engine.text("nextAttemptAt")), "a pod is made for its next attempt"))
        found.append(("startTimeout", facts.start_deadline(s), "it fails if it is not ready by then"))
    if state in AVAILABLE:
        found.append(("idleTimeout", facts.idle_deadline(s, now), "it ends for idleness unless something uses it"))
        if soft_pause.paused(s.engine) is None:
            found.append(("softPause", facts.soft_pause_at(s, now), "its cpu is given back unless something uses it"))
        found.append(("maxLifetime", facts.lifetime_deadline(s), "it ends by its age, whatever it does"))
    if state is EngineState.SHUTTING_DOWN:
        limit = facts.since(s.engine, now) + timedelta(seconds=facts.stop_grace(s))
        found.append(("stopGrace", limit, "a running task is interrupted"))
    if state.is_final:
        found.append(("ttlAfterFinished", facts.delete_at(s, facts.since(s.engine, now)), "its resource is removed"))
    future = [
        Deadline(name=name, at=format_time(at), in_seconds=round((at - now).total_seconds(), 1), what=what)
        for name, at, what in found
        if at is not None and (name != "nextAttempt" or at > now)
    ]
    return sorted(future, key=lambda deadline: deadline.in_seconds)


async def preview_cull(call: Call, request: PreviewCullRequest) -> Answer:
    """Who would be culled for idleness or age within that time, and what keeps the others."""
    gateway, caller = call.gateway, call.caller
    mine = [view for view in call.usable_engines() if view.usable]
    if any(view.user != caller.user for view in mine):
        call.about_user(None)
    mine.sort(key=lambda view: (view.next_cull_at or "9", view.key))
    slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
    now = gateway.clock()

    async def candidate_of(view: KnownEngine) -> CullCandidate | None:
        async with slots:
            try:
                snapshot = await snapshot_of(gateway, view)
            except Refused:
                return None
        at, blocked = facts.next_cull(snapshot, now), facts.cull_blocked_by(snapshot)
        within = at is not None and at <= now + timedelta(seconds=request.within_seconds)
        return CullCandidate(
            engine_id=view.engine_id, namespace=view.namespace, name=view.name, user=view.user,
            status=str(view.state), culled=within, at=format_time(at) if at is not None else None,
            blocked_by=blocked or None,
        )  # fmt: skip

    candidates = await asyncio.gather(*(candidate_of(view) for view in mine[:PREVIEW_MAX]))
    found = [candidate for candidate in candidates if candidate is not None]
    return Answer(
        PreviewCullAnswer(
            culled=[candidate for candidate in found if candidate.culled],
            kept=[candidate for candidate in found if not candidate.culled],
            looked_at=len(found),
            total=len(mine),
        )
    )


async def get_post_mortem(call: Call, request: EngineRequest) -> Answer:
    """What was kept of the engine's last attempt: why it ended, the pod's last state and events, which files."""
    engine = await call.engine(request.engine_id)
    archive = call.gateway.archive
    if archive is None:
        raise bad_request("This gateway has no archive: set ECM_ARCHIVE_URL (archive.url of the chart)")
    attempts = await archive.attempts(engine.uid) if engine.uid else []
    if not attempts:
        raise bad_request(
            f"Nothing of {engine.title} is in the archive: it has not ended yet, never had a pod, or its time is over"
        )
    last = attempts[-1]
    files = await archive.files(engine.uid, last)
    bundle, problem = await _archived(call, archive, engine.uid, last, name=BUNDLE, files=files)
    body: dict[str, Any] = bundle if isinstance(bundle, dict) else {}
    result, unread = await _archived(call, archive, engine.uid, last, name=JOB_RESULT, files=files)
    missing = [*(body.pop("missing", []) if body else [problem or "the bundle: the operator has not collected it"])]
    return Answer(
        PostMortemAnswer(
            engine=info_of(engine, call.gateway.clock(), asked=request.engine_id),
            attempts=attempts,
            attempt=last,
            files=files,
            missing=[*missing, *([unread] if unread else [])],
            bundle=body,
            result=result,
        )
    )


async def _archived(
    call: Call, archive: Archive, uid: str, attempt: int, *, name: str, files: dict[str, int]
) -> tuple[Any, str]:
    """The JSON of an archived file and "", or None and why it is not shown; agents write some of these files. Its
    memory is reserved until the answer is sent."""
    size = files.get(name, 0)
    if not size:
        return None, ""
    if size > SHOWN_BYTES:
        return None, f"{name}: it has {size} bytes, more than are shown here: read outputs with getResultSet"

    async def read(hold: Callable[[int], Awaitable[None]]) -> bytes:
        await hold(size)
        return await archive.get(uid, attempt, name, limit=size) or b"null"

    gateway = call.gateway
    try:
        found = await objects(read, budget=gateway.budget, run_in_thread=gateway.results.run_in_thread, held=call.held)
    except ValueError:
        found = None
    if found is None or not is_shallow(found):
        return None, f"{name}: it is not what an agent writes"
    return found, ""
