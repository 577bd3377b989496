"""Which connection goes for a new one, and that the counts hold in any order of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.process.ports.connections import KNOWN_SECONDS, ConnectionLimits, Connections
from tools.testkit.gateway.callers import Clock
from tools.testkit.gateway.connections import Told


class One:
    def __init__(self, peer: str, *, is_busy: bool = False) -> None:
        self.peer = peer
        self.is_busy = is_busy
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1


def bounded(total: int = 100, strangers: int = 100, per_peer: int = 0, clock: Clock | None = None) -> Connections:
    return Connections(ConnectionLimits(total, strangers, per_peer), counts=Told(), clock=clock or Clock())


def admitted(connections: Connections, *peers: str, busy: bool = False) -> list[One]:
    made = [One(peer, is_busy=busy) for peer in peers]
    assert all(connections.admit(one) for one in made)
    return made


def cut(made: list[One]) -> list[int]:
    return [number for number, one in enumerate(made) if one.aborted]


def test_the_oldest_of_the_address_with_most_goes_for_a_new_one() -> None:
    connections = bounded(strangers=5)
    made = admitted(connections, "kubelet", "flood", "flood", "user", "flood")
    admitted(connections, "new")
    assert cut(made) == [1]
    admitted(connections, "new")
    assert cut(made) == [1, 2]
    assert connections.strangers == 5
    assert connections._counts.cuts == {"replaced": 2}  # type: ignore[attr-defined]


def test_a_stranger_whose_request_runs_goes_after_the_silent_ones() -> None:
    connections = bounded(strangers=3)
    made = [*admitted(connections, "a", "a", busy=True), *admitted(connections, "b")]
    admitted(connections, "c")
    assert cut(made) == [2]
    made[0].is_busy = False
    admitted(connections, "d")
    assert cut(made) == [0, 2]


def test_strangers_of_an_address_that_has_logged_in_go_after_others_for_ten_minutes() -> None:
    clock = Clock()
    connections = bounded(strangers=4, clock=clock)
    (first,) = admitted(connections, "proxy")
    connections.prove(first, "alice")
    made = admitted(connections, "proxy", "proxy", "proxy", "x")
    admitted(connections, "new")
    assert cut(made) == [3]
    clock.now += KNOWN_SECONDS
    admitted(connections, "new")
    assert cut(made) == [0, 3]
    assert not first.aborted


def test_with_every_place_taken_by_logins_a_silent_one_goes_and_a_busy_one_stays() -> None:
    connections = bounded(total=4, strangers=2)
    made = admitted(connections, "p", "p")
    for number, one in enumerate(made):
        connections.prove(one, f"user-{number}")
    made += admitted(connections, "p", "p")
    for number, one in enumerate(made[2:]):
        connections.prove(one, f"more-{number}")
    assert connections.known == 4
    made[0].is_busy = True
    admitted(connections, "new")
    assert cut(made) == [1]
    for one in made:
        one.is_busy = True
    admitted(connections, "new2")
    assert connections.strangers == 1
    for stranger in connections._strangers["new2"]:
        connections.prove(stranger, "last")
        stranger.is_busy = True
        break
    assert not connections.admit(One("late"))
    assert connections._counts.cuts["full"] == 1  # type: ignore[attr-defined]


def test_one_login_does_not_take_all_places() -> None:
    connections = bounded(total=80, strangers=40)
    made = [*admitted(connections, *["p"] * 40)]
    for one in made:
        connections.prove(one, "mallory")
    assert (connections.known, connections.strangers) == (10, 30)
    connections.lost(made[0])
    connections.prove(made[39], "mallory")
    assert connections.known == 10


@pytest.mark.parametrize("again", [1, 2])
def test_one_that_is_gone_is_counted_off_once(again: int) -> None:
    connections = bounded(per_peer=2)
    made = admitted(connections, "a", "a")
    connections.prove(made[1], "alice")
    assert not connections.admit(One("a"))
    for one in made * again:
        connections.lost(one)
    assert (connections.strangers, connections.known) == (0, 0)
    assert not connections._peers
    assert not connections._logins
    assert not connections._strangers
    connections.prove(made[0], "alice")
    assert connections.known == 0


@given(st.lists(st.tuples(st.sampled_from(["new", "prove", "lost", "busy"]), st.integers(0, 5)), max_size=200))
def test_no_order_of_events_breaks_a_bound(events: list[tuple[str, int]]) -> None:
    connections = bounded(total=8, strangers=4, per_peer=5)
    alive: list[One] = []
    for what, number in events:
        if what == "new":
            one = One(str(number % 3))
            if connections.admit(one):
                alive.append(one)
        elif alive:
            one = alive[number % len(alive)]
            if what == "prove":
                connections.prove(one, str(number))
            elif what == "busy":
                one.is_busy = not one.is_busy
            else:
                connections.lost(one)
                alive.remove(one)
        alive = [one for one in alive if not one.aborted]
        assert connections.strangers <= 4
        assert connections.strangers + connections.known <= 8
        assert connections.strangers + connections.known == len(alive)
        assert max(connections._peers.values(), default=0) <= 5
    for one in alive:
        connections.lost(one)
    assert (connections.strangers, connections.known) == (0, 0)
