"""How a long traceback is shortened: the line that began it and the line that failed stay. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def shortened(lines: Sequence[Any], most: int) -> list[str]:
    """The lines as texts, at most `most` (3 or more): the first and the last ones, and how many were left out."""
    if len(lines) <= most:
        return [str(line) for line in lines]
    head = most // 2
    tail = most - head - 1
    note = f"[... {len(lines) - head - tail} parts of the traceback left out ...]"
    return [*map(str, lines[:head]), note, *map(str, lines[len(lines) - tail :])]
