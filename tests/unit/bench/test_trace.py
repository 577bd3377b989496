"""The trace of a call: stamps of several processes become hops, and a wrapped function stays what it was."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.trace.hops import Hop, hops, lines
from bench.trace.points import wrap
from bench.trace.ring import CAPACITY, MAX_NAMES, Ring, read


def test_stamps_are_read_while_the_process_that_makes_them_runs(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "a.ring")
    for name in ("begin", "end", "begin"):
        ring.stamp(name)
    found = read(tmp_path / "a.ring")
    assert [name for _, name in found] == ["begin", "end", "begin"]
    assert found == sorted(found)


def test_a_ring_keeps_the_newest_stamps_and_bounds_its_names(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "a.ring")
    for number in range(CAPACITY + 10):
        ring.stamp(f"name {min(number, 2 * MAX_NAMES)}")
    ring.stamp("name 3")
    found = read(tmp_path / "a.ring")
    assert len(found) <= CAPACITY
    assert len({name for _, name in found}) <= MAX_NAMES
    assert found[-1][1] == "name 3"


def test_hops_are_in_the_order_of_most_calls_with_the_time_of_each() -> None:
    calls = [(1_000_000 * n, 1_000_000 * n + 100_000) for n in range(1, 11)]
    stamps = []
    for number, (begin, _) in enumerate(calls):
        swapped = number == 0
        stamps += [(begin + 10_000, "b" if swapped else "a"), (begin + 30_000, "a" if swapped else "b")]
        stamps += [(begin + 40_000, "b"), (begin + 200_000, "after the call")]
    stamps.append((calls[0][0] + 50_000, "a timer"))
    found = hops(calls, stamps)
    assert [hop.name for hop in found] == ["a", "b", "client: the answer is there"]
    assert [(hop.at_p50, hop.step_p50) for hop in found] == [(10, 10), (30, 20), (100, 70)]
    text = "\n".join(lines("title", found, {"gateway": (500.0, 20.0)}))
    assert "title" in text
    assert "a step below 0" not in text
    told = lines("title", [Hop("late", 10, -2, 3)], {"operator": (1.0, 2.0)}, "life")
    assert "processor time of a life, operator" in told[-2]
    assert "a step below 0: most of them pass this point before the one above it" in told[-1]
    assert "500   waited 20" in text


class Thing:
    """Of which two methods are wrapped."""

    def double(self, number: int) -> int:
        """Twice."""
        return 2 * number

    async def fail(self) -> None:
        raise ValueError("as before")


def test_a_wrapped_function_gives_what_it_gave_and_raises_what_it_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("double", "fail"):
        monkeypatch.setattr(Thing, name, vars(Thing)[name])  # as they are again after the test

    def name_of(_: Thing, number: int) -> str:
        return f"double of {number}"

    ring = Ring(tmp_path / "a.ring")
    wrap(ring, Thing, "double", before=name_of)
    wrap(ring, Thing, "fail", before="fails", after="has failed")
    method: Any = Thing.double
    assert method.__doc__ == "Twice."
    assert Thing().double(4) == 8
    with pytest.raises(ValueError, match="as before"):
        asyncio.run(Thing().fail())
    assert [name for _, name in read(tmp_path / "a.ring")] == ["double of 4", "fails", "has failed"]
