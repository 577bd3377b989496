"""Tests that a page names as `file::name`, and whether they exist. Must not know what a page is about."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def named(cell: str) -> list[tuple[str, str]]:
    """File and name of each test in a table's cell."""
    return re.findall(r"`([\w/.]+)::(\w+)`", cell)


def missing(cell: str) -> list[str]:
    """Those that do not exist, as `file::name`."""

    def exists(path: str, name: str) -> bool:
        file = ROOT / path
        return file.exists() and bool(re.search(rf"^ *(async )?def {name}\(", file.read_text(), re.MULTILINE))

    return [f"{path}::{name}" for path, name in named(cell) if not exists(path, name)]
