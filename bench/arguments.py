"""What benchmarks take on their command line: a wrong word is refused in one line before anything starts.

A benchmark runs for minutes, some on a cluster. Must not know what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

MAX_COUNT = 100_000
# A day: a benchmark takes minutes.
MAX_SECONDS = 86_400.0


def count(word: str) -> int:
    """A whole number, one at least: of none there is nothing to measure."""
    if not (word.isascii() and word.isdecimal()) or not 1 <= int(word[:9]) <= MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number from 1 to {MAX_COUNT}")
    return int(word)


def seconds(word: str) -> float:
    """A time that passes."""
    try:
        found = float(word)
    except ValueError:
        found = 0.0
    if not isfinite(found) or not 0 < found <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds above 0, {MAX_SECONDS:g} at most")
    return found


def written_file(word: str) -> Path:
    """A file that can be written at the end: its folder is there."""
    found = Path(word)
    if found.is_dir():
        raise argparse.ArgumentTypeError(f"{word!r} is a folder: name a file")
    if not os.access(found.parent, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"nothing can be written into {str(found.parent)!r}: make it, or name another")
    return found


def read_file(word: str) -> Path:
    """A file that is there."""
    found = Path(word)
    if not found.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {word!r}")
    return found


def folder(word: str) -> Path:
    """A folder that is there."""
    found = Path(word)
    if not found.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {word!r}: make it, or name another")
    return found


def new_folder(word: str) -> Path:
    """A folder that is there or can be made."""
    found = Path(word)
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"the folder {word!r} cannot be made: {error.strerror}") from None
    return found


def settings(*names: str) -> Callable[[str], dict[str, Any]]:
    """JSON of an object that has these names."""

    def read(word: str) -> dict[str, Any]:
        try:
            found = json.loads(word)
        except (ValueError, RecursionError) as error:
            raise argparse.ArgumentTypeError(f"{word[:100]!r} is no JSON: {error}") from None
        if not isinstance(found, dict) or (missing := [name for name in names if name not in found]):
            raise argparse.ArgumentTypeError(
                f"{word[:100]!r} is no JSON object"
                + (f" with {' and '.join(missing)}" if isinstance(found, dict) else "")
            )
        return found

    return read


def internal(module: str, about: str | None) -> argparse.ArgumentParser:
    """The parser of a module that a benchmark starts as a process of its own."""
    summary = " ".join((about or "").partition("\n\n")[0].split())
    return argparse.ArgumentParser(prog=f"python -m {module}", description=f"Started by a benchmark. {summary}")
