"""A wrong word to a benchmark, or to one of its processes, is refused in one line before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.tools.commands import Answer, answers

MISSING, FILE = "/no/such/folder", str(Path(__file__))
# What is wrong, and the words of the refusal.
WRONG: list[tuple[tuple[str, ...], str]] = [
    (("bench", "odd"), "unrecognized arguments: odd"),
    (("bench.agent_claim", "--members", "0"), "--members: '0' is no whole number from 1"),
    (("bench.agent_start", "--runs", "-1"), "--runs: "),
    (("bench.agent_start", "--round-trips", "1e3"), "--round-trips: '1e3' is no whole number"),
    (("bench.chart", MISSING), f"there is no file '{MISSING}'"),
    (("bench.floods", "nosuch"), "no such flood: nosuch; there are "),
    (("bench.floods", "--seconds", "nan"), "--seconds: 'nan' is no number of seconds"),
    (("bench.floods", "--seconds", "0"), "--seconds: '0' is no number of seconds"),
    (("bench.floods", "--keep", FILE), "cannot be made"),
    (("bench.hot", "nosuch"), "no such part: nosuch"),
    (("bench.jeg", "--rounds", "1"), "--rounds must be from 2 to 50"),
    (("bench.logs", "--pairs", "²"), "--pairs: '²' is no whole number"),
    (("bench.logs", "--folder", MISSING), f"there is no folder '{MISSING}'"),
    (("bench.page", MISSING), f"there is no folder '{MISSING}'"),
    (("bench.races", "--waves", "0"), "--waves: invalid choice: 0"),
    (("bench.scale", "0"), "'0' is no whole number"),
    (("bench.scale", "9" * 5000), "is no whole number"),
    (("bench.scale", "--shards", "-2"), "--shards"),
    (("bench.scale", "--profile", f"{MISSING}/x"), f"nothing can be written into '{MISSING}'"),
    (("bench.trace", "--calls", "x"), "--calls: 'x' is no whole number"),
    (("bench.trace", "--calls", "-1"), "--calls: "),
    (("bench.trace", "--engines", "0"), "--engines: '0' is no whole number"),
    (("bench.trace", "--engines", "-1"), "--engines: "),
    (("bench.viewers", "{}"), "no JSON object with changes and folder"),
    (("bench.warm", "--json", str(Path(__file__).parent)), "is a folder: name a file"),
    # Its own processes.
    (("bench.all.keeper",), "are required: REPORT, SECONDS, CLEANING"),
    (("bench.all.keeper", f"{MISSING}/report", "1", "1", "true"), f"nothing can be written into '{MISSING}'"),
    (("bench.all.keeper", "/tmp/report", "inf", "1", "true"), "SECONDS: 'inf' is no number of seconds"),
    (("bench.all.keeper", "/tmp/report", "1", "1"), "the command is missing"),
    (("bench.floods.attacker", "nosuch", "{}"), "NAME: invalid choice: 'nosuch'"),
    (("bench.floods.attacker", "silent", "[]"), "no settings of an attack"),
    (("bench.hot.cheap_agents",), "are required: COUNT"),
    (("bench.hot.cheap_agents", "zero"), "COUNT: 'zero' is no whole number"),
    (("bench.processes.loopback", "{"), "SETTINGS: '{' is no JSON"),
    (("bench.processes.loopback", "[1]"), "SETTINGS: '[1]' is no JSON object"),
]


@pytest.fixture(scope="module")
def told() -> dict[tuple[str, ...], Answer]:
    return answers(call for call, _ in WRONG)


@pytest.mark.parametrize(("call", "says"), WRONG, ids=[" ".join(call)[:60] for call, _ in WRONG])
def test_a_wrong_word_is_refused_in_one_line(
    call: tuple[str, ...], says: str, told: dict[tuple[str, ...], Answer]
) -> None:
    done = told[call]
    assert done.code == 2, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    usage, _, refusal = done.err.rpartition(": error: ")
    assert usage.startswith("usage: python -m bench")
    assert says in refusal
    assert len(refusal.splitlines()) == 1
