"""Engines whose resource is gone: what the database still says of them.

The store's queries are synchronous; they run in a few threads of their own, so that a database that hangs holds up
nothing but the calls that need it. Must not import SQLAlchemy: the store is behind a Protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Protocol, TypeVar

from linkis_ecm.gateway.http.errors import unavailable
from linkis_ecm.gateway.inventory.view import KnownEngine

log = logging.getLogger(__name__)

THREADS = 4
# How many lookups may wait for a thread before more are refused.
WAITING = 64
SECONDS = 5.0


Answer = TypeVar("Answer")
Find = Callable[[str], KnownEngine | None]


class Record(Protocol):
    """A row of linkis_cg_ec_resource_info_record, as the store has it."""

    @property
    def id(self) -> int: ...

    @property
    def label_value(self) -> str: ...

    @property
    def create_user(self) -> str: ...

    @property
    def service_instance(self) -> str | None: ...

    @property
    def ecm_instance(self) -> str | None: ...

    @property
    def ticket_id(self) -> str: ...

    @property
    def status(self) -> str | None: ...

    @property
    def log_dir_suffix(self) -> str | None: ...

    @property
    def request_times(self) -> int | None: ...

    @property
    def request_resource(self) -> str | None: ...

    @property
    def used_times(self) -> int | None: ...

    @property
    def used_resource(self) -> str | None: ...

    @property
    def metrics(self) -> str | None: ...

    @property
    def release_times(self) -> int | None: ...

    @property
    def released_resource(self) -> str | None: ...

    @property
    def release_time(self) -> datetime | None: ...

    @property
    def used_time(self) -> datetime | None: ...

    @property
    def create_time(self) -> datetime | None: ...


class Records(Protocol):
    """The store's other answers; each blocks, so it goes through `History.ask`."""

    def record_by_ticket(self, ticket: str) -> Record | None: ...

    def list_records(
        self,
        *,
        user: str | None = None,
        status: str | None = None,
        engine_type: str | None = None,
        instance: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        page: int = 1,
        page_size: int = 20,
    ) -> tuple[Sequence[Record], int]: ...

    def delete_record(self, ticket: str) -> None: ...


class History:
    """Asks the store for an engine by ticket id or service instance."""

    def __init__(self, find: Find | None, *, seconds: float = SECONDS) -> None:
        self._find = find
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="history")
        self._under_way = 0

    async def find(self, engine_id: str) -> KnownEngine | None:
        """The engine's last record, None where there is none. Raises Refused where the database does not answer."""
        find = self._find
        return None if find is None else await self.ask(lambda: find(engine_id))

    async def ask(self, question: Callable[[], Answer]) -> Answer:
        """`question`, which blocks, in a thread. Raises Refused where the database does not answer."""
        if self._under_way >= THREADS + WAITING:
            raise unavailable("the database is busy: try again in a second")
        # Counted until the thread is done, not until the caller has given up: a hanging database must not collect work.
        self._under_way += 1
        future = self._threads.submit(question)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: self._tell(loop))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            raise unavailable(f"the database did not answer within {self._seconds:g} s: try again later") from None
        except Exception as error:
            log.warning("the database cannot be asked: %s: %s", type(error).__name__, error)
            raise unavailable("the database cannot be asked now: try again later") from None

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the thread. The gateway may have ended before the database has answered."""
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._done)

    def _done(self) -> None:
        self._under_way -= 1

    def close(self) -> None:
        """Let the threads go; what they still do is nobody's any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
