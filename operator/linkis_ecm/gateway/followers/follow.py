"""Follows tasks: the first follower of a task reads its events from the agent, more of them share one further reader.

A follower is told what it has missed by the agent, up to where the shared reader is, and is its member from then on.
One that is too slow for that goes on by itself, at its own pace. Rights are checked before: each follower is a call of
its own. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from linkis_ecm.agent.formats.cursors import Cursor
from linkis_ecm.agent_client.errors import AgentNotFound
from linkis_ecm.gateway.agents.client import FOLLOWERS_PER_ENGINE, Agents
from linkis_ecm.gateway.followers.hub import Hub, Left, Member
from linkis_ecm.gateway.followers.lines import KEEP_ALIVE, EventBudget, Events, NoRoomError, events_of
from linkis_ecm.gateway.followers.places import Places, Sending
from linkis_ecm.gateway.http.errors import Refused, too_many
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.metrics import Metrics

log = logging.getLogger(__name__)

# Connections to an agent for followers of its tasks, beside the one that is kept for a shared reader.
OWN_CONNECTIONS = FOLLOWERS_PER_ENGINE - 1
# The shared reader is told what is new within 50 ms (agent.http.tasks.FOLLOW_PAUSE).
JOIN_SECONDS = 1.0
# Who was too slow, or could not join, reads by itself for so many seconds at least.
ALONE_SECONDS = 5.0
# Who was a member for less than this waits out the rest before it asks the agent again. Else an agent that closes the
# shared connection at once, or tells nothing but big batches, would have the gateway connect 430 times a second.
MEMBER_SECONDS = 1.0
# A client that waits for its turn hears from the gateway this often, as it does from the agent.
KEEP_ALIVE_SECONDS = 10.0
# Up to such a part more, so that members that left together do not come back together.
JITTER = 0.25

OnEnd = Callable[[bytes], None]


class _Followed:
    """One task, while somebody follows it."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.followers = 0
        self.hub: Hub | None = None
        self.reading: asyncio.Task[None] | None = None

    def end(self) -> None:
        if self.hub is not None:
            self.hub.close()
        if self.reading is not None:
            self.reading.cancel()


