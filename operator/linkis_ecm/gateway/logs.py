"""An engine's logs through one interface, wherever they are: in the pod while it lives; an archive can follow.

Must not know of requests: it gives pages and streams, others put them into answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from linkis_ecm.gateway.agents import AgentLog, Agents, LogMissing
from linkis_ecm.gateway.errors import Refused, bad_request
from linkis_ecm.gateway.history import PastEngine
from linkis_ecm.gateway.views import EngineView

Engine = EngineView | PastEngine


class OpenLog(Protocol):
    """A log that is being read: exactly `size` bytes come in `chunks`."""

    @property
    def size(self) -> int: ...

    @property
    def chunks(self) -> AsyncIterator[bytes]: ...


class LogSource(Protocol):
    """One place where logs are. Both calls raise LogMissing where the engine has written no such log."""

    def has(self, engine: Engine) -> bool:
        """Whether this engine's logs are here."""
        ...

    async def lines(
        self, engine: Engine, log_type: str, *, from_line: int, lines: int, held: AsyncExitStack
    ) -> dict[str, Any]:
        """`logs`, `endLine`, `rows`, as the agent's page; `held` holds what must live until the page is sent."""
        ...

    def open(self, engine: Engine, log_type: str) -> AbstractAsyncContextManager[OpenLog]:
        """The whole log, in pieces; leaving the block lets it go at once."""
        ...


class AgentLogSource:
    """Live logs, from the agent in the pod."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    def has(self, engine: Engine) -> bool:
        """While the pod has an address and has not ended."""
        return isinstance(engine, EngineView) and bool(engine.address) and not engine.is_final

    async def lines(
        self, engine: Engine, log_type: str, *, from_line: int, lines: int, held: AsyncExitStack
    ) -> dict[str, Any]:
        return await self._agents.lines(_live(engine), log_type, from_line=from_line, lines=lines, held=held)

    def open(self, engine: Engine, log_type: str) -> AbstractAsyncContextManager[AgentLog]:
        return self._agents.open_log(_live(engine), log_type)


def _live(engine: Engine) -> EngineView:
    if not isinstance(engine, EngineView):
        raise TypeError("only a live engine has an agent")
    return engine


@dataclass(frozen=True, slots=True)
class Logs:
    """All places, the nearest first."""

    sources: Sequence[LogSource]

    def source(self, engine: Engine) -> LogSource:
        """Where the engine's logs are. Raises Refused where they are nowhere."""
        for source in self.sources:
            if source.has(engine):
                return source
        if isinstance(engine, EngineView) and not engine.is_final and not engine.address:
            raise bad_request(
                f"{engine.title} is {engine.state} and has written no log yet: ask again when getEngineStatus shows it"
                " ready"
            )
        raise bad_request(f"The logs of {engine.title} are gone: the engine has ended and its pod with it")


def missing(engine: Engine, log_type: str) -> Refused:
    """Linkis's sentence for a log that was never written, with what to do."""
    path = f"{engine.log_dir_suffix}/{log_type}"
    return bad_request(
        f"LogFile {path} does not exist or is not a file.(日志文件 {path} 不存在或者不是一个文件.) This engine has"
        " written no such log: ask for logType stdout or stderr"
    )


__all__ = ["AgentLogSource", "Engine", "LogMissing", "LogSource", "Logs", "OpenLog", "missing"]
