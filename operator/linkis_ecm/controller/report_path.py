"""Whether agents' reports can reach this operator at all: if most agents are silent at once, our own network is down.

Then no engine is called lost. Must not decide about one engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from linkis_ecm.controller.cache import Key
from linkis_ecm.controller.memory import Memory
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.engine import launch
from linkis_ecm.engine.view import EngineView
from linkis_ecm.model.states import AVAILABLE

# So many silent agents at once, if they are most of those that are up, mean that the path is down.
SILENT_FROM = 5
# Seconds for which an answer is kept: counting goes over all engines.
KEPT_SECONDS = 1.0


class ReportPath:
    """Over the engines of the cache and what the reconciler remembers of them."""

    def __init__(
        self,
        *,
        engines: Mapping[Key, EngineView],
        memory: Mapping[Key, Memory],
        silent_after: timedelta,
        clock: Callable[[], datetime],
        metrics: Metrics,
    ) -> None:
        self._engines = engines
        self._memory = memory
        self._silent_after = silent_after
        self._clock = clock
        self._metrics = metrics
        self._kept_until = 0.0
        self._down = False
        metrics.not_reporting.set_function(lambda: float(self.silent()))

    def silent(self) -> int:
        """Engines that are up and whose agents have not reported for too long."""
        limit = self._clock() - self._silent_after
        return sum(
            memory.last_contact < limit and (engine := self._engines.get(key)) is not None and _reports(engine)
            for key, memory in self._memory.items()
        )

    def is_down(self) -> bool:
        """Whether most agents are silent; counted at most once a second."""
        now = self._clock().timestamp()
        if now >= self._kept_until:
            self._kept_until = now + KEPT_SECONDS
            silent = self.silent()
            up = sum(map(_reports, self._engines.values()))
            self._down = silent >= SILENT_FROM and silent * 2 > up
            self._metrics.report_path_down.set(self._down)
        return self._down


def _reports(engine: EngineView) -> bool:
    """Whether the engine is up and has an agent that reports."""
    return engine.state in AVAILABLE and launch.has_agent(launch.of(engine, None))
