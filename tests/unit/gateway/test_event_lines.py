"""Server-sent events of an agent's lines, and the memory that they take."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.gateway.followers import lines as event_lines
from linkis_ecm.gateway.followers.lines import LINE_BYTES, MAX_EVENT_BYTES, EventBudget, events_of
from linkis_ecm.gateway.followers.places import Sending
from linkis_ecm.gateway.http.budget import ByteBudget, ByteQuota

MIB = 1 << 20


async def stream(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def budgets() -> tuple[ByteBudget, EventBudget]:
    whole = ByteBudget(192 * MIB)
    return whole, EventBudget(whole, ByteBudget(64 * MIB), ByteQuota(64 * MIB))


async def sent(pieces: Iterable[bytes]) -> bytes:
    whole, budget = budgets()
    got = b"".join([events.data async for events in events_of(stream(pieces), budget, time.monotonic)])
    assert not whole.held
    return got


def line(name: str, text: str, number: int) -> bytes:
    return b'{"event": "%s", "text": "%s", "id": "%d.1"}\n' % (name.encode(), text.encode(), number)


@given(st.lists(st.integers(1, 5000), max_size=20), st.integers(1, 3000))
def test_however_lines_are_cut_the_events_are_the_same(lengths: list[int], size: int) -> None:
    whole = b"".join(line("output", "x" * length, number) for number, length in enumerate(lengths))
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    got = asyncio.run(sent(pieces))
    assert got.count(b"event: output\n") == len(lengths)
    for number in range(len(lengths)):
        assert b"id: %d.1\nevent: output\n" % number in got


async def test_a_long_line_is_passed_on_with_its_id_and_within_the_budget() -> None:
    whole, budget = budgets()
    big = line("output", "x" * (15 * MIB), 7)
    pieces = (big[start : start + (64 << 10)] for start in range(0, len(big), 64 << 10))
    began = time.process_time()
    async for events in events_of(stream(pieces), budget, time.monotonic):
        assert events.data == b"id: 7.1\nevent: output\ndata: " + big.rstrip(b"\n") + b"\n\n"
        assert events.end is None
        # What is sent, and no copy of it.
        assert 15 * MIB <= whole.held < 16 * MIB
    assert not whole.held
    # Copied per piece, 240 pieces of a growing line would be 1.8 GB: several seconds.
    assert time.process_time() - began < 2


async def test_a_line_without_an_end_is_thrown_away_as_it_comes() -> None:
    whole, budget = budgets()
    most = 0
    tracemalloc.start()

    def endless() -> Iterable[bytes]:
        nonlocal most
        for _ in range(4 * MAX_EVENT_BYTES // (64 << 10)):
            yield b"x" * (64 << 10)
            most = max(most, tracemalloc.get_traced_memory()[0])
        yield b"\n" + line("end", "", 1)

    got, ends = b"", []
    async for events in events_of(stream(endless()), budget, time.monotonic):
        got += events.data
        ends.append(events.end)
    tracemalloc.stop()
    assert b"more than 20 MiB is left out" in got
    assert got.endswith(line("end", "", 1).replace(b": ", b":").replace(b", ", b",") + b"\n")
    assert ends[-1] is not None
    assert most < 3 * MAX_EVENT_BYTES
    assert not whole.held


async def test_followers_of_long_lines_wait_for_each_other_and_leave_others_memory() -> None:
    """Finding S6: 45 followers of a line of 38 MB took 1678 MiB."""
    whole, budget = budgets()
    go = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * (1 << 20)
        await go.wait()
        yield b"\n"

    async def follow() -> None:
        async for _ in events_of(slow(), budget, time.monotonic):
            pass

    tasks = [asyncio.create_task(follow()) for _ in range(45)]
    for _ in range(100):
        await asyncio.sleep(0)
    assert whole.held == LINE_BYTES
    async with asyncio.timeout(5), whole.hold(100 * MIB):
        pass
    tasks[3].cancel()
    tasks[0].cancel()
    go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not whole.held


async def test_unfinished_lines_of_one_owner_keep_no_others_waiting() -> None:
    whole, budget = budgets()
    go, read = asyncio.Event(), 0

    async def unfinished() -> AsyncIterator[bytes]:
        nonlocal read
        yield b"x" * (66 << 10)
        read += 1
        await go.wait()
        yield b"\n"

    async def follow(user: str) -> None:
        async for _ in events_of(unfinished(), budget.of(user, Sending(), owner="mallory"), time.monotonic):
            pass

    tasks = [asyncio.create_task(follow(user)) for user in ("mallory", "root") * 8]
    for _ in range(50):
        await asyncio.sleep(0)
    assert read == 1
    big = line("output", "x" * (15 * MIB), 7)
    pieces = [big[start : start + (64 << 10)] for start in range(0, len(big), 64 << 10)]
    # A long line, and a batch of whole lines: mallory's own, too.
    for user, batch in (("alice", pieces), ("mallory", [line("output", "x" * 200_000, 1)])):
        async with asyncio.timeout(20):
            assert [events async for events in events_of(stream(batch), budget.of(user, Sending()), time.monotonic)]
    go.set()
    await asyncio.gather(*tasks)
    assert not whole.held


@pytest.mark.looptime
async def test_who_was_cut_for_a_slow_line_has_a_pause_before_the_next() -> None:
    _, budget = budgets()
    budget.of("mallory", Sending()).pause()
    loop = asyncio.get_running_loop()
    for owner, seconds in (("alice", 0), ("mallory", event_lines.PAUSE_SECONDS), ("mallory", 0)):
        began = loop.time()
        async with AsyncExitStack() as held:
            await budget.of(owner, Sending()).hold_coming(held)
        assert loop.time() - began == pytest.approx(seconds, abs=0.01)


async def test_an_agent_that_trickles_a_long_line_is_cut() -> None:
    whole, budget = budgets()
    now = 0.0

    async def trickle() -> AsyncIterator[bytes]:
        nonlocal now
        yield b"x" * (1 << 20)
        while True:
            now += 10
            yield b"x"

    with pytest.raises(ConnectionResetError):
        async for _ in events_of(trickle(), budget, lambda: now):
            pass
    assert now <= event_lines.LINE_SECONDS + 10
    assert budget._paused_until
    assert not whole.held


@pytest.mark.parametrize(
    "content",
    [b"[1]", b"7", b"null", b'{"event": "a\\nb"}', b'{"event": "\xc3\xa9"}', b"{", b'{"event": 7}', b"  "],
)
async def test_a_line_that_is_no_event_becomes_a_comment(content: bytes) -> None:
    assert await sent([content + b"\n"]) == b": here\n\n"


async def test_a_long_line_breaks_no_framing() -> None:
    for bad in (b"x" * (2 * MIB), b'{"event": "output", "x": "' + b"y" * (2 * MIB) + b'\rdata: z"}'):
        assert await sent([bad + b"\n"]) == b": here\n\n"


async def test_a_client_that_reads_slowly_keeps_only_its_own_user_waiting() -> None:
    whole, budget = budgets()
    big = line("output", "x" * (15 * MIB), 7)

    async def follow(user: str) -> bytes:
        async with aclosing(events_of(stream([big]), budget.of(user, Sending()), time.monotonic)) as found:
            return (await anext(found)).data

    alices = [events_of(stream([big]), budget.of("alice", Sending()), time.monotonic) for _ in range(2)]
    for sending in alices:
        assert len((await anext(sending)).data) > 15 * MIB
    # Two that are sent for as long as alice's clients take: her third has no room, and others' come as ever.
    with pytest.raises(ConnectionResetError, match="too many long events"):
        await follow("alice")
    async with asyncio.timeout(5):
        assert len(await follow("bob")) > 15 * MIB
    for sending in alices:
        await sending.aclose()
    assert await follow("alice")
    assert not whole.held


async def test_of_one_users_clients_the_one_that_does_not_read_gives_way() -> None:
    whole, budget = budgets()
    big = line("output", "x" * (15 * MIB), 7)
    now = [0.0]
    cut: list[str] = []
    held: dict[str, asyncio.Task[None]] = {}

    async def hold(user: str, name: str) -> None:
        sending, gone = Sending(lambda: now[0]), asyncio.Event()
        sending.begin(lambda: (cut.append(name), gone.set()))
        async with aclosing(events_of(stream([big]), budget.of(user, sending), time.monotonic)) as found:
            async for _ in found:
                with sending.piece():
                    await gone.wait()
                return

    for number, (user, name) in enumerate((("bob", "b"), ("alice", "first"), ("alice", "second"))):
        now[0] = float(number)
        held[name] = asyncio.create_task(hold(user, name))
        for _ in range(10):
            await asyncio.sleep(0)
    own = budget.of("alice", Sending())
    now[0] = 2.9
    with pytest.raises(ConnectionResetError, match="too many long events"):
        await anext(events_of(stream([big]), own, time.monotonic))
    assert not cut, "both may still read"
    now[0] = 30.0
    async with aclosing(events_of(stream([big]), own, time.monotonic)) as found:
        assert len((await anext(found)).data) > 15 * MIB
        assert cut == ["first"], "the one that has not read for longest, of her own"
    for name in ("b", "second"):
        held[name].cancel()
    await asyncio.gather(*held.values(), return_exceptions=True)
    assert not whole.held
    assert not budget._crowds
