"""Reads ended engines from the database, after their resource was deleted.

The store's queries are synchronous. They run in a few threads of their own, so that a database that hangs delays only
the calls that need it. Must not import SQLAlchemy: the store is behind a Protocol.
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
# How many queries may wait for a thread before more are refused.
WAITING = 64
# The time limit of one query.
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


class EngineRecord(Protocol):
    """What our own table says of an engine besides."""

    @property
    def namespace(self) -> str: ...

    @property
    def uid(self) -> str: ...


class Transition(Protocol):
    """A state that an engine entered."""

    @property
    def state(self) -> str: ...

    @property
    def at(self) -> datetime: ...

    @property
    def reason(self) -> str: ...

    @property
    def message(self) -> str: ...


class Records(Protocol):
    """The store's other queries. Each blocks, so it is called through `History.query`."""

    def record_by_ticket(self, ticket: str) -> Record | None: ...

    def engine(self, ticket: str) -> EngineRecord | None: ...

    def transitions(self, ticket: str) -> Sequence[Transition]: ...

    def list_records(
        self,
        *,
        user: str | None = None,
        status: str | None = None,
        engine_type: str | None = None,
        instance: str | None = None,
        namespaces: frozenset[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        page: int = 1,
        page_size: int = 20,
    ) -> tuple[Sequence[Record], int]: ...

    def delete_record(self, ticket: str) -> None: ...


class History:
    """Reads an engine from the store by ticket id or service instance, and runs other queries."""

    def __init__(self, find: Find | None, *, seconds: float = SECONDS) -> None:
        self._find = find
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="history")
        self._running = 0

    async def find(self, engine_id: str) -> KnownEngine | None:
        """The engine's last record; None if there is none. Raises Refused if the database does not answer."""
        find = self._find
        return None if find is None else await self.query(lambda: find(engine_id))

    async def record_of(self, records: Records, engine: KnownEngine) -> Record | None:
        """The row of this very engine; None if there is none. Raises Refused if the database does not answer.

        The author of an EngineConn chooses its ticket, so the ticket alone does not say whose row it is: the store must
        have this engine's uid for it. A row that Linkis's own ECM made has no uid: it belongs to its user.
        """

        def find() -> Record | None:
            row = records.record_by_ticket(engine.ticket_id)
            if row is None:
                return None
            recorded = records.engine(row.ticket_id)
            is_own = row.create_user == engine.user if recorded is None else recorded.uid == engine.uid
            return row if is_own else None

        return await self.query(find)

    async def query(self, call: Callable[[], Answer]) -> Answer:
        """Run `call`, which blocks, in a thread; its result. Raises Refused if the database does not answer."""
        if self._running >= THREADS + WAITING:
            raise unavailable("the database is busy: try again in a second")
        # Counted until the thread is done, even if the caller has left, so that a hanging database gets no more work.
        self._running += 1
        future = self._threads.submit(call)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: self._release_slot_later(loop))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            raise unavailable(f"the database did not answer within {self._seconds:g} s: try again later") from None
        except Exception as error:
            log.warning("the database cannot be asked: %s: %s", type(error).__name__, error)
            raise unavailable("the database cannot be asked now: try again later") from None

    def _release_slot_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """Runs in the thread. The event loop may be closed by then, if the gateway has ended."""
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._release_slot)

    def _release_slot(self) -> None:
        self._running -= 1

    def close(self) -> None:
        """Stop without waiting for running queries. Their results are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
