"""The fuzzer's own rules: mutations are repeated by their seed, answers are judged as they should be."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tools.fuzz import mutate
from tools.fuzz.findings import Findings
from tools.fuzz.oracle import Oracle, answers, is_message, traceback_kind
from tools.loopback.installation import Engine
from tools.loopback.sockets import Answer, is_whole, request, status_of
from tools.loopback.watch import tracebacks
from tools.testkit.gateway.harness import TOKEN

MESSAGE = b'{"method":null,"status":1,"message":"m","data":{}}'
ENGINE = Engine("real-1", "alice", "uid-1", "pod-1", "127.0.0.2:9105", "a-key")


def answer(status: int, body: bytes = MESSAGE) -> Answer:
    raw = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body
    return Answer(status, raw)


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    return Findings(tmp_path / "found", seed=7)


@pytest.fixture
def oracle(findings: Findings) -> Oracle:
    nobody: Any = None
    return Oracle(nobody, findings, [ENGINE])


def test_a_seed_makes_the_same_mutations_and_another_one_makes_others() -> None:
    valid = request("POST", "/a?b=c", headers={"X": "y"}, body=json.dumps({"a": [1, {"b": "c"}]}).encode())

    def made(seed: int) -> list[bytes]:
        rng = random.Random(seed)
        return [mutate.request(rng, valid) for _ in range(500)] + [
            mutate.json_bytes(rng, {"a": [1, {"b": "c"}]}) for _ in range(500)
        ]

    assert made(1) == made(1)
    assert made(1) != made(2)
    assert len(set(made(1))) > 700


@pytest.mark.parametrize(
    ("side", "got", "login", "found"),
    [
        ("gateway", answer(400), True, 0),
        ("gateway", answer(503), True, 0),
        ("gateway", answer(503, b"oops"), True, 1),
        ("gateway", answer(500), True, 1),
        ("operator", answer(502), True, 1),
        ("agent", answer(501), True, 0),
        ("gateway", answer(200, b"real-1"), True, 0),
        ("gateway", answer(200, b"real-1"), False, 1),
        ("gateway", answer(200, b"a-key"), True, 1),
        ("gateway", answer(200, TOKEN.encode()), True, 1),
        ("gateway", Answer(0, b""), True, 0),
        ("gateway", Answer(100, b"HTTP/1.1 100 Continue\r\n\r\n" + answer(502).raw), True, 0),
    ],
)
def test_answers_are_judged(
    oracle: Oracle, findings: Findings, side: str, got: Answer, login: bool, found: int
) -> None:
    oracle.answer(side, "route", b"GET / HTTP/1.1\r\n\r\n", got, login=login)
    assert len(findings.seen) == found


def test_what_was_sent_may_come_back(oracle: Oracle, findings: Findings) -> None:
    oracle.answer("gateway", "route", b"GET /real-1?a-key HTTP/1.1\r\n\r\n", answer(400, b"real-1 a-key"), login=False)
    assert not findings.seen


def test_metrics_name_owners_and_tickets_and_nothing_else_of_an_engine(oracle: Oracle, findings: Findings) -> None:
    scraped = answer(200, b'ecm_owned_engines{owner="alice"} 1\n# {ticket="uid-1"}')
    oracle.answer("health", "health /metrics", b"GET /metrics HTTP/1.1\r\n\r\n", scraped, login=False)
    assert not findings.seen
    for word in (b"pod-1", b"127.0.0.2:9105", b"real-1"):
        oracle.answer("health", f"{word!r} /metrics", b"GET / HTTP/1.1\r\n\r\n", answer(200, word), login=False)
    assert len(findings.seen) == 3


def test_a_finding_is_kept_once_with_its_input_or_with_what_was_sent_before(findings: Findings) -> None:
    findings.sent("route", b"before")
    assert findings.add("route", "HTTP 500 id 12345", "detail", b"input")
    assert not findings.add("route", "HTTP 500 id 67890", "detail", b"other")
    assert findings.add("gateway", "a traceback")
    (kept,) = findings.folder.glob("*.input")
    assert kept.read_bytes() == b"input"
    assert json.loads(kept.with_suffix(".json").read_text())["seed"] == 7
    (recent,) = findings.folder.glob("*.recent.json")
    assert json.loads(recent.read_text())[0]["data"] == "before"


def test_answers_are_read() -> None:
    assert [status for status, _ in answers(answer(200).raw + answer(500).raw)] == [200, 500]
    assert all(is_message(body) for _, body in answers(answer(200).raw + answer(500).raw))
    assert status_of(b"HTTP/1.1 204 No Content\r\n") == 204
    assert status_of(b"garbage") == 0
    assert is_whole(answer(200).raw)
    assert not is_whole(answer(200).raw[:-1])
    assert is_message(MESSAGE)
    assert not is_message(b"[]")


def test_tracebacks_are_found_from_where_the_last_look_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = 'x\nTraceback (most recent call last):\n  File "/a/linkis_ecm/b.py", line 1, in c\n    d\nValueError: e\n'
    log.write_text(text)
    found, end = tracebacks(log, 0)
    assert [traceback_kind(one) for one in found] == ["traceback at linkis_ecm/b.py in c: ValueError: e"]
    assert end == len(text)
    assert tracebacks(log, end) == ([], end)
