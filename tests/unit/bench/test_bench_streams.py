"""The barrier of the benchmark of followers: it opens when the last one is there, and not after a time."""

from __future__ import annotations

import asyncio

import pytest

from bench.hot import streams


async def _follow(reached: asyncio.Semaphore, end: asyncio.Event, *, fails: bool = False) -> int:
    if fails:
        raise RuntimeError("a follower was refused")
    reached.release()
    await end.wait()
    return 1


def test_it_opens_while_all_of_them_go_on() -> None:
    async def run() -> float:
        reached, end = asyncio.Semaphore(0), asyncio.Event()
        following = [asyncio.create_task(_follow(reached, end)) for _ in range(200)]
        begun = asyncio.get_running_loop().time()
        await streams._all(reached, following)
        took = asyncio.get_running_loop().time() - begun
        end.set()
        assert await asyncio.gather(*following) == [1] * 200
        return took

    assert asyncio.run(run()) < streams.PATIENCE / 4


def test_one_that_is_refused_ends_the_wait() -> None:
    async def run() -> None:
        reached, end = asyncio.Semaphore(0), asyncio.Event()
        following = [asyncio.create_task(_follow(reached, end, fails=number == 1)) for number in range(3)]
        await streams._all(reached, following)

    with pytest.raises(RuntimeError, match="a follower was refused"):
        asyncio.run(run())


def test_one_that_failed_before_the_wait_ends_it_too() -> None:
    async def run() -> None:
        reached, end = asyncio.Semaphore(0), asyncio.Event()
        following = [asyncio.create_task(_follow(reached, end, fails=number == 1)) for number in range(3)]
        await asyncio.wait(following[1:2])
        await streams._all(reached, following)

    with pytest.raises(RuntimeError, match="a follower was refused"):
        asyncio.run(run())


def test_one_that_never_comes_ends_it_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PATIENCE", 0.05)

    async def run() -> None:
        await streams._all(asyncio.Semaphore(0), [asyncio.create_task(asyncio.sleep(60, 1))])

    with pytest.raises(SystemExit, match="not told in time"):
        asyncio.run(run())
