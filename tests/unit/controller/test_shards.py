"""What a shard may claim, by what the others have claimed and which of them may have a leader."""

from __future__ import annotations

import itertools
import random

import pytest

from linkis_ecm.controller.settings import SettingsError, from_environment
from linkis_ecm.controller.shards.assignment import (
    ALL,
    COMMON,
    UNKNOWN,
    Claim,
    assign,
    read_claims,
    rivals,
)

ENV = {
    "ECM_DATABASE_URL": "sqlite://", "ECM_INSTANCE": "ecm:9102", "ECM_REPORT_URL": "http://op:9103",
    "ECM_ARCHIVE_URL": "memory://", "ECM_WATCH_NAMESPACES": "a,b", "ECM_SHARDS_CONFIGMAP": "x-shards",
}  # fmt: skip


def claim(*names: str, term: int = 1) -> Claim:
    return Claim(frozenset(names), term, "pod")


@pytest.fixture
def env(tmp_path: object) -> dict[str, str]:
    path = f"{tmp_path}/key"
    with open(path, "wb") as file:
        file.write(b"0123456789abcdef0123456789abcdef")
    return ENV | {"ECM_TOKEN_KEY_FILE": path}


def test_what_a_shard_with_a_leader_claims_is_waited_for() -> None:
    claims = {"one": claim("a", "b", COMMON), "two": claim("c")}
    found = assign(claims, own="two", wanted={"b", "c", COMMON}, led=["one"], holder="p", begins=True)
    assert found.waiting == {"b": "one", COMMON: "one"}
    assert found.changed == {"two": Claim(frozenset({"c"}), 2, "p")}


def test_what_a_shard_without_a_leader_claims_is_taken_out_of_its_claim() -> None:
    claims = {"one": claim("a", "b"), "two": claim("c")}
    found = assign(claims, own="two", wanted={"b", "c"}, led=[], holder="p", begins=True)
    assert found.waiting == {}
    assert found.changed == {"one": claim("a"), "two": Claim(frozenset({"b", "c"}), 2, "p")}


def test_a_leader_that_begins_writes_though_it_claims_what_its_shard_had() -> None:
    """So the write of another shard, which saw no leader here, comes too late."""
    claims = {"one": claim("a", term=7)}
    begins = assign(claims, own="one", wanted={"a"}, led=[], holder="pod", begins=True)
    assert begins.changed["one"].term == 8
    assert assign(claims, own="one", wanted={"a"}, led=[], holder="pod", begins=False).changed == {}


def test_a_neighbour_that_has_written_nothing_may_serve_everything_while_it_has_a_leader() -> None:
    claims = read_claims({}, ["old"])
    assert claims == {"old": UNKNOWN}
    assert rivals(claims, own="two", wanted={"b"}) == ["old"]
    assert assign(claims, own="two", wanted={"b"}, led=["old"], holder="p", begins=True).waiting == {"b": "old"}
    free = assign(claims, own="two", wanted={"b"}, led=[], holder="p", begins=True)
    assert free.changed == {"old": Claim(frozenset()), "two": Claim(frozenset({"b"}), 1, "p")}


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", '{"namespaces": "a", "term": 1, "holder": ""}', '{"namespaces": [1], "term": 1,'
             ' "holder": ""}', '{"namespaces": [], "term": "1", "holder": ""}', "[" * 100_000,
             *(f'{{"namespaces": [], "term": {term}, "holder": ""}}' for term in ("9" * 4300, "-1", "true", "1.5"))]
)  # fmt: skip
def test_a_claim_that_cannot_be_read_is_one_on_everything(text: str) -> None:
    assert read_claims({"one": text}, ()) == {"one": UNKNOWN}


def test_claims_are_read_as_they_are_written() -> None:
    assert read_claims({"one": claim("a", "b").text()}, ()) == {"one": claim("a", "b")}


def test_an_operator_of_all_namespaces_waits_for_those_that_a_shard_still_serves() -> None:
    claims = {"one": claim("a", COMMON), "gone": claim("b")}
    found = assign(claims, own="x", wanted={ALL, COMMON}, led=["one"], holder="p", begins=True)
    assert found.waiting == {"a": "one", COMMON: "one"}
    assert found.changed["gone"].namespaces == frozenset()
    assert ALL in found.changed["x"].namespaces


def test_of_any_shards_none_claims_what_a_led_one_has() -> None:
    """Random claims; the leaders claim one after the other, in any order."""
    rng = random.Random(5)
    names = ["a", "b", "c", "d", COMMON]
    for _ in range(300):
        shards = {f"s{n}": {name for name in names if rng.random() < 0.5} for n in range(4)}
        claims = {shard: claim(*(name for name in names if rng.random() < 0.4)) for shard in shards}
        claimed: dict[str, Claim] = {}
        for own, wanted in shards.items():
            # Of the claims of before nobody leads any more; those of this round do.
            found = assign(claims, own=own, wanted=wanted, led=list(claimed), holder="p", begins=True)
            claims |= found.changed
            claimed[own] = claims[own]
            assert claimed[own].namespaces == wanted - found.waiting.keys()
        for one, other in itertools.combinations(claimed.values(), 2):
            assert not one.namespaces & other.namespaces


def test_an_operator_reads_its_neighbours_and_the_addresses_of_its_namespaces(env: dict[str, str]) -> None:
    found = from_environment(
        env | {"ECM_SHARD_NEIGHBOURS": '{"x-operator-c": ["c"]}', "ECM_REPORT_URLS": '{"a": "http://a:9103"}'}
    )
    assert found.neighbours == {"x-operator-c": ("c",)}
    assert found.report_urls == {"a": "http://a:9103"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ECM_SHARD_NEIGHBOURS", '{"x-operator-c": ["b"]}', "leave one out"),
        ("ECM_SHARD_NEIGHBOURS", '{"linkis-ecm-operator": ["c"]}', "own Lease"),
        ("ECM_SHARD_NEIGHBOURS", '["c"]', "write a JSON object of lists of texts"),
        ("ECM_SHARD_NEIGHBOURS", '{"x": "c"}', "write a JSON object of lists of texts"),
        ("ECM_SHARD_NEIGHBOURS", '{"x": ["C"]}', "which is no namespace"),
        ("ECM_REPORT_URLS", '{"a": "https://a:9103"}', "write scheme, host and port only"),
        ("ECM_REPORT_URLS", "{", "write a JSON object of texts"),
    ],
)
def test_settings_of_shards_that_cannot_be_are_refused(env: dict[str, str], name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        from_environment(env | {name: value})


@pytest.mark.parametrize("missing", ["ECM_WATCH_NAMESPACES", "ECM_SHARDS_CONFIGMAP"])
def test_a_shard_has_namespaces_and_a_place_for_its_claim(env: dict[str, str], missing: str) -> None:
    with pytest.raises(SettingsError, match=f"{missing} is not"):
        from_environment(env | {"ECM_SHARD_NEIGHBOURS": '{"x-operator-c": ["c"]}'} | {missing: ""})
