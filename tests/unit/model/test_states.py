"""The nine states: Linkis's names, ordinals and predicates, and the whole table of what may follow what."""

from __future__ import annotations

import itertools

import pytest

from linkis_ecm.model import reasons
from linkis_ecm.model.states import AVAILABLE, FINAL, LEGAL, ORDER, EngineState, may_follow

S = EngineState
# Row: before. Column: after, in Linkis's order. x: legal. Staying is always legal.
TABLE = """
             Starting Unlock Locked Idle Busy Running ShuttingDown Failed Success
Starting        .       x      x     x    x     x          x          x      x
Unlock          -       .      x     x    x     -          x          x      x
Locked          -       x      .     x    x     -          x          x      x
Idle            -       x      -     .    x     -          x          x      x
Busy            -       x      -     x    .     -          x          x      x
Running         -       -      -     -    -     .          x          x      x
ShuttingDown    -       -      -     -    -     -          .          x      x
Failed          -       -      -     -    -     -          -          .      -
Success         -       -      -     -    -     -          -          -      .
"""


def cells() -> list[tuple[str, str, bool]]:
    head, *lines = [line.split() for line in TABLE.strip().splitlines()]
    return [(line[0], after, mark in "x.") for line in lines for after, mark in zip(head, line[1:], strict=True)]


@pytest.mark.parametrize(("before", "after", "legal"), cells())
def test_only_what_the_table_says_may_follow(before: str, after: str, legal: bool) -> None:
    assert may_follow(S(before), S(after)) is legal


def test_the_table_is_whole() -> None:
    assert {(before, after) for before, after, _ in cells()} == set(itertools.product(ORDER, ORDER))


def test_names_and_ordinals_are_linkis() -> None:
    names = ["Starting", "Unlock", "Locked", "Idle", "Busy", "Running", "ShuttingDown", "Failed", "Success"]
    assert [state.value for state in EngineState] == names
    assert [state.ordinal for state in EngineState] == list(range(9))
    assert {state for state in EngineState if state.is_available} == {S.UNLOCK, S.LOCKED, S.IDLE, S.BUSY, S.RUNNING}


def test_no_state_follows_an_end_and_every_state_can_reach_one() -> None:
    for state in FINAL:
        assert LEGAL[state] == frozenset()
    for state in set(EngineState) - FINAL:
        assert LEGAL[state] >= FINAL or state in AVAILABLE
        assert LEGAL[state] & FINAL


def test_every_reason_has_a_sentence_and_every_failure_a_remedy() -> None:
    failures = {
        "PluginMissing",
        "OOMKilled",
        "NodeLost",
        "Evicted",
        "Preempted",
        "AgentLost",
        "KernelDied",
        "JobFailed",
    }
    for reason in reasons.all_reasons():
        assert reason.name.isalnum()
        assert reason.sentence.endswith(".")
        assert reason.sentence[0].isupper()
        if reason.name in failures:
            assert reason.remedy.endswith("."), reason.name
        assert reasons.by_name(reason.name) is reason
    assert failures <= {reason.name for reason in reasons.all_reasons()}


def test_reasons_of_restarts_and_permanent_reasons_do_not_overlap() -> None:
    assert reasons.INFRASTRUCTURE.isdisjoint(reasons.PERMANENT)
