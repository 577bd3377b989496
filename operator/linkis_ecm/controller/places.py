"""An engine's place under the limits of people, as its passes ask for it, get it and give it up.

Must not know the limits: `controller.admission` does. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter

from linkis_ecm.controller.admission import Admission
from linkis_ecm.controller.state.cache import Key
from linkis_ecm.engine.admission.limits import Refusal
from linkis_ecm.engine.decision import Decision
from linkis_ecm.engine.facts import stop_requested
from linkis_ecm.engine.view import EngineView
from linkis_ecm.model import reasons
from linkis_ecm.model.states import FINAL


class Places:
    """`enqueue(key)` is called for each engine that waits for a place that was freed. `refusals` counts the engines
    that have to wait, by limit."""

    def __init__(self, admission: Admission, *, enqueue: Callable[[Key], None], refusals: Counter) -> None:
        self._admission = admission
        self._enqueue = enqueue
        self._refusals = refusals

    def ask(self, engine: EngineView) -> Refusal | None:
        """A place for an engine that is to start. The caller awaits nothing until it is used."""
        if engine.state in FINAL or stop_requested(engine):
            return None
        refused = self._admission.ask(engine)
        if refused is not None and self._admission.has_lost_place(engine):
            self.freed(engine)
        return refused

    def decided(self, engine: EngineView, limit: Refusal | None, decision: Decision) -> None:
        """A status was written: it may say for the first time that the engine waits for a place, or give its own up."""
        if limit is not None and engine.text("reason") != decision.reason == reasons.LIMIT_REACHED.name:
            self._refusals.labels(limit.limit).inc()
        if decision.state in FINAL and engine.state not in FINAL:
            self.freed(engine)

    def freed(self, engine: EngineView) -> None:
        """Its place may be another engine's."""
        for key in self._admission.waiting_for(engine):
            self._enqueue(key)
