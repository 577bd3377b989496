"""Facts about one engine that rules use: its attempt, its deadlines, and values of its status.

Pure; each function computes one value from a snapshot. Must not choose a state: that is for the rules.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from linkis_ecm.engine import soft_pause
from linkis_ecm.engine.admission import overrides
from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import Snapshot
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod import spec as podspec
from linkis_ecm.engine.times import from_unix, parse_time
from linkis_ecm.engine.view import EngineView
from linkis_ecm.model import amounts, reasons
from linkis_ecm.model.agent_key import AgentKeyRef
from linkis_ecm.model.formats import parse_duration
from linkis_ecm.model.states import AVAILABLE, EngineState

# Seconds. Linkis's own limit of a start, used if neither the engine nor its plugin has one.
START_TIMEOUT = parse_duration(amounts.START_TIMEOUT)
# Durations of an engine that are its plugin's at most, with their names in the resource.
_BOUNDED = {"idle_timeout": "idleTimeout", "max_lifetime": "maxLifetime"}
# Seconds. Only a longer timeout gets a warning before the engine ends.
MIN_WARNED_SECONDS = 60.0


def ticket_id(engine: EngineView) -> str:
    """The ticket of the spec, else the resource's uid, which is a UUID already."""
    return (engine.spec.ticket_id if engine.spec is not None else None) or engine.uid


def attempt(engine: EngineView) -> int:
    """The number of the current attempt, from 0."""
    value = engine.status.get("attempt")
    return value if isinstance(value, int) and 0 <= value < 1000 else 0


def agent_key(s: Snapshot) -> AgentKeyRef | None:
    """The enrolment of the agent in the engine's current pod; None while none has enrolled."""
    report = s.report
    reported = report.agent_key if report is not None and report.attempt == attempt(s.engine) else None
    ref = reported or AgentKeyRef.read(s.engine.status.get("agentKey"))
    if ref is not None and s.pod is not None and ref.pod_uid != s.pod.uid:
        return None
    return ref


def refuses(s: Snapshot) -> bool:
    """Whether the engine's agent answered and did not take this operator's key."""
    return s.silence is not None and bool(s.silence.refusal)


def was_ready(s: Snapshot) -> bool:
    """Whether the engine is or was ready, even if only between two passes."""
    if s.engine.text("readyTime"):
        return True
    return s.report is not None and (s.report.state in AVAILABLE or s.report.timings.get("kernelReady", 0.0) > 0)


def holds_place(engine: EngineView) -> bool:
    """Whether the engine was admitted under the limits of people: a pod was made for it. It keeps its place until its
    end, also between two attempts."""
    return bool(engine.text("podName")) or attempt(engine) > 0


def stop_requested(engine: EngineView) -> bool:
    """Whether a user requested the engine's stop or deletion. Then no attempt follows."""
    return engine.stop_requested


def stop_grace(s: Snapshot) -> int:
    """Seconds that a running task gets when the engine is stopped."""
    text = (s.engine.spec.stop_grace if s.engine.spec is not None else None) or (
        s.plugin.spec.stop_grace if s.plugin is not None else None
    )
    return podspec.bounded_grace(text)


def attempt_began(engine: EngineView) -> datetime:
    """When the current attempt began: the engine's creation, or the moment from which its next pod was allowed."""
    return parse_time(engine.text("nextAttemptAt")) or engine.created


def idle_deadline(s: Snapshot, now: datetime) -> datetime | None:
    """When the engine's idleTimeout expires; None if it has none, is not idle, or no agent reports it as idle.

    An engine that was given to an asker is not culled for idleness before its claim is over.
    """
    timeout = duration_setting(s, "idle_timeout")
    idle = idle_since(s, now)
    if not timeout or idle is None:
        return None
    deadline = idle + timedelta(seconds=timeout)
    claim = s.engine.claim
    return max(deadline, claim.until) if claim is not None and claim.holds(now) else deadline


def idle_since(s: Snapshot, now: datetime, *, background_too: bool = False) -> datetime | None:
    """Since when nothing uses the engine, by its agent; None while something does, or no agent says it.

    `background_too`: what its code does without a task is use, also where its plugin does not count it.
    """
    report = None if refuses(s) else s.report
    counts = background_too or counts_background(s)
    if report is None or _in_use(s, background=counts) or report.state not in (EngineState.IDLE, EngineState.UNLOCK):
        return None
    # The agent's clock may be ahead of ours, but no task can have ended later than now.
    background = report.last_background if counts else 0.0
    ended = max(report.last_task_ended, report.last_activity, background)
    return max(report.changed, min(now, from_unix(ended) or report.changed))


def soft_pause_at(s: Snapshot, now: datetime) -> datetime | None:
    """From when on the engine is to have less cpu; None where its plugin does not want it, while something uses it, or
    where no agent says it. What its code does without a task is use: it may need the cpu."""
    given = s.plugin.spec.soft_pause if s.plugin is not None else None
    idle = idle_since(s, now, background_too=True)
    if given is None or idle is None:
        return None
    return soft_pause.due_at(s.engine, given, now, idle_since=idle, known_since=s.known_since)


def is_used(s: Snapshot, now: datetime) -> bool:
    """Whether the engine is known to need all its cpu: its agent says so, or its plugin does not pause it."""
    if s.report is None or refuses(s):
        return False
    due = soft_pause_at(s, now)
    return due is None or due > now


