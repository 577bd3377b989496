"""Who gives way where followers hold all that there is."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from linkis_ecm.gateway.followers import places as places_module
from linkis_ecm.gateway.followers.places import SLOW_SECONDS, Crowd, Places, Sending


class Follower:
    """One whose client takes nothing from `since` on; None: it waits for its agent."""

    def __init__(self, now: list[float], since: float | None) -> None:
        self.sending = Sending(lambda: now[0])
        self.cuts = 0
        self.sending.begin(self._cut)
        if since is not None:
            before, now[0] = now[0], since
            self._piece = self.sending.piece()
            self._piece.__enter__()
            now[0] = before

    def _cut(self) -> None:
        self.cuts += 1


def test_the_slowest_gives_way_and_each_only_once() -> None:
    now, crowd = [100.0], Crowd()
    slow, slower, quick, idle = (Follower(now, since) for since in (97.0, 96.0, 99.0, None))
    with crowd.holds(slow.sending), crowd.holds(slower.sending), crowd.holds(quick.sending), crowd.holds(idle.sending):
        assert crowd.break_off_slowest()
        assert (slow.cuts, slower.cuts) == (0, 1)
        assert crowd.break_off_slowest()
        assert (slow.cuts, slower.cuts) == (1, 1)
        assert not crowd.break_off_slowest(), "the others read"
        now[0] = 99.0 + SLOW_SECONDS
        assert crowd.break_off_slowest()
    assert (quick.cuts, idle.cuts) == (1, 0)
    assert not crowd


def test_who_takes_bytes_reads_however_long_the_piece_takes() -> None:
    now, taken, crowd = [0.0], [100], Crowd()
    sending, cut = Sending(lambda: now[0]), []
    sending.begin(lambda: cut.append(1), lambda: taken[0])
    with crowd.holds(sending), sending.piece():
        for _ in range(20):
            now[0] += SLOW_SECONDS
            taken[0] += 1
            assert not crowd.break_off_slowest()
        now[0] += SLOW_SECONDS
        assert crowd.break_off_slowest(), "it takes nothing more"
    assert cut == [1]


async def test_turns_are_given_first_come_first_served_and_not_for_ever_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places_module, "LOOK_SECONDS", 0.01)
    crowd, free, order = Crowd(), [0], []

    def take() -> bool:
        free[0] -= 1
        return free[0] >= 0 or bool(free.__setitem__(0, 0))

    async def wait(name: str) -> None:
        await crowd.take_in_turn(take)
        order.append(name)

    waiting = [asyncio.create_task(wait(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert crowd.waiting == 3
    waiting[1].cancel()
    with crowd.holds(Sending()):
        free[0] = 2
    await asyncio.gather(waiting[0], waiting[2])
    assert order == ["a", "c"]
    monkeypatch.setattr(places_module, "WAIT_SECONDS", 0.05)
    with pytest.raises(TimeoutError):
        await wait("d")
    assert not crowd


def test_who_is_not_being_sent_anything_yet_cannot_be_broken_off() -> None:
    now = [0.0]
    sending = Sending(lambda: now[0])
    with sending.piece():
        now[0] = 60.0
        assert not sending.waits
        sending.begin(lambda: None)
        assert sending.waits == 60.0
    assert not sending.waits


async def test_nobody_who_leaves_is_waited_for_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "LEAVE_SECONDS", 0.01)
    with pytest.raises(TimeoutError):
        await Crowd().until_one_has_left()


async def test_places_are_given_in_turn_and_not_for_ever_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    places, order = Places(1), []

    async def follow(name: str) -> None:
        async with places.own(Sending()):
            order.append(name)

    async with places.own(Sending()):
        waiting = [asyncio.create_task(follow(name)) for name in "abc"]
        await asyncio.sleep(0)
        waiting[1].cancel()
        monkeypatch.setattr(places_module, "TURN_SECONDS", 0.01)
        with pytest.raises(TimeoutError):
            await follow("late")
    await asyncio.gather(waiting[0], waiting[2])
    assert order == ["a", "c"]
    await follow("again")


async def test_a_place_is_kept_for_a_shared_reader_and_further_ones_take_followers_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places_module, "TURN_SECONDS", 0.01)
    places = Places(2)
    async with AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(places.own(Sending()))
        async with places.shared():
            with pytest.raises(TimeoutError):
                await places.shared().__aenter__()
        async with places.shared():
            pass
    async with places.shared(), places.shared(), places.own(Sending()):
        with pytest.raises(TimeoutError):
            await places.own(Sending()).__aenter__()


async def test_who_waits_for_a_place_gets_that_of_one_who_turns_out_not_to_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places_module, "LOOK_SECONDS", 0.01)
    now, places, gone = [0.0], Places(1), asyncio.Event()
    sending = Sending(lambda: now[0])

    async def stuck() -> None:
        async with places.own(sending):
            sending.begin(gone.set)
            with sending.piece():
                await gone.wait()

    task = asyncio.create_task(stuck())
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(places.own(Sending()).__aenter__())
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert not waiting.done(), "it has been sent the same for no time yet"
    now[0] = SLOW_SECONDS
    await asyncio.wait_for(waiting, 5)
    await task


async def test_a_place_that_was_left_is_waited_for_before_another_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "LOOK_SECONDS", 0)  # a look at each turn of the loop
    now, places, cut = [0.0], Places(2), []

    async def stuck(name: str) -> None:
        sending, gone = Sending(lambda: now[0]), asyncio.Event()

        def break_off() -> None:
            cut.append(name)
            gone.set()

        async with places.own(sending):
            sending.begin(break_off)
            with sending.piece():
                await gone.wait()

    tasks = [asyncio.create_task(stuck(name)) for name in "ab"]
    await asyncio.sleep(0)
    now[0] = SLOW_SECONDS
    async with places.own(Sending()):
        assert len(cut) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
