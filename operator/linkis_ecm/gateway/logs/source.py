"""An engine's logs through one interface, wherever they are: in the pod while it lives, in the archive afterwards.

Must not know of requests: it gives pages and streams, others put them into answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from linkis_ecm.gateway.http.errors import Refused, bad_request
from linkis_ecm.gateway.http.socket_relay import Direct
from linkis_ecm.gateway.inventory.history import PastEngine
from linkis_ecm.gateway.inventory.view import EngineView

Engine = EngineView | PastEngine


class LogMissing(Exception):  # noqa: N818 - a fact, not a fault
    """The engine has written no such log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which lines: `lines` from the 1-based `from_line`, which counts from the end with `tail`; or the last
    `last_rows`. `only` and `ignore` are words with commas between them."""

    from_line: int = 1
    lines: int = 1000
    last_rows: int = 0
    tail: bool = False
    only: str = ""
    ignore: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLog:
    """A log that is being read: `total` bytes when it was opened, of which exactly `length` come in `chunks`.

    `identity` is the same as long as bytes already written are: a log only grows, but for one that drops its beginning,
    which is another one then.
    """

    total: int
    length: int
    identity: str
    chunks: AsyncIterator[bytes]
    # The same bytes where they come over a socket; either is used.
    direct: Direct | None = None


@dataclass(frozen=True, slots=True)
class Followed:
    """A log that is being followed: what comes in `chunks` begins at byte `offset`, counted from the true beginning."""

    offset: int
    chunks: AsyncIterator[bytes]


class LogSource(Protocol):
    """One place where logs are. The calls raise LogMissing where the engine has written no such log, and Refused."""

    def has(self, engine: Engine) -> bool:
        """Whether this engine's logs are here."""
        ...

    async def lines(self, engine: Engine, log_type: str, query: LogQuery, *, held: AsyncExitStack) -> dict[str, Any]:
        """`logs`, `endLine`, `rows`, as the agent's page; `held` holds what must live until the page is sent."""
        ...

    def open(
        self, engine: Engine, log_type: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[OpenLog]:
        """The log's bytes, in pieces; leaving the block lets it go at once."""
        ...

    def follow(
        self, engine: Engine, log_type: str, *, offset: int | None, tail: int
    ) -> AbstractAsyncContextManager[Followed]:
        """The bytes from `offset`, or else the last `tail`, on, and those that are written from now on, until the
        engine ends."""
        ...


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
