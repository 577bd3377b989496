"""One interface to an engine's logs: in the pod while it lives, in the archive afterwards.

Must not know requests: it returns pages and streams, and `methods.logs` makes answers of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from linkis_ecm.agent.formats.names import STREAM_LOGS
from linkis_ecm.gateway.agents.link import no_agent
from linkis_ecm.gateway.answers import OpenedFile
from linkis_ecm.gateway.http.errors import Refused, bad_request
from linkis_ecm.gateway.inventory.view import KnownEngine


class LogMissing(Exception):  # noqa: N818 - a fact, not a bug
    """The engine has no such log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which lines to read: `lines` of them from the 1-based `from_line`, which counts from the end with `tail`; or the
    last `last_rows`. `only` and `ignore` are keywords, separated by commas."""

    from_line: int = 1
    lines: int = 1000
    last_rows: int = 0
    tail: bool = False
    only: str = ""
    ignore: str = ""


@dataclass(frozen=True, slots=True)
class FollowedLog:
    """A log that is being followed: `chunks` begins at byte `offset`, counted from the original beginning."""

    offset: int
    chunks: AsyncIterator[bytes]


class LogSource(Protocol):
    """A place that holds logs. The calls raise LogMissing where the engine has written no such log, and Refused."""

    def has(self, engine: KnownEngine) -> bool:
        """Whether this place holds the engine's logs."""
        ...

    async def lines(
        self, engine: KnownEngine, log_type: str, query: LogQuery, *, held: AsyncExitStack
    ) -> dict[str, Any]:
        """`logs`, `endLine`, `rows`, as in the agent's page; `held` keeps the reserved bytes until the page is sent."""
        ...

    def open(
        self, engine: KnownEngine, log_type: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[OpenedFile]:
        """The log's bytes, in pieces; leaving the block closes it."""
        ...

    def follow(
        self, engine: KnownEngine, log_type: str, *, offset: int | None, tail: int
    ) -> AbstractAsyncContextManager[FollowedLog]:
        """The bytes from `offset`, or else the last `tail`, on, and those that are written from now on, until the
        engine ends."""
        ...


@dataclass(frozen=True, slots=True)
class Logs:
    """All places, in the order in which they are tried."""

    sources: Sequence[LogSource]

    def source(self, engine: KnownEngine) -> LogSource:
        """The place that holds the engine's logs. Raises Refused where none does."""
        for source in self.sources:
            if source.has(engine):
                return source
        if engine.in_cluster and not engine.is_final and not engine.has_agent:
            raise no_agent(engine)
        if engine.in_cluster and not engine.is_final and not engine.address:
            raise bad_request(
                f"{engine.title} is {engine.state} and has written no log yet: ask again when getEngineStatus shows it"
                " ready"
            )
        raise bad_request(f"The logs of {engine.title} are gone: the engine has ended and its pod with it")


def missing(engine: KnownEngine, log_type: str) -> Refused:
    """The refusal for a log that is not there: Linkis's sentence, with a remedy."""
    path = f"{engine.log_dir_suffix}/{log_type}"
    if log_type not in STREAM_LOGS:
        remedy = f"This engine has no such log: ask for logType {' or '.join(STREAM_LOGS)}"
    elif engine.has_agent:
        # The files are its code's, too: what became of one is not known.
        remedy = (
            "This engine has no such file now: nothing was written to it, or code of the engine has renamed or removed"
            " it. What was printed is in the tasks' outputs: getTaskResult"
        )
    else:
        remedy = (
            "This engine's process has no log files: what its container printed is kept as stdout, and there is none."
            " Its reason is in getEngineStatus"
        )
    return bad_request(
        f"LogFile {path} does not exist or is not a file.(日志文件 {path} 不存在或者不是一个文件.) {remedy}"
    )
