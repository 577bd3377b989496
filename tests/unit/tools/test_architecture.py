"""ARCHITECTURE.md names each package and each room that the import contracts in pyproject.toml know, in their order."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


def layers(container: str) -> list[set[str]]:
    """The layers of a package by its contract, the topmost first."""
    (contract,) = [one for one in CONTRACTS if one.get("containers") == [container]]
    return [set(layer.split(" | ")) for layer in contract["layers"]]


def table(heading: str) -> list[set[str]]:
    """The names in the first column of the table under a heading, row by row."""
    _, _, rest = PAGE.partition(heading)
    rows = []
    for line in rest.splitlines():
        if line.startswith("| `"):
            rows.append(set(re.findall(r"`(\w+)/?`", line.split(" | ")[0])))
        elif rows:
            break
    return rows


def in_order(rows: list[set[str]], layers: list[set[str]]) -> bool:
    """Whether no row's names belong to a layer above an earlier row's."""
    of = {name: number for number, layer in enumerate(layers) for name in layer}
    numbers = [[of[name] for name in row] for row in rows]
    return all(max(upper) <= min(lower) for upper, lower in pairwise(numbers))


def test_the_package_table_has_each_package_of_the_contract() -> None:
    known = set().union(*layers("linkis_ecm")) - {"__main__"} | {"agent"}
    assert set().union(*table("## Packages and their direction")) == known


def test_the_direction_is_the_contracts() -> None:
    _, _, rest = PAGE.partition("## Packages and their direction")
    drawn = [set(re.split(r"\s{2,}", line)[0].split(" | ")) for line in rest.split("```")[1].strip().splitlines()]
    assert drawn == [*layers("linkis_ecm"), {"agent"}]


@pytest.mark.parametrize("package", ["controller", "engine", "gateway", "agent"])
def test_the_rooms_are_the_contracts_in_their_order(package: str) -> None:
    rows, known = table(f"### Rooms of the {package}"), layers(f"linkis_ecm.{package}")
    assert set().union(*rows) == set().union(*known)
    assert in_order(rows, known)
