"""Big files for tests of logs. Not by truncate: what is a hole is not a part of a log."""

from __future__ import annotations

from pathlib import Path

_MIB = 1 << 20


def write_zeros(path: Path, size: int) -> None:
    """A file of `size` bytes, all of them on the disk."""
    piece = bytes(_MIB)
    with path.open("wb") as file:
        for begin in range(0, size, _MIB):
            file.write(piece[: size - begin])
