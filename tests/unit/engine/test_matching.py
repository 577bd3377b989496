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
    HOLD_LONGEST,
    Claim,
    Mismatch,
    Requirements,
    fitting,
    parse_claim,
    verdict,
)
from linkis_ecm.gateway.inventory.cache import PluginCache
from linkis_ecm.gateway.inventory.sizes import as_candidate
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
     "it is claimed by another call, perhaps an own one, until 2026-11-27T12:00:01.000000Z"),
    ("claim is over", {"metadata": claimed(NOW)}, None, "it is free"),
    ("claim without end", {"metadata": claimed(NOW + CLAIM_LONGEST + timedelta(seconds=1))}, None, "it is free"),
    ("no claim in it", {"metadata": {"annotations": {CLAIM_ANNOTATION: "mine"}}}, None, "it is free"),
    ("made for one task", {"metadata": {"labels": {"team": "blue", "executeOnce": ""}}}, Mismatch.NOT_SHARED,
     "it was made for one task (label executeOnce)"),
]  # fmt: skip
# What else a request may say, of an engine that would fit.
REQUESTS: list[tuple[dict[str, Any], Mismatch | None, str]] = [
    ({"new_wanted": "label executeOnce"}, Mismatch.NEW_WANTED, "a new engine is asked for (label executeOnce)"),
    ({"excluded": frozenset({"e-0.engines:9105"})}, Mismatch.EXCLUDED, "the request excludes it (label reuseExcl"),
    ({"excluded": frozenset({"e-1.engines:9105"})}, None, "it is free"),
    ({"preferred": {"taskId": "7"}}, None, "it is free"),
    ({"tenant": "red"}, None, "it is free"),
    ({"tenant": "blue"}, Mismatch.OTHER_LABELS, "it does not have the labels asked for: tenant"),
    ({"tenant": "blue", "labels": {"team": "green"}}, Mismatch.OTHER_LABELS,
     "it does not have the labels asked for: team, tenant"),
]  # fmt: skip


# An engine that is lent to the members of a group, and what else it may be.
LENT = replace(WANTED, user="pool", lent_level="group", lent_group="analysts")
SHARE = {"level": "group", "group": "analysts"}
LENDING: list[tuple[dict[str, Any], str, Mismatch | None, str]] = [
    ({}, "group", None, "it is free and has what is asked for"),
    ({"spec": {"share": None}}, "group", Mismatch.NOT_SHARED,
     "it is its owner's alone, asked is one that is lent (share: group)"),
    ({"spec": {"share": {"level": "server"}}}, "group", Mismatch.NOT_SHARED,
     "it is made to be lent (share: server), asked is one that is lent (share: group)"),
    ({"spec": {"share": SHARE | {"group": "science"}}}, "group", Mismatch.OTHER_GROUP,
     "it is for members of science, asked is analysts"),
    ({}, "user", Mismatch.NOT_SHARED, "its plugin does not share engines so now (share: user)"),
    ({}, "server", Mismatch.NOT_SHARED, "its plugin does not share engines so now (share: server)"),
    ({"status": {"share": {"shared": False, "message": "It has env of its own."}}}, "group", Mismatch.NOT_LENDABLE,
     "it is lent to nobody: It has env of its own."),
    ({"status": {"share": None}}, "group", Mismatch.NOT_LENDABLE,
     "it is lent to nobody: the operator has not decided yet"),
    ({"spec": {"user": "alice"}}, "group", Mismatch.OTHER_USER, "it belongs to user alice, asked is pool"),
    ({"spec": {"creator": "job"}}, "group", Mismatch.OTHER_CREATOR, "its creator is job"),
    ({"metadata": claimed(NOW + timedelta(seconds=1))}, "group", Mismatch.CLAIMED, "it is claimed by another call"),
    ({"status": {"engineState": "Busy"}}, "group", Mismatch.NOT_FREE, "it is Busy"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "share", "mismatch", "sentence"), LENDING)
def test_each_engine_that_is_lent_has_a_verdict(
    changes: dict[str, Any], share: str, mismatch: Mismatch | None, sentence: str
) -> None:
    lent = {"spec": {"user": "pool", "share": SHARE}, "status": {"share": {"shared": True}}, "metadata": {}}
    one = engine(**{part: known | changes.get(part, {}) for part, known in lent.items()})
    found = verdict(replace(one, share=share), LENT, NOW)
    assert (found.mismatch, found.fits) == (mismatch, mismatch is None)
    assert found.sentence.startswith(sentence)


def test_an_own_engine_is_asked_for_and_one_that_is_lent_is_none() -> None:
    lent = engine(spec={"share": SHARE}, status={"share": {"shared": True}})
    found = verdict(replace(lent, share="group"), WANTED, NOW)
    assert (found.mismatch, found.sentence) == (
        Mismatch.NOT_SHARED, "it is made to be lent (share: group), asked is an own one",
    )  # fmt: skip


