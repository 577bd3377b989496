"""Checks whether agents' reports can reach this operator.

If most agents are silent at the same time, the operator's own network is the likely cause, and no engine counts as
lost. Must not decide about one engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.state.cache import Key
from linkis_ecm.controller.state.memory import Memory
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.view import EngineView, Report
from linkis_ecm.model.states import AVAILABLE, FINAL

# The path counts as down only if at least this many agents are silent, and these are most of the running ones.
MIN_SILENT_ENGINES = 5
# Seconds for which the result is cached, because counting checks all engines.
CACHE_SECONDS = 1.0


class ReportPath:
    """Counts silent agents, from this installation's engines and the reconciler's memory of them."""

    def __init__(
        self,
        *,
        engines: Callable[[], Iterable[EngineView]],
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
        self._cached_until = 0.0
        self._down = False
        metrics.not_reporting.set_function(lambda: float(self.silent()))

    def silent(self) -> int:
        """The number of running engines whose agents have been silent for longer than `silent_after`."""
        limit = self._clock() - self._silent_after
        return sum(
            (memory := self._memory.get(engine.key)) is not None and memory.last_contact < limit
            for engine in self._engines()
            if _reports(engine)
        )

    def reports(self) -> list[tuple[EngineView, Report]]:
        """The last report of each engine that has not ended, if it has reported."""
        live = ((one, self._memory.get(one.key)) for one in self._engines() if one.state not in FINAL)
        return [(one, memory.report) for one, memory in live if memory is not None and memory.report is not None]

    def is_down(self) -> bool:
        """Whether most agents are silent; counted at most once a second."""
        now = self._clock().timestamp()
        if now >= self._cached_until:
            self._cached_until = now + CACHE_SECONDS
            silent = self.silent()
            up = sum(map(_reports, self._engines()))
            self._down = silent >= MIN_SILENT_ENGINES and silent * 2 > up
            self._metrics.report_path_down.set(self._down)
        return self._down


def _reports(engine: EngineView) -> bool:
    """Whether the engine is up and has an agent that reports."""
    return engine.state in AVAILABLE and launch.has_agent(launch.of(engine, None))
