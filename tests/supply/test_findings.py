"""The tables of security findings: each row has a state, and each test of a fixed row exists."""

from __future__ import annotations

import re

from tests.supply.named_tests import ROOT, missing, named

TEXT = (ROOT / "docs/security/findings.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")]
FINDINGS = [row for row in ROWS if re.fullmatch(r"[SL]\d+", row[0])]


def state(row: list[str]) -> str:
    return row[-2]


def test_each_finding_of_the_review_has_a_row_and_a_state() -> None:
    ids = [row[0] for row in FINDINGS]
    assert len(ids) == len(set(ids))
    assert {f"S{n}" for n in range(1, 28)} | {f"L{n}" for n in range(1, 12)} <= set(ids)
    assert all(re.match(r"(fixed|planned|accepted)\b", state(row)) for row in FINDINGS)
    assert all(row[1].endswith(".") for row in FINDINGS)


def test_each_fixed_finding_names_tests_that_exist() -> None:
    faults = list[str]()
    for row in ROWS:
        if not state(row).startswith("fixed"):
            continue
        if not named(row[-1]) and re.fullmatch(r"[SL]\d+", row[0]):
            faults.append(f"{row[0]}: no test")
        faults += [f"{row[0]}: {test}" for test in missing(row[-1])]
    assert faults == []
