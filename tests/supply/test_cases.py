"""The tables of cases: each row says how it is now, and each test that a row names exists."""

from __future__ import annotations

import re

from tests.supply.named_tests import ROOT, missing, named

PAGES = ("docs/cases/sessions.md", "docs/cases/platform.md")
# Ids of the rows that the two lists of cases have.
WANTED = {
    "docs/cases/sessions.md": {*(f"A{n}" for n in range(1, 19)), *(f"B{n}" for n in range(1, 16))},
    "docs/cases/platform.md": {
        *(f"P{n}" for n in range(1, 37) if n not in (13, 26)), "P1b", *(f"C{n}" for n in range(1, 9)),
    },
}  # fmt: skip
# A row that is not mended says so and need not name a test.
UNHELD = ("as before", "not mended")


def rows(page: str) -> list[list[str]]:
    """The rows of a page's tables: id, what was suffered, source, before, now, test."""
    lines = (ROOT / page).read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return [row for row in cells if re.fullmatch(r"[ABCP]\d+[a-z]?", row[0])]


def test_each_case_has_a_row() -> None:
    for page in PAGES:
        ids = [row[0] for row in rows(page)]
        assert len(ids) == len(set(ids)), page
        assert set(ids) >= WANTED[page], (page, WANTED[page] - set(ids))
        assert {len(row) for row in rows(page)} == {6}, page


def test_each_row_names_tests_that_exist() -> None:
    faults = list[str]()
    for page in PAGES:
        for row in rows(page):
            if row[4].startswith(UNHELD):
                continue
            if not named(row[5]):
                faults.append(f"{row[0]}: no test")
            faults += [f"{row[0]}: {test}" for test in missing(row[5])]
    assert faults == []