class Followers:
    """All followers of all tasks."""

    def __init__(
        self,
        agents: Agents,
        budget: EventBudget,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.agents = agents
        self.budget = budget
        self.metrics = metrics
        self.clock = clock
        self.rng = rng or random.Random()  # noqa: S311 - jitter
        self._tasks: dict[tuple[str, int, str, str], _Followed] = {}
        # By agent, and by who has borrowed its engine.
        self._places: dict[tuple[str, int, str], Places] = {}
        metrics.watch_followers(own=self.own, shared=self.shared)

    @asynccontextmanager
    async def follow(
        self, engine: KnownEngine, task_id: str, cursor: str, *, user: str, sending: Sending, on_end: OnEnd
    ) -> AsyncIterator[AsyncGenerator[bytes | Member]]:
        """The events of a task behind `cursor`, as bytes and as parts that are shared, until its end, for `user`, whose
        client is being sent them by `sending`; `on_end` is called with the agent's line of the end, once or more often.
        Raises AgentNotFound and Refused before the block begins; the events raise OSError and TimeoutError where they
        end early."""
        # Who has borrowed an engine shares nothing with its owner, whose followers must not be in his way.
        agent = engine.uid, engine.attempt, engine.borrower
        key = *agent, task_id
        places = self._places.setdefault(agent, Places(OWN_CONNECTIONS))
        followed = self._tasks.setdefault(key, _Followed(places))
        follower = _Follower(
            self, followed, engine=engine, task_id=task_id, cursor=cursor, sending=sending, on_end=on_end
        )
        follower.budget = self.budget.of(user, sending, owner=_owner(engine))
        places.followers += 1
        followed.followers += 1
        try:
            await follower.open()
            async with aclosing(follower.events()) as events:
                yield events
        finally:
            await follower.close()
            followed.followers -= 1
            if not followed.followers:
                del self._tasks[key]
                followed.end()
            places.followers -= 1
            if not places.followers:
                del self._places[agent]

    def stop(self) -> None:
        """The gateway stops: no member gets more."""
        for followed in self._tasks.values():
            followed.end()

    def own(self) -> int:
        """Followers that read from the agent by themselves, now."""
        return sum(followed.followers for followed in self._tasks.values()) - self.shared()

    def shared(self) -> int:
        """Followers that share a reader with others, now."""
        return sum(len(followed.hub.members) for followed in self._tasks.values() if followed.hub is not None)


class _Follower:
    """One follower: where it is, and how it gets what comes next."""

    def __init__(
        self,
        parent: Followers,
        followed: _Followed,
        *,
        engine: KnownEngine,
        task_id: str,
        cursor: str,
        sending: Sending,
        on_end: OnEnd,
    ) -> None:
        self._parent = parent
        self._followed = followed
        self._engine = engine
        self._task_id = task_id
        # Where it is, as text: what the caller has sent may be no id, which the agent then refuses.
        self._id = cursor
        self._cursor = _parsed(cursor)
        self._sending = sending
        self._on_end = on_end
        self.budget = parent.budget
        self._status = b""
        self._member: Member | None = None
        self._connection: AsyncExitStack | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._alone_until = 0.0

    async def open(self) -> None:
        """Find where the next events come from. Raises AgentNotFound and Refused."""
        member = None
        if self._followed.hub is not None and self._cursor is not None and self._may_join():
            member = await self._join(self._followed.hub, self._cursor)
        await self._go_to(member)

    async def close(self) -> None:
        self._leave()
        await self._disconnect()
        self.budget.give_up_room()

    async def events(self) -> AsyncGenerator[bytes | Member]:
        """What comes, until the task's end."""
        while True:
            if self._chunks is None:
                member = self._member
                assert member is not None  # noqa: S101 - `_go_to` leaves one of both
                if member.status:
                    yield member.status
                began = self._parent.clock()
                yield member
                if await self._has_ended(member, began):
                    return
                continue
            wanted: NoRoomError | None = None
            # Whether outputs were told whose id is still to come: read again, they would be told twice.
            within = False
            try:
                async with aclosing(events_of(self._chunks, self.budget, self._parent.clock)) as found:
                    async for events in found:
                        with self._sending.piece():
                            yield events.data
                        if events.end is not None:
                            self._on_end(events.end)
                            return
                        within = events.cursor is None and (within or events.tells)
                        if await self._shares_behind(events):
                            break
                        del events
                    else:
                        raise ConnectionResetError("the task's events ended before the task")
            except NoRoomError as why:
                wanted = why
            await self._disconnect()
            if wanted is not None:
                self._leave()
                async with aclosing(self._wait_for_room(wanted.size)) as signs:
                    async for sign in signs:
                        yield sign
            if wanted is not None and within:
                raise wanted
            await self._reopen(self._member)

    async def _has_ended(self, member: Member, began: float) -> bool:
        """What follows where it is a member no more, which it became at `began`: False where it reads on."""
        self._member = None
        self._advance(member.cursor)
        # Who has stopped to read the stream has left a member.
        if member.left is Left.ENDED:
            return True
        if member.left is Left.SLOW:
            self._parent.metrics.followers_behind.inc()
            self._alone_until = self._parent.clock() + ALONE_SECONDS
        else:
            await self._wait_out(began)
        await self._reopen()
        return False

    async def _shares_behind(self, events: Events) -> bool:
        """Whether the own connection is needed no more behind these."""
        self._status = events.status or self._status
        if events.cursor is None:
            return False
        self._advance(events.cursor)
        return await self._can_share(events.cursor)

    async def _wait_for_room(self, size: int) -> AsyncGenerator[bytes]:
        """Wait, without a connection to the agent, until so many bytes can be sent. Gives signs of life meanwhile."""
        turn = asyncio.create_task(self.budget.wait_for_room(size))
        try:
            while not (await asyncio.wait((turn,), timeout=KEEP_ALIVE_SECONDS))[0]:
                yield KEEP_ALIVE
            await turn
        finally:
            turn.cancel()
            await asyncio.wait((turn,))

    async def _reopen(self, member: Member | None = None) -> None:
        """As `open`; raises ConnectionResetError where there is nothing to go on with."""
        try:
            await (self._go_to(member) if member is not None else self.open())
        except (AgentNotFound, Refused) as why:
            raise ConnectionResetError(f"the task's events cannot be read on: {why}") from None

    async def _wait_out(self, began: float) -> None:
        """Wait until what began then is MEMBER_SECONDS ago. No connection is held meanwhile."""
        left = began + MEMBER_SECONDS - self._parent.clock()
        if left > 0:
            await asyncio.sleep(left * (1 + self._parent.rng.uniform(0, JITTER)))

    def _advance(self, cursor: Cursor) -> None:
        self._cursor, self._id = cursor, str(cursor)

    def _may_join(self) -> bool:
        return self._parent.clock() >= self._alone_until

    async def _join(self, hub: Hub, cursor: Cursor) -> Member | None:
        self._member = await hub.join(cursor, JOIN_SECONDS)
        if self._member is None:
            self._alone_until = self._parent.clock() + ALONE_SECONDS
        return self._member

    async def _can_share(self, cursor: Cursor) -> bool:
        """Whether the own connection is needed no more: the follower is at `cursor`, and is a member behind it."""
        if self._member is not None:
            if self._member.begin == cursor:
                return True
            # An older agent has told more than it was asked for: what the member has is not what comes next.
            if cursor.reaches(self._member.begin):
                self._leave()
                self._alone_until = self._parent.clock() + ALONE_SECONDS
            return False
        if self._followed.followers == 1 or not self._may_join():
            return False
        hub = self._followed.hub
        if hub is None or hub.closed:
            self._member = self._start(cursor).join_now()
            return True
        return await self._join(hub, cursor) is not None

    def _start(self, begin: Cursor) -> Hub:
        hub = self._followed.hub = Hub(begin, self._status)
        self._followed.reading = asyncio.create_task(self._read(hub))
        return hub

    async def _read(self, hub: Hub) -> None:
        """The shared reader: its own task, so that it outlives this follower."""
        parent, followed = self._parent, self._followed
        try:
            async with (
                followed.places.shared(),
                parent.agents.events(self._engine, self._task_id, str(hub.cursor)) as chunks,
                aclosing(events_of(chunks, parent.budget.shared(_owner(self._engine)), parent.clock)) as found,
            ):
                end = await hub.read(found, is_wanted=lambda: bool(hub.members) or followed.followers > 1)
                if end is not None:
                    self._on_end(end)
        except (AgentNotFound, Refused, OSError, TimeoutError) as why:
            log.info("%s: the shared events of a task end early: %r", self._engine.title, why)
        finally:
            hub.close()
            if followed.hub is hub:
                followed.hub = None

    async def _go_to(self, member: Member | None) -> None:
        """Be the member's from here on, after what is missing until there; without one, read from the agent."""
        self._member = member
        if member is not None and member.begin == self._cursor:
            return
        connection = AsyncExitStack()
        try:
            await self._take_turn(connection)
            try:
                self._chunks = await self._ask(connection, member)
            except Refused:
                if member is None:
                    raise
                self._leave()
                self._chunks = await self._ask(connection, None)
        except BaseException:
            await connection.aclose()
            raise
        self._connection = connection

    async def _ask(self, connection: AsyncExitStack, member: Member | None) -> AsyncIterator[bytes]:
        until = "" if member is None else str(member.begin)
        events = self._parent.agents.events(self._engine, self._task_id, self._id, until)
        return await connection.enter_async_context(events)

    async def _take_turn(self, connection: AsyncExitStack) -> None:
        try:
            await connection.enter_async_context(self._followed.places.own(self._sending))
        except TimeoutError:
            raise too_many(
                f"{OWN_CONNECTIONS} followers of tasks of {self._engine.title} are behind the others: try again when"
                " they have caught up"
            ) from None

    def _leave(self) -> None:
        if self._member is not None:
            self._member.leave()
            self._member = None

    async def _disconnect(self) -> None:
        self._chunks = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()


def _owner(engine: KnownEngine) -> str:
    """Whose code may have made the agent send what it sends."""
    return engine.borrower or engine.user


def _parsed(cursor: str) -> Cursor | None:
    try:
        return Cursor.parse(cursor) if cursor else Cursor()
    except ValueError:
        return None
