"""The status of a pool in more namespaces than its list has room for, by one writer and by several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from linkis_ecm.engine.warm import problems
from linkis_ecm.engine.warm.places import PlaceState
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.engine.warm.status import status_patch
from linkis_ecm.model.plugin import EngineConnPluginStatus
from linkis_ecm.model.warm_pool import PLACES_MAX
from tests.unit.warm.test_warm_sizing import held
from tests.unit.warm.test_warm_status import NOW, a_plugin, condition, state
from tools.testkit.fakes.rules import merged

FULL = Problem(problems.QUOTA, "The quota is full.")
BEYOND = PLACES_MAX + 12


def name(index: int) -> str:
    return f"ns-{index:03}"


def place(index: int, *, ready: int = 1, problem: Problem | None = None) -> PlaceState:
    return PlaceState(name(index), ready, 0, 1, problem=problem)


def written(status: dict[str, Any], states: Sequence[PlaceState], *, alone: bool = False) -> dict[str, Any]:
    """The status after a write of who serves these namespaces, `alone`: all that there are."""
    own = {one.namespace for one in states}
    patch = status_patch(a_plugin(status, 1, cap=1000), states, is_own=lambda one: alone or one in own, now=NOW)
    after: dict[str, Any] = merged(status, patch)
    EngineConnPluginStatus.model_validate(after)
    return after


def settled(status: dict[str, Any], *writers: Sequence[PlaceState], rounds: int = 4) -> dict[str, Any]:
    """After so many writes of each that none has anything to write any more."""
    for _ in range(rounds):
        for states in writers:
            status = written(status, states)
    for states in writers:
        assert written(status, states) == status, "the writers never come to an end"
    return status


def numbers(status: Mapping[str, Any]) -> tuple[str, int, int]:
    pool = status["warmPool"]
    return pool["summary"], pool["ready"], pool["wanted"]


def listed(status: Mapping[str, Any]) -> list[str]:
    return [one["namespace"] for one in status["warmPool"]["namespaces"]]


def test_the_sums_and_the_condition_are_of_all_and_the_list_begins_with_those_in_trouble() -> None:
    states = [place(one) if one < PLACES_MAX else place(one, ready=0, problem=FULL) for one in range(BEYOND)]
    after = written({}, states, alone=True)
    assert numbers(after) == ("128/140", 128, 140)
    said = condition(after)
    assert (said["status"], said["reason"]) == ("False", "QuotaExceeded")
    assert said["message"].startswith("In namespace ns-128: ")
    assert "in 11 more namespaces" in said["message"]
    assert said["message"].endswith("The status lists 128 of 140 namespaces, those in trouble first.")
    assert listed(after) == [name(one) for one in (*range(PLACES_MAX, BEYOND), *range(PLACES_MAX - 12))]
    (rest,) = after["warmPool"]["unlisted"]
    assert rest == {"namespace": "ns-116", "namespaces": 12, "ready": 12, "starting": 0, "wanted": 12,
                    "inTrouble": 0, "stuck": 0}  # fmt: skip
    assert written(after, list(reversed(states)), alone=True) == after, "the order of the states is no change"


def test_a_full_pool_says_that_its_list_is_cut() -> None:
    after = written({}, [place(one) for one in range(BEYOND)], alone=True)
    said = condition(after)
    assert (said["status"], said["reason"], numbers(after)[0]) == ("True", "Filled", "140/140")
    assert "lists 128 of 140" in said["message"]


@pytest.mark.parametrize("late", [0, 127, 128, 139])
def test_one_that_has_none_to_give_is_no_full_pool(late: int) -> None:
    after = written({}, [place(one, ready=int(one != late)) for one in range(BEYOND)], alone=True)
    said = condition(after)
    assert (said["status"], said["reason"], numbers(after)[0]) == ("False", "Filling", "139/140")
    assert listed(after)[0] == name(late)


def test_more_in_trouble_than_the_list_takes_are_counted() -> None:
    after = written({}, [place(one, ready=0, problem=FULL) for one in range(BEYOND)], alone=True)
    assert "in 139 more namespaces" in condition(after)["message"]
    assert after["warmPool"]["unlisted"][0]["inTrouble"] == 12


@pytest.mark.parametrize("troubled", [0, BEYOND])
def test_pods_that_do_not_end_are_said_wherever_they_are(troubled: int) -> None:
    """Listed before those that are full, and counted where all that is listed is in trouble."""
    pod = held("held", finalizers=("example.com/keep",))
    states = [place(one, problem=FULL if one < troubled else None) for one in range(BEYOND)]
    said = condition(written({}, [*states, state(pod, namespace="zz", ready=1)], alone=True))
    assert "One pod of the pool was deleted and does not end" in said["message"]


def test_as_many_as_the_list_takes_are_listed_by_name_as_ever() -> None:
    after = written({}, [place(one, problem=FULL if one == 99 else None) for one in range(PLACES_MAX)], alone=True)
    assert listed(after) == [name(one) for one in range(PLACES_MAX)]
    assert "unlisted" not in after["warmPool"]
    assert "lists" not in condition(after)["message"]
    assert condition(after)["reason"] == "QuotaExceeded"


def test_a_pool_that_shrinks_is_listed_as_a_whole_again() -> None:
    after = written(written({}, [place(one) for one in range(BEYOND)], alone=True), [place(0), place(1)], alone=True)
    assert (numbers(after)[0], listed(after)) == ("2/2", [name(0), name(1)])
    assert "unlisted" not in after["warmPool"], "a merge patch leaves what it does not name"


@pytest.mark.parametrize("writers", [2, 3])
def test_several_writers_come_to_the_same_sums_and_to_an_end(writers: int) -> None:
    """Shards, or installations: each knows of the others what the status has."""
    states = [[place(one) for one in range(70 * writers) if one % writers == mine] for mine in range(writers)]
    total = sum(map(len, states))
    after = settled({}, *states)
    assert numbers(after) == (f"{total}/{total}", total, total)
    assert condition(after)["status"] == "True"
    assert f"lists 128 of {total} namespaces" in condition(after)["message"]
    assert len(after["warmPool"]["unlisted"]) <= writers

    # Trouble of the last one is listed, and goes again.
    bad = [*states[:-1], [place(int(one.namespace[3:]), ready=0, problem=FULL) for one in states[-1]]]
    worse = settled(after, *bad)
    lost = len(states[-1])
    assert numbers(worse) == (f"{total - lost}/{total}", total - lost, total)
    assert condition(worse)["reason"] == "QuotaExceeded"
    assert f"in {lost - 1} more" in condition(worse)["message"]
    assert {one.namespace for one in states[-1]} <= set(listed(worse))
    better = settled(worse, *states)
    assert numbers(better) == numbers(after)
    assert condition(better)["reason"] == "Filled"


def test_a_namespace_that_another_shard_takes_over_is_counted_once() -> None:
    """Also the one by whose name an entry of the unlisted goes."""
    one, two = [place(index) for index in range(BEYOND)], [place(index) for index in range(BEYOND, BEYOND + 20)]
    before = settled({}, one, two)
    first = min(entry["namespace"] for entry in before["warmPool"]["unlisted"])
    moved = next(place for place in one if place.namespace == first)
    after = settled(before, [place for place in one if place is not moved], [moved, *two])
    assert numbers(after) == numbers(before) == ("160/160", 160, 160)


@pytest.mark.parametrize("odd", ["x", 7, [None, 3, "y"], [{"namespace": "zz", "ready": "many", "wanted": []}]])
def test_odd_entries_of_the_unlisted_are_no_failure(odd: Any) -> None:
    states = [place(one) for one in range(2)]
    patch = status_patch(a_plugin({"warmPool": {"unlisted": odd}}, 1), states, is_own=lambda one: one < "x", now=NOW)
    assert patch["warmPool"]["summary"] == "2/2"
