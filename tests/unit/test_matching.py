"""Which free engine may be given out: a verdict for each reason, and what counts as a claim."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from linkis_ecm.engine.matching import (
    CLAIM_ANNOTATION,
    CLAIM_LONGEST,
    Claim,
    Mismatch,
    Requirements,
    fitting,
    parse_claim,
    verdict,
)
from linkis_ecm.gateway.inventory.view import KnownEngine, view_of

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
WANTED = Requirements(
    user="alice", creator="IDE", engine_type="python", engine_version="3.11", labels={"team": "blue"},
    cpu_milli=500, memory_bytes=1 << 30,
)  # fmt: skip
SIZE = {"cpu": "500m", "memory": "1Gi"}


def engine(name: str = "e", **changes: Any) -> KnownEngine:
    """What WANTED asks for, Idle; `metadata`, `spec` and `status` are merged in."""
    parts = {
        "metadata": {"namespace": "linkis", "name": name, "uid": name, "labels": {"team": "blue"}},
        "spec": {"engineType": "python", "user": "alice", "creator": "IDE", "resources": SIZE},
        "status": {"engineState": "Idle", "engineVersion": "3.11", "address": "10.0.0.1:9105"},
    }  # fmt: skip
    return view_of({part: known | changes.get(part, {}) for part, known in parts.items()})


def claimed(until: datetime) -> dict[str, Any]:
    return {"annotations": {CLAIM_ANNOTATION: Claim("call-1", until).text()}}


CASES: list[tuple[str, dict[str, Any], Mismatch | None, str]] = [
    ("fits", {}, None, "it is free and has what is asked for"),
    ("fits, Unlock", {"status": {"engineState": "Unlock"}}, None, "it is free"),
    ("another user's", {"spec": {"user": "bob"}}, Mismatch.OTHER_USER, "it belongs to user bob, asked is alice"),
    ("creator", {"spec": {"creator": "job"}}, Mismatch.OTHER_CREATOR, "its creator is job, asked is IDE"),
    ("type", {"spec": {"engineType": "shell"}}, Mismatch.OTHER_TYPE, "its type is shell, asked is python"),
    ("version", {"status": {"engineVersion": "3.12"}}, Mismatch.OTHER_VERSION, "its version is 3.12, asked is 3.11"),
    ("no labels", {"metadata": {"labels": None}}, Mismatch.OTHER_LABELS, "it does not have the labels asked for: team"),
    ("another label", {"metadata": {"labels": {"team": "red"}}}, Mismatch.OTHER_LABELS, "it does not have the labels"),
    ("more labels", {"metadata": {"labels": {"team": "blue", "app": "x"}}}, None, "it is free"),
    ("a device that nobody asked for", {"spec": {"resources": SIZE | {"extended": {"nvidia.com/gpu": 1}}}}, None,
     "it is free"),
    ("more of both", {"spec": {"resources": {"cpu": "4", "memory": "8Gi"}}}, None, "it is free"),
    ("less cpu", {"spec": {"resources": SIZE | {"cpu": "0.25"}}}, Mismatch.TOO_SMALL, "its cpu is 250m, asked is 500m"),
    ("less memory", {"spec": {"resources": SIZE | {"memory": "1000M"}}}, Mismatch.TOO_SMALL,
     "its memory is 1000000000, asked is 1Gi"),
    ("a little less", {"spec": {"resources": SIZE | {"memory": "1023Mi"}}}, Mismatch.TOO_SMALL,
     "its memory is 1023Mi, asked is 1Gi"),
    ("unknown cpu", {"spec": {"resources": {"memory": "1Gi"}}}, Mismatch.TOO_SMALL,
     "its cpu is not known, asked is 500m"),
    ("unknown size", {"spec": {"resources": None}}, Mismatch.TOO_SMALL, "its cpu is not known, asked is 500m"),
    ("no quantity", {"spec": {"resources": SIZE | {"memory": "lots"}}}, Mismatch.TOO_SMALL,
     "its memory is not known, asked is 1Gi"),
    ("deleted", {"metadata": {"deletionTimestamp": "2026-11-27T11:00:00Z"}}, Mismatch.BEING_DELETED, "it is being"),
    ("stopped", {"spec": {"desiredState": "Stopped"}}, Mismatch.STOP_REQUESTED, "its stop is asked for"),
    ("starting", {"status": {"engineState": "Starting"}}, Mismatch.NOT_FREE, "it is Starting"),
    ("busy", {"status": {"engineState": "Busy"}}, Mismatch.NOT_FREE, "it is Busy"),
    ("locked", {"status": {"engineState": "Locked"}}, Mismatch.NOT_FREE, "it is Locked"),
    ("ending", {"status": {"engineState": "ShuttingDown"}}, Mismatch.NOT_FREE, "it is ShuttingDown"),
    ("ended", {"status": {"engineState": "Failed"}}, Mismatch.NOT_FREE, "it is Failed"),
    ("no address", {"status": {"address": ""}}, Mismatch.NO_ADDRESS, "it has no address that takes code"),
    ("not ready", {"status": {"reason": "ProcessNotReady"}}, Mismatch.NOT_READY, "it does not answer its readiness"),
    ("ready again", {"status": {"reason": "ProcessReady"}}, None, "it is free"),
    ("cull soon", {"status": {"reason": "CullSoon"}}, Mismatch.ENDS_SOON, "it ends soon"),
    ("cull in the hold", {"status": {"nextCullAt": "2026-11-27T12:02:59Z"}}, Mismatch.ENDS_SOON,
     "it ends soon: its next cull is at 2026-11-27T12:02:59Z"),
    ("short idleTimeout",
     {"status": {"nextCullAt": "2026-11-27T12:02:00Z", "stateSince": "2026-11-27T11:59:00Z"}}, None, "it is free"),
    ("cull after the hold", {"status": {"nextCullAt": "2026-11-27T12:03:00Z"}}, None, "it is free"),
    ("cull long past", {"status": {"nextCullAt": "2026-11-27T11:59:59Z"}}, None, "it is free"),
    ("no time of a cull", {"status": {"nextCullAt": "9999-12-31T23:59:59-23:59"}}, None, "it is free"),
    ("claimed", {"metadata": claimed(NOW + timedelta(seconds=1))}, Mismatch.CLAIMED,
     "it is claimed by another call until 2026-11-27T12:00:01.000000Z"),
    ("claim is over", {"metadata": claimed(NOW)}, None, "it is free"),
    ("claim without end", {"metadata": claimed(NOW + CLAIM_LONGEST + timedelta(seconds=1))}, None, "it is free"),
    ("no claim in it", {"metadata": {"annotations": {CLAIM_ANNOTATION: "mine"}}}, None, "it is free"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "mismatch", "sentence"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_each_engine_has_a_verdict(changes: dict[str, Any], mismatch: Mismatch | None, sentence: str) -> None:
    found = verdict(engine(**changes), WANTED, NOW)
    assert (found.mismatch, found.fits) == (mismatch, mismatch is None)
    assert found.sentence.startswith(sentence)


def test_every_mismatch_has_a_case() -> None:
    assert {case[2] for case in CASES} == {None, *Mismatch}


def test_without_a_version_any_version_fits() -> None:
    any_version = Requirements(user="alice", creator="IDE", engine_type="python")
    assert verdict(engine(status={"engineVersion": "3.12"}), any_version, NOW).fits


@pytest.mark.parametrize("size", [None, {"cpu": "1m", "memory": "1"}])
def test_without_a_size_any_will_do(size: dict[str, str] | None) -> None:
    any_size = Requirements(user="alice", creator="IDE", engine_type="python")
    assert verdict(engine(spec={"resources": size}), any_size, NOW).fits


def test_each_size_is_asked_for_alone() -> None:
    memory = Requirements(user="alice", creator="IDE", engine_type="python", memory_bytes=3 << 20)
    assert verdict(engine(spec={"resources": {"memory": "3Mi"}}), memory, NOW).fits
    cpu = Requirements(user="alice", creator="IDE", engine_type="python", cpu_milli=2000)
    assert verdict(engine(spec={"resources": {"cpu": "1999m"}}), cpu, NOW).sentence == "its cpu is 1999m, asked is 2"


def test_the_engine_that_is_idle_longest_comes_first() -> None:
    since = {"b": "2026-11-27T11:00:00Z", "a": "2026-11-27T11:00:00Z", "c": "2026-11-27T10:00:00Z"}
    engines = [engine(name, status={"stateSince": at}) for name, at in since.items()]
    engines.append(engine("d", status={"engineState": "Busy", "stateSince": "2026-11-27T09:00:00Z"}))
    assert [found.name for found in fitting(engines, WANTED, NOW)] == ["c", "a", "b"]


def test_a_claim_is_read_as_it_was_written() -> None:
    claim = Claim("call-1", NOW + timedelta(microseconds=1))
    assert parse_claim(claim.text()) == claim


BAD = [
    None, "", 7, "mine", "[]", "{}", '{"by": "x"}', '{"by": "x", "until": 7}', '{"by": "x", "until": "tomorrow"}',
    '{"by": "", "until": "2026-11-27T12:00:00Z"}', '{"by": 7, "until": "2026-11-27T12:00:00Z"}',
    json.dumps({"by": "x" * 65, "until": "2026-11-27T12:00:00Z"}), "[" * 300, "[" * 200,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_a_malformed_claim_does_not_count(text: object) -> None:
    assert parse_claim(text) is None


def test_an_engine_without_the_devices_asked_for_is_too_small() -> None:
    wanted = replace(WANTED, extended=(("nvidia.com/gpu", 2),))
    for has, fits in ((None, False), (1, False), (2, True), (3, True)):
        resources = SIZE | ({} if has is None else {"extended": {"nvidia.com/gpu": has}})
        found = verdict(engine(spec={"resources": resources}), wanted, NOW)
        assert found.fits is fits
        if not fits:
            assert found.mismatch is Mismatch.TOO_SMALL
            assert found.sentence == f"it has {has or 0} of nvidia.com/gpu, asked is 2"
