"""The input of a rule: snapshot, clock, settings, and values that several rules need, computed once per pass.

It also builds outcomes that many rules share. Pure. Must not choose a state: that is for the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from linkis_ecm.engine import facts
from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import Action, DeletePod, Outcome, Settings, Snapshot, Stop
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod import spec as podspec
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import Launch
from linkis_ecm.model.states import EngineState

# Added to the engine's own grace: time for the agent's answer, its last report, and the upload of its logs.
STOP_SLACK = timedelta(seconds=launch.AFTER_GRACE)


@dataclass(frozen=True)
class Situation:
    """One pass over one engine. `s` is the snapshot."""

    s: Snapshot
    now: datetime
    settings: Settings

    @property
    def pod(self) -> PodView:
        """The engine's pod, for the rules that run only if there is one. Raises ValueError without one."""
        if self.s.pod is None:
            raise ValueError(f"{self.s.engine.key}: a rule for an engine with a pod, and there is no pod")
        return self.s.pod

    @cached_property
    def launch(self) -> Launch:
        """What the engine's pod runs, or will run."""
        return launch.of(self.s.engine, self.s.plugin, self.s.pod)

    @cached_property
    def stop(self) -> Stop | None:
        """The stop that is in progress or due; else None."""
        return self.s.stop or self._stop_due()

    @property
    def key_unknown(self) -> bool:
        """Whether the engine's agent has the key of a master key that this operator does not have."""
        ref, known = facts.agent_key(self.s), self.settings.key_ids
        return ref is not None and known is not None and ref.key_id not in known

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The pod to create: built once per pass, and only where a rule asks for it.

        Raises InvalidSpecError.
        """
        engine, plugin = self.s.engine, self.s.plugin
        if engine.spec is None or plugin is None:
            raise podspec.InvalidSpecError(engine.invalid or "there is no plugin to make the pod from")
        return podspec.build_pod(
            engine, engine.spec, plugin.spec, ticket=facts.ticket_id(engine), attempt=facts.attempt(engine),
            settings=self.settings.pod,
        )  # fmt: skip

    # Outcomes that many rules share.

    def unchanged(
        self, state: EngineState, *, stop: Stop | None = None, actions: tuple[Action, ...] = (),
        requeue_at: datetime | None = None,
    ) -> Outcome:  # fmt: skip
        """Reason and time stay as the status has them."""
        observed, since = facts.observed(self.s.engine), facts.since(self.s.engine, self.now)
        return Outcome(
            state=state, verdict=observed, since=since, stop=stop, actions=actions, requeue_at=requeue_at
        )  # fmt: skip

    def failed(self, verdict: Verdict) -> Outcome:
        """The attempt has failed; a pod that still runs is deleted."""
        actions: tuple[Action, ...] = ()
        pod = self.s.pod
        if pod is not None and not pod.ended and not pod.deleting:
            actions = (DeletePod(pod.name, pod.uid, launch.AFTER_GRACE),)
        return Outcome(state=EngineState.FAILED, verdict=verdict, since=self.now, actions=actions)

    def stopped(self, stop: Stop, *, actions: tuple[Action, ...] = ()) -> Outcome:
        """The stop is complete."""
        return Outcome(
            state=EngineState.SUCCESS, verdict=Verdict(stop.reason), since=self.now, stop=stop, actions=actions
        )  # fmt: skip

    def _stop_due(self) -> Stop | None:
        """A stop that a user requested, or that is due by an expired timeout; else None."""
        s, now = self.s, self.now
        engine = s.engine
        if engine.state is EngineState.SHUTTING_DOWN and engine.text("reason") != reasons.POD_DELETED.name:
            # An earlier operator process began this stop. Its reason is in the status.
            reason = reasons.by_name(engine.text("reason")) or reasons.STOPPED_BY_USER
            since = facts.since(engine, now)
            expired = now >= since + timedelta(seconds=facts.stop_grace(s)) + STOP_SLACK
            # If the engine began to end by itself, it gets its grace before it is stopped.
            if reason not in reasons.OF_THE_AGENT and (reason is not reasons.STOP_REQUESTED or expired):
                return Stop(since, reason)
        if facts.stop_requested(engine):
            return Stop(now, reasons.STOPPED_BY_USER)
        ends_at = facts.lifetime_deadline(s)
        if ends_at is not None and now >= ends_at:
            return Stop(now, reasons.LIFETIME_OVER)
        cull = facts.idle_deadline(s, now)
        return Stop(now, reasons.IDLE_TIMEOUT) if cull is not None and now >= cull else None


# Returns an outcome, or None to let the next rule decide.
Rule = Callable[[Situation], Outcome | None]
# Changes the outcome of a rule, or returns it unchanged.
Amendment = Callable[[Situation, Outcome], Outcome]
