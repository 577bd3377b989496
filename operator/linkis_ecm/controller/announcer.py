"""Announces each written status: metrics of starts and ends, and Kubernetes Events for people.

Must not decide, block or raise.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.engine.decision import Decision
from linkis_ecm.engine.facts import ticket_id
from linkis_ecm.engine.times import since_accepted
from linkis_ecm.engine.view import EngineView
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import API_VERSION
from linkis_ecm.model.states import FINAL, EngineState
from linkis_ecm.process.engine_metrics import exemplar_of

# Reasons of a Warning whatever the state.
WARNED = (reasons.CULL_SOON, reasons.RESTARTING, reasons.PROCESS_NOT_READY, reasons.KEY_MISMATCH)


class Recorder(Protocol):
    """Writes Kubernetes Events; never blocks, never raises (`kube.events.EventRecorder`)."""

    def record(
        self, regarding: dict[str, Any], reason: str, note: str, *, action: str, kind: Literal["Normal", "Warning"]
    ) -> None: ...


class Announcer:
    """`announce` after each status that was written."""

    def __init__(self, *, recorder: Recorder, metrics: Metrics) -> None:
        self._recorder = recorder
        self._metrics = metrics

    def announce(self, engine: EngineView, decision: Decision) -> None:
        """Count the write and record a Kubernetes Event if the state or the reason changed.

        `engine` is the view from before the write.
        """
        self._count(engine, decision)
        reason = reasons.by_name(decision.reason)
        changed = "engineState" in decision.patch or "reason" in decision.patch
        # Changes between Idle and Busy are in the database's transitions. As events they would be too many.
        if not changed or reason in (reasons.EXECUTING, None) or (
            reason is reasons.KERNEL_READY and engine.text("readyTime")
        ):  # fmt: skip
            return
        bad = decision.state is EngineState.FAILED or (decision.state is EngineState.STARTING and bool(reason.remedy))
        warning = bad or reason in WARNED
        regarding = {
            "apiVersion": API_VERSION, "kind": "EngineConn", "namespace": engine.namespace, "name": engine.name,
            "uid": engine.uid,
        }  # fmt: skip
        kind: Literal["Normal", "Warning"] = "Warning" if warning else "Normal"
        self._recorder.record(regarding, decision.reason, decision.message, action=decision.state.value, kind=kind)

    def _count(self, engine: EngineView, decision: Decision) -> None:
        if decision.state in FINAL:
            self._metrics.ends.labels(decision.reason, *self._metrics.labels_of(engine)).inc()
        elif decision.patch.get("readyTime"):
            exemplar = exemplar_of(ticket_id(engine))
            startup = (engine.status.get("startup") or {}) | (decision.patch.get("startup") or {})
            for phase, took in since_accepted(startup).items():
                if phase != "accepted":
                    seconds = max(0.0, took.total_seconds())
                    origin = "warm" if startup.get("kind") == "warm" else "cold"
                    self._metrics.start_seconds.labels(phase, origin).observe(seconds, exemplar)