def lifetime_deadline(s: Snapshot) -> datetime | None:
    """When the engine's maxLifetime expires; None if it has none."""
    lifetime = duration_setting(s, "max_lifetime")
    return s.engine.created + timedelta(seconds=lifetime) if lifetime else None


def next_cull(s: Snapshot, now: datetime) -> datetime | None:
    """When the engine ends by its idleTimeout or maxLifetime, if nothing uses it until then; None: never."""
    return min((moment for moment in (idle_deadline(s, now), lifetime_deadline(s)) if moment is not None), default=None)


def cull_blocked_by(s: Snapshot) -> str:
    """Why an engine with an idleTimeout is not culled for idleness now; empty where it would be."""
    if not duration_setting(s, "idle_timeout"):
        return "idleTimeout is 0s: it is never culled for idleness"
    if not launch.has_agent(launch.of(s.engine, s.plugin, s.pod)):
        end = (
            "only maxLifetime ends it" if duration_setting(s, "max_lifetime") else "and without a maxLifetime it stays"
        )
        return f"a process reports no activity: its idle time is not counted, {end}"
    if refuses(s):
        return "its agent refuses this operator's key: its idle time is not known, only maxLifetime ends it"
    if s.report is None:
        return "its agent has not reported to this operator yet"
    if s.report.state is EngineState.BUSY:
        return "a task runs"
    return _in_use(s, background=counts_background(s))


def _in_use(s: Snapshot, *, background: bool) -> str:
    """What uses the engine though no task runs, in the agent's words."""
    if s.report is None:
        return ""
    return s.report.active or (s.report.background if background else "")


def counts_background(s: Snapshot) -> bool:
    """Whether the engine's plugin counts as use what its code does without a task."""
    return s.plugin is not None and s.plugin.spec.idle_counts_background


def cull_warning_at(s: Snapshot, now: datetime) -> datetime | None:
    """From when on the status warns of the next cull; None: no warning.

    The warning begins a fifth of the timeout before the cull, but at most 5 minutes. A timeout of one minute or less
    gives no warning, because nobody could act on it in time.
    """
    cull = next_cull(s, now)
    if cull is None:
        return None
    span = duration_setting(s, "idle_timeout") if cull == idle_deadline(s, now) else duration_setting(s, "max_lifetime")
    return cull - timedelta(seconds=min(300.0, span / 5)) if span and span > MIN_WARNED_SECONDS else None


def was_gated(engine: EngineView) -> bool:
    """Whether the status says that the pod waits for its admission to the scheduler."""
    return engine.text("reason") == reasons.SCHEDULING_GATED.name


def start_began(s: Snapshot) -> datetime:
    """From when on the current attempt's startTimeout counts: its beginning, or its pod's admission after a wait in a
    queue of the cluster."""
    startup = s.engine.status.get("startup")
    admitted = parse_time(startup.get("admitted")) if isinstance(startup, dict) else None
    return max(filter(None, (attempt_began(s.engine), admitted)))


def start_deadline(s: Snapshot) -> datetime:
    """When the current attempt's startTimeout expires."""
    return start_began(s) + timedelta(seconds=duration_setting(s, "start_timeout") or START_TIMEOUT)


def delete_at(s: Snapshot, finished: datetime) -> datetime | None:
    """When the resource of an engine that ended at `finished` is to be deleted; None: never."""
    ttl = duration_setting(s, "ttl_after_finished")
    return None if ttl is None else finished + timedelta(seconds=ttl)


def duration_setting(s: Snapshot, name: str) -> float | None:
    """A duration of the engine's spec, else of its plugin's, in seconds; None if neither has it."""
    own = getattr(s.engine.spec, name) if s.engine.spec is not None else None
    most = getattr(s.plugin.spec, name) if s.plugin is not None else None
    if own and most and s.plugin is not None and name in _BOUNDED:
        # Also of an engine that was edited after its pod was made.
        return overrides.bounded_seconds(s.plugin.spec, _BOUNDED[name], own, most)
    text = own or most
    return parse_duration(text) if text else None


def ticket_taken(engine: EngineView) -> str:
    """A sentence for an engine whose ticket is another one's. It says nothing of that other engine."""
    return (
        f"spec.ticketId: {ticket_id(engine)} is the ticket of another engine, and the row and the logs under it stay"
        " that one's. Give a new UUID, or leave the field out."
    )


def requested_plugin(engine: EngineView) -> str:
    """A sentence with the plugin, or the type and version, that the spec requests."""
    spec = engine.spec
    if spec is None:
        return ""
    if spec.plugin:
        return f"spec.plugin is {spec.plugin}."
    version = f" and spec.engineVersion {spec.engine_version}" if spec.engine_version else ""
    return f"spec.engineType is {spec.engine_type}{version}."


def observed(engine: EngineView) -> Verdict:
    """The reason in the status, as a verdict."""
    name = engine.text("reason")
    return Verdict(reasons.by_name(name) or reasons.ACCEPTED)


def observed_with_words(engine: EngineView) -> Verdict:
    """The reason in the status, with the words that its message has beside the reason's own sentence and remedy."""
    verdict, words = observed(engine), engine.text("message")
    for own in (verdict.reason.sentence, verdict.reason.remedy):
        words = words.replace(own, "", 1)
    return Verdict(verdict.reason, words.strip())


def since(engine: EngineView, now: datetime) -> datetime:
    """When the engine entered its state, by its status; `now` if the status has no time."""
    return parse_time(engine.text("stateSince")) or now
