"""Agents that send lines without a pause cost others nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from linkis_ecm.gateway.followers.lines import KEEP_ALIVE, TURN_LINES, EventBudget, events_of
from linkis_ecm.gateway.followers.pace import BURST_SECONDS, LINES_PER_SECOND, LinePace
from linkis_ecm.gateway.followers.places import Sending
from linkis_ecm.gateway.http.budget import ByteBudget, ByteQuota

MIB = 1 << 20
EVENT = b'{"event":"status","id":"0.0.1.0","status":"Running"}\n'


def budget() -> EventBudget:
    return EventBudget(ByteBudget(192 * MIB), ByteBudget(64 * MIB), ByteQuota(64 * MIB))


async def once(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


@pytest.mark.parametrize("blank", [b"\n", b" \n", b"\r\n", b"\t \r\n", b"\n \n\n"])
async def test_blank_lines_are_one_remark(blank: bytes) -> None:
    got = [events async for events in events_of(once(blank * 1000), budget(), time.monotonic)]
    assert [events.data for events in got] == [KEEP_ALIVE]
    assert got[0].is_remark


@pytest.mark.parametrize("junk", [b"x\n", b"[1]\n", b'{"event":7}\n', b"\nx\n"])
async def test_lines_that_are_no_events_are_one_remark_a_turn(junk: bytes) -> None:
    got = [events.data async for events in events_of(once(junk * TURN_LINES * 3), budget(), time.monotonic)]
    assert set(got) == {KEEP_ALIVE}
    assert len(got) <= 4


async def test_blank_lines_between_events_change_none() -> None:
    got = [
        events async for events in events_of(once(b"\n\n" + EVENT + b"\n \n" + EVENT + b"\n"), budget(), time.monotonic)
    ]
    data = b"".join(events.data for events in got)
    assert data.count(b"event: status\n") == 2
    assert KEEP_ALIVE not in data
    assert not got[0].is_remark
    assert str(got[0].cursor) == "0.0.1.0"


async def test_many_lines_at_once_leave_others_their_turns() -> None:
    turns, is_done = 0, False

    async def other() -> None:
        nonlocal turns
        while not is_done:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    count = 0
    async for events in events_of(once(EVENT * TURN_LINES * 5), budget(), time.monotonic):
        count += events.data.count(b"event: status\n")
        assert count <= (turns + 1) * TURN_LINES
    is_done = True
    await running
    assert count == 5 * TURN_LINES
    assert turns >= 4


@pytest.mark.looptime
@pytest.mark.parametrize(("piece", "lines"), [(EVENT * 500, 500), (b"x\n" * 5000, 5000), (b"\n" * 40_000, 2000)])
async def test_streams_of_one_users_agents_are_read_at_a_bounded_pace(piece: bytes, lines: int) -> None:
    shared = budget()
    loop = asyncio.get_running_loop()
    read = 0

    async def flood() -> AsyncIterator[bytes]:
        nonlocal read
        while loop.time() < began + 10:
            read += lines
            yield piece

    async def follow(user: str) -> None:
        async for _ in events_of(flood(), shared.of(user, Sending(), owner="mallory"), time.monotonic):
            pass

    async def call() -> float:
        """Another user's stream."""
        start = loop.time()
        async for _ in events_of(once(EVENT), shared.of("alice", Sending()), time.monotonic):
            pass
        return loop.time() - start

    began = loop.time()
    flooding = [asyncio.create_task(follow(user)) for user in ("mallory", "mallory", "root", "root")]
    await asyncio.sleep(5)
    assert await call() == 0
    await asyncio.gather(*flooding)
    assert 0.5 < read / (LINES_PER_SECOND * 10) < 1.5


@pytest.mark.looptime
async def test_after_a_pause_what_comes_at_once_does_not_wait() -> None:
    pace, loop = LinePace(), asyncio.get_running_loop()
    for _ in range(3):
        began = loop.time()
        await pace.take("alice", BURST_SECONDS * LINES_PER_SECOND)
        assert loop.time() == began
        await asyncio.sleep(1)


@pytest.mark.looptime
async def test_users_that_send_no_more_are_forgotten() -> None:
    pace = LinePace()
    for number in range(5000):
        await pace.take(f"user{number}", 1)
        await asyncio.sleep(0.001)
    assert len(pace._done_at) < 1100