def test_a_claim_names_who_borrows() -> None:
    claim = Claim("by", NOW, user="alice")
    assert parse_claim(claim.text()) == claim
    assert "user" not in Claim("by", NOW).text(), "as before, where nothing is lent"
    assert parse_claim(json.dumps({"by": "x", "until": "2026-11-27T12:00:00Z", "user": 7})) is None


@pytest.mark.parametrize(("changes", "mismatch", "sentence"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_each_engine_has_a_verdict(changes: dict[str, Any], mismatch: Mismatch | None, sentence: str) -> None:
    found = verdict(engine(**changes), WANTED, NOW)
    assert (found.mismatch, found.fits) == (mismatch, mismatch is None)
    assert found.sentence.startswith(sentence)


@pytest.mark.parametrize(("changes", "mismatch", "sentence"), REQUESTS)
def test_each_request_has_a_verdict(changes: dict[str, Any], mismatch: Mismatch | None, sentence: str) -> None:
    one = engine(spec={"tenant": "red"}, status={"serviceInstance": "E-0.engines:9105"})
    found = verdict(one, replace(WANTED, **changes), NOW)
    assert (found.mismatch, found.fits) == (mismatch, mismatch is None)
    assert found.sentence.startswith(sentence)


def test_every_mismatch_has_a_case() -> None:
    found = {case[2] for case in CASES} | {case[1] for case in REQUESTS} | {case[2] for case in LENDING}
    assert found == {None, *Mismatch}


@pytest.mark.parametrize(("share", "mismatch"), [("connection", Mismatch.NOT_SHARED), ("user", None), ("", None)])
def test_a_plugin_says_whether_its_engines_are_reused(share: str, mismatch: Mismatch | None) -> None:
    found = verdict(replace(engine(), share=share), WANTED, NOW)
    assert found.mismatch is mismatch
    assert found.fits or found.sentence == "its plugin lets nobody reuse its engines (share: connection)"


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


def test_of_engines_that_fit_the_one_with_more_of_the_preferred_labels_comes_first() -> None:
    labels = {"a": {}, "b": {"taskId": "7"}, "c": {"taskId": "7", "engineBaseInfo": "x"}, "d": {"taskId": "8"}}
    engines = [engine(name, metadata={"name": name, "labels": {"team": "blue"} | own}) for name, own in labels.items()]
    wanted = replace(WANTED, preferred={"taskId": "7", "engineBaseInfo": "x"})
    assert [found.name for found in fitting(engines, wanted, NOW)] == ["c", "b", "a", "d"]


@pytest.mark.parametrize(
    "claim",
    [
        Claim("call-1", NOW + timedelta(microseconds=1)),
        Claim("call-1", NOW, timedelta(milliseconds=1500)),
        Claim("call-1", NOW, HOLD_LONGEST, always=True),
        Claim("call-1", NOW, starting=True),
    ],
)
def test_a_claim_is_read_as_it_was_written(claim: Claim) -> None:
    assert parse_claim(claim.text()) == claim


BAD = [
    None, "", 7, "mine", "[]", "{}", '{"by": "x"}', '{"by": "x", "until": 7}', '{"by": "x", "until": "tomorrow"}',
    '{"by": "", "until": "2026-11-27T12:00:00Z"}', '{"by": 7, "until": "2026-11-27T12:00:00Z"}',
    json.dumps({"by": "x" * 65, "until": "2026-11-27T12:00:00Z"}), "[" * 300, "[" * 200,
    *(f'{{"by": "x", "until": "2026-11-27T12:00:00Z", "hold": {hold}}}'
      for hold in ("0", "-1", "3001", "NaN", "Infinity", "true", "null", '"180"', "1e400")),
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


def test_the_size_is_what_the_pod_has_and_not_what_the_spec_asks_for() -> None:
    """A pod from a warm pool whose resize was refused, and a spec that was edited: both ways."""
    plugins = PluginCache()
    unsized = [{"type": "Resized", "status": "False"}]
    small = {"resources": {"cpu": "100m", "memory": "256Mi"}, "conditions": unsized}
    spec = {"resources": {"cpu": "500m", "memory": "8Gi"}}
    seen = as_candidate(plugins, engine(spec=spec, status=small))
    found = verdict(seen, WANTED, NOW)
    assert (found.mismatch, found.sentence) == (Mismatch.TOO_SMALL, "its cpu is 100m, asked is 500m")
    assert (seen.cpu_milli, seen.memory_bytes) == (100, 256 << 20)
    large = {"resources": {"cpu": "4", "memory": "16Gi"}}
    seen = as_candidate(plugins, engine(spec=spec, status=large))
    assert (seen.cpu_milli, seen.memory_bytes) == (4000, 16 << 30)
    # While the operator has not seen the newest spec, what it has for certain.
    seen = as_candidate(
        plugins, engine(metadata={"generation": 2}, spec=spec, status=large | {"observedGeneration": 1})
    )
    assert (seen.cpu_milli, seen.memory_bytes) == (500, 8 << 30)
