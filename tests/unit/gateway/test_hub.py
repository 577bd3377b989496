"""The shared reader of a task's events: who is a member from where on, and who is none any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from linkis_ecm.agent.formats.cursors import Cursor
from linkis_ecm.gateway.followers.hub import BATCH_BYTES, WAITING_BYTES, Hub, Left
from linkis_ecm.gateway.followers.lines import Events


class Client:
    """Takes what is pushed, until it is told not to."""

    def __init__(self) -> None:
        self.got = b""
        self.takes = True

    def push(self, data: bytes, framed: bytes) -> bool:
        assert framed == b"%x\r\n%b\r\n" % (len(data), data)
        if self.takes:
            self.got += data
        return self.takes


def at(number: int) -> Cursor:
    return Cursor(items=number)


class Source:
    """Events, one at a time."""

    def __init__(self, hub: Hub) -> None:
        self._events: asyncio.Queue[Events] = asyncio.Queue()
        self.reading = asyncio.create_task(hub.read(self._found(), is_wanted=lambda: True))

    async def _found(self) -> AsyncIterator[Events]:
        while True:
            yield await self._events.get()

    async def tell(self, data: bytes, cursor: Cursor | None = None, **more: bool | bytes) -> None:
        self._events.put_nowait(Events(data, cursor=cursor, **more))  # type: ignore[arg-type]
        for _ in range(5):
            await asyncio.sleep(0)


async def test_who_joins_within_a_batch_begins_behind_it() -> None:
    hub = Hub(at(0), b"", pause=0)
    source, client, late = Source(hub), Client(), Client()
    member = hub.join_now()
    receiving = asyncio.create_task(member.receive(client))
    await source.tell(b"a")
    joining = asyncio.create_task(hub.join(at(0), 60))
    await source.tell(b"b", at(1))
    assert client.got == b"ab"
    joined = await joining
    assert joined is not None
    assert joined.begin == at(1)
    receiving_late = asyncio.create_task(joined.receive(late))
    await source.tell(b": here\n\n", is_remark=True)
    await source.tell(b"c", at(2), end=b"{}")
    assert await source.reading == b"{}"
    await asyncio.gather(receiving, receiving_late)
    assert (client.got, late.got) == (b"ab: here\n\nc", b": here\n\nc")
    assert member.left is joined.left is Left.ENDED
    assert not hub.members


async def test_who_is_ahead_of_the_hub_waits_for_it_and_no_longer_than_given() -> None:
    hub = Hub(at(3), b"", pause=0)
    source = Source(hub)
    assert await hub.join(at(4), 0.001) is None
    joining = asyncio.create_task(hub.join(at(4), 60))
    await source.tell(b"a", at(5))
    member = await joining
    assert member is not None
    assert member.begin == at(5)
    joining = asyncio.create_task(hub.join(at(9), 60))
    await asyncio.sleep(0)
    hub.close()
    assert await joining is None
    assert member.left is Left.CLOSED
    source.reading.cancel()


async def test_what_waits_for_a_member_is_bounded() -> None:
    hub = Hub(at(0), b"status", pause=0)
    source = Source(hub)
    member = hub.join_now()
    assert member.status == b"status"
    for number in range(1, 4):
        await source.tell(b"x" * (WAITING_BYTES // 3), at(number))
    assert member.left is None
    await source.tell(b"y", at(4))
    await source.tell(b"z" * 10, at(5))
    assert member.left is Left.SLOW
    client = Client()
    await member.receive(client)
    assert len(client.got) == WAITING_BYTES // 3 * 3 + 1
    # It goes on behind what it has been sent.
    assert member.cursor == at(4)
    source.reading.cancel()


@pytest.mark.parametrize("pieces", [[BATCH_BYTES + 1], [BATCH_BYTES, 1], [1, BATCH_BYTES, 5]])
async def test_a_batch_that_is_too_big_is_nobodys(pieces: list[int]) -> None:
    hub = Hub(at(0), b"", pause=0)
    source, client = Source(hub), Client()
    member = hub.join_now()
    receiving = asyncio.create_task(member.receive(client))
    for size in pieces[:-1]:
        await source.tell(b"x" * size)
    await source.tell(b"x" * pieces[-1], at(1))
    await receiving
    assert (member.left, member.cursor, client.got) == (Left.BIG, at(0), b"")
    again = await hub.join(member.cursor, 60)
    assert again is not None
    assert again.begin == at(1)
    source.reading.cancel()


async def test_who_does_not_take_a_batch_is_no_member_and_others_are_not_waited_for() -> None:
    hub = Hub(at(0), b"", pause=0)
    source, slow, quick = Source(hub), Client(), Client()
    members = [hub.join_now(), hub.join_now()]
    receiving = [asyncio.create_task(m.receive(c)) for m, c in zip(members, (slow, quick), strict=True)]
    await source.tell(b"a", at(1))
    slow.takes = False
    await source.tell(b"b", at(2))
    await source.tell(b"c", at(3))
    assert (slow.got, quick.got) == (b"a", b"abc")
    await receiving[0]
    assert (members[0].left, members[0].cursor) == (Left.SLOW, at(1))
    assert members[1].left is None
    receiving[1].cancel()
    await asyncio.gather(receiving[1], return_exceptions=True)
    assert not hub.members
    source.reading.cancel()


async def test_a_crowd_is_told_what_comes_quickly_together_and_its_end_at_once() -> None:
    hub = Hub(at(0), b"", pause=3600)
    source, client, late = Source(hub), Client(), Client()
    receiving = [asyncio.create_task(hub.join_now().receive(client))]
    await source.tell(b"a", at(1))
    assert client.got == b"a", "after a pause at once"
    await source.tell(b"b", at(2))
    await source.tell(b"c", at(3))
    assert client.got == b"a"
    # Who joins begins behind what the others are told by then.
    member = hub.join_now()
    assert (member.begin, client.got) == (at(3), b"abc")
    receiving.append(asyncio.create_task(member.receive(late)))
    await source.tell(b"d" * BATCH_BYTES, at(4))
    await source.tell(b"e", at(5))
    assert (len(client.got), len(late.got)) == (3 + BATCH_BYTES, BATCH_BYTES)
    await source.tell(b"f", at(6), end=b"{}")
    await asyncio.gather(*receiving)
    assert client.got.endswith(b"def")
    assert late.got.endswith(b"def")


async def test_the_pause_of_a_crowd_ends() -> None:
    hub = Hub(at(0), b"", pause=0.01)
    source, client = Source(hub), Client()
    receiving = asyncio.create_task(hub.join_now().receive(client))
    await source.tell(b"a", at(1))
    await source.tell(b"b", at(2))
    async with asyncio.timeout(60):
        while client.got != b"ab":  # noqa: ASYNC110 - what is pushed has no event
            await asyncio.sleep(0)
    hub.close()
    await receiving
    source.reading.cancel()
