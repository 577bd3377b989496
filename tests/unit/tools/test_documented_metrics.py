"""A metric that a document names is one that a process serves, by the name that it is served under."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.observability.expressions import series
from tools.reference import families

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "helm/linkis-ecm").rglob("*.md"),
        ROOT / "helm/linkis-ecm/values.yaml",
        ROOT / "helm/linkis-ecm/templates/NOTES.txt",
    }
)
HISTOGRAMS = {family.name for process in families().values() for family in process if family.type == "histogram"}
# What else begins so: the canary's user, a column of a table, and metrics of before, in the changelog alone.
OTHERS = {"ecm_canary", "ecm_instance"}
FORMER = {"CHANGELOG.md": {"ecm_deaf", "ecm_gateway_engines"}}
# `ecm_warm_pool_*` is all that begin so.
NAME = re.compile(r"(?<![\w/.])(ecm_[a-z_]*[a-z])(_\*)?(?![\w/.])")


def unknown(text: str) -> set[str]:
    """The names in a text that no process serves."""
    served = {*series(), *HISTOGRAMS, *OTHERS}
    return {
        name
        for name, rest in NAME.findall(text)
        if not (any(one.startswith(f"{name}_") for one in served) if rest else name in served)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_metric_in_a_document_is_one_that_is_served(page: Path) -> None:
    assert unknown(page.read_text()) - FORMER.get(page.name, set()) == set()


def test_a_counter_without_its_ending_is_found() -> None:
    assert unknown("`ecm_gateway_refusals`, ecm_gateway_refusals_total and ecm_warm_pool_*") == {"ecm_gateway_refusals"}
    assert unknown("`ecm_cold_pool_*`") == {"ecm_cold_pool"}
