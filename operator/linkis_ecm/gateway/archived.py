"""Logs of engines whose pods are gone, from the archive. A part of `gateway.logs`' one interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from linkis_ecm.agent.logfiles import page_of_lines
from linkis_ecm.archive.bundles import CONTAINER_LOG, Archive, Reader
from linkis_ecm.gateway.errors import bad_request
from linkis_ecm.gateway.logs import Engine, LogMissing
from linkis_ecm.gateway.views import EngineView

# The kubelet's log holds both streams: it stands in for either where the agent could not send its files.
_IN_CONTAINER = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class ArchivedLog:
    """An open log of the archive."""

    size: int
    chunks: AsyncIterator[bytes]


class ArchiveLogSource:
    """Logs of ended engines, until their retention is over."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def has(self, engine: Engine) -> bool:
        """Once the engine has ended, or between two of its attempts."""
        if isinstance(engine, EngineView):
            return engine.is_final or (engine.attempt > 0 and not engine.address)
        return bool(engine.uid)

    async def lines(
        self, engine: Engine, log_type: str, *, from_line: int, lines: int, held: AsyncExitStack
    ) -> dict[str, Any]:
        reader = await self._reader(engine, log_type)
        try:
            return await asyncio.to_thread(page_of_lines, reader.read_at, reader.size, from_line=from_line, count=lines)
        finally:
            await reader.close()

    @asynccontextmanager
    async def open(self, engine: Engine, log_type: str) -> AsyncIterator[ArchivedLog]:
        reader = await self._reader(engine, log_type)
        try:
            yield ArchivedLog(reader.size, reader.chunks())
        finally:
            await reader.close()

    async def _reader(self, engine: Engine, log_type: str) -> Reader:
        """The log of the last attempt that left one. Raises LogMissing, and Refused where nothing is kept at all."""
        attempts = await self._archive.attempts(engine.uid)
        if not attempts:
            raise bad_request(
                f"The logs of {engine.title} are gone: the engine has ended, and nothing of it is in the archive (any"
                " more)"
            )
        for attempt in reversed(attempts):
            for name in (log_type, *((CONTAINER_LOG,) if log_type in _IN_CONTAINER else ())):
                reader = await self._archive.open(engine.uid, attempt, name)
                if reader is not None:
                    return reader
        raise LogMissing
