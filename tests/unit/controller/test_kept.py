"""What is learned from the answer of a status's write, and which writes are worth it then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from linkis_ecm.controller.state.kept import AGAIN, FIELDS_MAX, KeptFields

PLACE = {"namespace": "team", "ready": 1, "sizeFrom": "Value"}
PATCH: dict[str, Any] = {"warmPool": {"summary": "1/1", "ready": 1, "namespaces": [PLACE]}, "gone": None}


class Kept:
    def __init__(self, events_in: str = "") -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.said: list[tuple[dict[str, Any], str]] = []
        self.fields = KeptFields(kind="EngineConnPlugin", clock=lambda: self.now, recorder=self, events_in=events_in)  # type: ignore[arg-type]

    def record(self, regarding: dict[str, Any], reason: str, note: str, *, action: str, kind: str) -> None:
        assert (reason, action, kind) == ("StatusPruned", "WriteStatus", "Warning")
        self.said.append((regarding, note))

    def answered(self, status: Any, patch: dict[str, Any] = PATCH, **metadata: str) -> None:
        self.fields.note("python", "uid", patch, {"metadata": metadata, "status": status})


def pool(place: dict[str, Any] = PLACE, **changes: Any) -> dict[str, Any]:
    return {"warmPool": {"summary": "1/1", "ready": 1, "namespaces": [place]} | changes}


WITHOUT_SIZE = {"namespace": "team", "ready": 1}


@pytest.mark.parametrize(
    ("stored", "field"),
    [
        ({}, "warmPool"),
        (pool(WITHOUT_SIZE), "warmPool.namespaces[].sizeFrom"),
        (pool(summary=""), "warmPool.summary"),
        (pool(PLACE | {"sizeFrom": "Other"}), "warmPool.namespaces[].sizeFrom"),
        (pool(namespaces=[]), "warmPool.namespaces"),
        (pool(namespaces=None), "warmPool.namespaces"),
    ],
)
def test_what_is_not_kept_is_no_reason_for_a_write_and_is_said_once(stored: dict[str, Any], field: str) -> None:
    kept = Kept()
    assert kept.fields.worth_writing(stored, PATCH) == PATCH
    kept.answered(stored)
    kept.answered(stored)
    assert kept.fields.worth_writing(stored, PATCH) == {}
    ((regarding, note),) = kept.said
    assert f"EngineConnPlugin: {field}. " in note
    assert (regarding["name"], regarding["uid"], regarding.get("namespace")) == ("python", "uid", None)
    if field != "warmPool":
        other = {"warmPool": PATCH["warmPool"] | {"ready": 2}}
        assert kept.fields.worth_writing(stored, other) == other
    kept.now += AGAIN
    assert kept.fields.worth_writing(stored, PATCH) == PATCH


def test_what_is_kept_says_nothing_and_what_was_to_go_is_not_missed() -> None:
    kept = Kept()
    kept.answered(pool())
    assert kept.said == []
    assert kept.fields.worth_writing({"gone": 1}, PATCH) == PATCH


def test_a_field_that_goes_is_worth_a_write() -> None:
    kept = Kept()
    kept.answered(pool(WITHOUT_SIZE))
    assert kept.fields.worth_writing(pool(WITHOUT_SIZE) | {"gone": 1}, PATCH) == PATCH


def test_a_field_that_is_kept_again_counts_again_and_is_said_again_when_it_goes() -> None:
    kept = Kept()
    kept.answered(pool(WITHOUT_SIZE))
    kept.answered(pool())
    assert kept.fields.worth_writing(pool(WITHOUT_SIZE), PATCH) == PATCH
    kept.answered(pool(WITHOUT_SIZE))
    assert len(kept.said) == 2


def test_a_later_try_that_finds_the_same_says_nothing_new() -> None:
    kept = Kept()
    for _ in range(5):
        kept.answered(pool(WITHOUT_SIZE))
        kept.now += AGAIN + timedelta(seconds=1)
    assert len(kept.said) == 1


def test_an_event_is_where_its_object_is_or_where_this_operator_may_write_it() -> None:
    kept = Kept(events_in="engines")
    kept.answered({})
    assert kept.said[0][0]["namespace"] == "engines"
    kept = Kept(events_in="engines")
    kept.answered({}, namespace="team")
    assert kept.said[0][0]["namespace"] == "team"


@pytest.mark.parametrize("status", [None, "text", []])
def test_an_answer_without_a_status_teaches_nothing(status: Any) -> None:
    kept = Kept()
    kept.answered(status)
    assert kept.said == []


def test_a_map_with_any_number_of_keys_has_a_bound() -> None:
    kept = Kept()
    kept.answered({"extended": {}}, {"extended": {f"a.b/{n}": "1" for n in range(3 * FIELDS_MAX)}})
    assert len(kept.said[0][1]) < 1024
    assert f"and {3 * FIELDS_MAX - 8} more" in kept.said[0][1]
