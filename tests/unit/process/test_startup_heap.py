"""What a process has made at its start is looked at by no later collection."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from linkis_ecm.process.startup_heap import freeze_startup_heap


class Node:
    """One that can be in a cycle."""

    def __init__(self) -> None:
        self.other: Node | None = None


@pytest.fixture
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def cycle() -> weakref.ref[Node]:
    one, two = Node(), Node()
    one.other, two.other = two, one
    return weakref.ref(one)


@pytest.mark.usefixtures("thawed")
def test_what_is_there_is_frozen_and_what_comes_later_is_collected() -> None:
    before, kept = cycle(), [Node() for _ in range(1000)]
    freeze_startup_heap()
    assert before() is None, "rubbish of the start is not kept for ever"
    assert gc.get_freeze_count() > len(kept)
    assert not any(isinstance(one, Node) for one in gc.get_objects())
    after = cycle()
    gc.collect()
    assert after() is None
