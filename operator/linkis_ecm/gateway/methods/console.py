"""whoAmI, getOverview, listEnginePlugins, listTransitions: what a console needs besides other methods.

Each shows what the caller may use, by the same rule as every method. Must not know of pages.
"""

from __future__ import annotations

from typing import Any, Literal

from linkis_ecm.api.models import (
    EngineRequest,
    NoRequest,
    OverviewAnswer,
    PluginInfo,
    PluginsAnswer,
    TransitionInfo,
    TransitionsAnswer,
    TrendAnswer,
    WhoAmIAnswer,
)
from linkis_ecm.engine.times import format_time
from linkis_ecm.gateway.answers import Answer
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.inventory.lending import is_lending
from linkis_ecm.gateway.inventory.lookup import may_use
from linkis_ecm.gateway.inventory.trends import EVERY_SECONDS, Sample, Trends
from linkis_ecm.gateway.inventory.view import KnownEngine, PluginView
from linkis_ecm.model.states import ORDER, EngineState


async def who_am_i(call: Call, _: NoRequest) -> Answer:
    """Who the caller is, and where the caller may use engines: the own ones, and as an admin everybody's."""
    caller, gateway = call.caller, call.gateway
    reach = caller.reach
    return Answer(
        WhoAmIAnswer(
            user=caller.user,
            admin=caller.is_admin,
            read_only=caller.read_only,
            namespaces=None if reach is None or "" in reach.namespaces else sorted(reach.namespaces),
            admin_namespaces=[] if reach is None else sorted(reach.admin_namespaces),
            groups=None if caller.groups is None else sorted(caller.groups),
            engine_namespaces=list(gateway.settings.engine_namespaces),
            ecm_instance=gateway.settings.instance,
            archive=gateway.archive is not None,
            records=gateway.records is not None,
        )
    )


async def get_overview(call: Call, _: NoRequest) -> Answer:
    """The last hour in figures, a sample every 10 s: engines that the caller may use by state, those that became ready
    and that failed, and the longest start. Kept in this gateway's memory; `curve` says why there are no samples."""
    caller, trends = call.caller, call.gateway.trends
    call.about_user(None if caller.sees_others else caller.user)
    everywhere = caller.is_admin_in("")
    if everywhere:
        samples = trends.of(None)
    else:
        samples = trends.sums(
            owner=lambda owner: may_use(caller, *owner) and not caller.is_admin_in(owner[1]),
            namespace=caller.is_admin_in,
        )
    scope: Any = "everybody" if everywhere else "namespaces" if caller.sees_others else "own"
    return Answer(
        OverviewAnswer(
            scope=scope,
            every_seconds=EVERY_SECONDS,
            calls_in_flight=call.gateway.metrics.calls if caller.is_admin else None,
            curve="kept" if samples else _why_none(call, trends),
            trend=_trend(samples),
        )
    )


def _why_none(call: Call, trends: Trends) -> Literal["notYet", "notKept", "noEngines"]:
    """Why a caller has no samples."""
    engines = call.usable_engines()
    if engines and not any(map(trends.is_kept, engines)):
        return "notKept"
    return "notYet" if engines or not trends.has_begun else "noEngines"


def _trend(samples: list[Sample]) -> TrendAnswer:
    """Samples as columns: a curve each."""
    used = [number for number, _ in enumerate(ORDER) if any(sample.states[number] for sample in samples)]
    return TrendAnswer(
        at=[sample.at for sample in samples],
        states={str(ORDER[number]): [sample.states[number] for sample in samples] for number in used},
        ready=[sample.ready for sample in samples],
        failed=[sample.failed for sample in samples],
        start_millis=[sample.start_millis or None for sample in samples],
    )


def _groups(call: Call, plugin: PluginView) -> list[str]:
    """The groups that an entry lends to, as far as the caller may know them."""
    if plugin.share != "group":
        return []
    caller = call.caller
    return [group for group in plugin.share_groups if caller.is_admin or group in (caller.groups or ())]


async def list_engine_plugins(call: Call, _: NoRequest) -> Answer:
    """The catalogue: the engine types and versions that can be asked for, with what they run and their default size."""
    entries = sorted(call.gateway.plugins, key=lambda plugin: (plugin.engine_type, plugin.engine_version, plugin.name))
    return Answer(
        PluginsAnswer(
            plugins=[
                PluginInfo(
                    name=plugin.name,
                    engine_type=plugin.engine_type,
                    engine_version=plugin.engine_version,
                    default=plugin.default,
                    run_types=list(plugin.run_types),
                    cpu_milli=plugin.cpu_milli,
                    memory_bytes=plugin.memory_bytes,
                    share=plugin.share,
                    share_groups=_groups(call, plugin),
                    share_locks=plugin.share_locks if is_lending(plugin) else None,
                )
                for plugin in entries
            ]
        )
    )


async def list_transitions(call: Call, request: EngineRequest) -> Answer:
    """The states of an engine in their order, as the database has them; without one, what the resource still tells."""
    engine = await call.engine(request.engine_id)
    records, history = call.gateway.records, call.gateway.history
    if records is not None:
        try:
            # The author of an EngineConn chooses its ticket: another engine's states are not shown.
            own = await history.record_of(records, engine) is not None
            found = await history.query(lambda: records.transitions(engine.ticket_id)) if own else ()
        except Refused:
            found = ()
        if found:
            entries = [
                TransitionInfo(state=one.state, at=format_time(one.at), reason=one.reason, message=one.message)
                for one in found
            ]
            return Answer(TransitionsAnswer(transitions=entries, complete=True))
    return Answer(TransitionsAnswer(transitions=_remembered(engine), complete=False))


def _remembered(engine: KnownEngine) -> list[TransitionInfo]:
    """The states whose times the resource has: the first, the first ready one, and the present one."""
    found = []
    begin = engine.startup.get("accepted") or engine.created
    if begin:
        found.append(TransitionInfo(state=EngineState.STARTING, at=begin))
    if engine.ready_time and engine.state is not EngineState.STARTING:
        found.append(TransitionInfo(state=EngineState.IDLE, at=engine.ready_time))
    since = engine.since or engine.finished_time
    if since and not (found and (found[-1].at == since or found[-1].state == engine.status)):
        found.append(TransitionInfo(state=engine.status, at=since, reason=engine.reason, message=engine.message))
    elif found and found[-1].state == engine.status:
        found[-1] = found[-1].model_copy(update={"reason": engine.reason, "message": engine.message})
    return found
