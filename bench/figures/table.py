"""What a benchmark prints: a line for each figure, with its goal where it has one, and whether it was missed.

Where the variable FILE_VARIABLE names a file, each judged figure is also appended to it as a line of JSON at once, and
`finish` appends the end: what a benchmark measured before it was killed stays. `reported` reads such a file. Must not
measure.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from bench.figures.figure import (
    DIRECTIONS,
    Figure,
    MalformedError,
    as_json,
    figure_from,
    mapping,
    standard_error,
    whole,
)

# Set by bench.all. A variable, since benchmarks start themselves anew inside the node's network.
FILE_VARIABLE = "BENCH_FIGURES"
# A line is about 300 bytes, and no benchmark has 30 figures.
MAX_FILE, MAX_FIGURES = 1 << 18, 200


class Table:
    """Lines of three columns of these widths."""

    def __init__(self, what: int, value: int, goal: int) -> None:
        self._widths = what, value, goal
        self._missed = False
        self._file = os.environ.get(FILE_VARIABLE)

    def tell(self, what: str, value: str, goal: str = "", *, met: bool = True) -> None:
        """One line, printed at once."""
        self._missed |= not met
        widths = self._widths
        mark = "" if met else "  MISSED"
        print(f"{what:<{widths[0]}} {value:>{widths[1]}} {goal:>{widths[2]}}{mark}", flush=True)

    def judge(
        self,
        name: str,
        what: str,
        value: float,
        unit: str = "",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        more_is_better: bool = False,
        floor: float | None = None,
        floor_unit: str = "",
        samples: Sequence[float] = (),
    ) -> Figure:
        """One line of a figure that is kept over commits by its name, with one of both goals or none.

        `more_is_better` is for a figure without a goal; `at_least` says the same.
        `samples`: what the value is the median of, or the same value by each round, in its unit.
        """
        goal = at_most if at_least is None else at_least
        figure = Figure(
            name=name, what=what.strip(), value=value, unit=unit, floor=floor, floor_unit=floor_unit, goal=goal,
            direction=DIRECTIONS[more_is_better or at_least is not None], samples=max(1, len(samples)),
            error=standard_error(samples), load=os.getloadavg()[0],
        )  # fmt: skip
        self.tell(what, figure.shown(), figure.goal_shown(), met=figure.passed is not False)
        self._append(as_json(figure))
        return figure

    def finish(self) -> int:
        """The exit code, 1 where a goal was missed. To be called when all has been measured."""
        code = int(self._missed)
        self._append({"end": code})
        return code

    def _append(self, line: object) -> None:
        if self._file is not None:
            with open(self._file, "a") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def reported(file: Path) -> tuple[list[Figure], int | None]:
    """The figures that a benchmark appended to its file, and the exit code that it meant; None where it did not end.

    Raises MalformedError where another thing stands there.
    """
    if not file.exists():
        return [], None
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise MalformedError(f"more than {MAX_FILE} bytes of figures")
    figures: list[Figure] = []
    end = None
    # What has no line end was being written when the benchmark was killed.
    for count, line in enumerate(data.split(b"\n")[:-1], 1):
        where = f"line {count}"
        if count > MAX_FIGURES:
            raise MalformedError(f"more than {MAX_FIGURES} figures")
        found = mapping(loaded(line, where), where)
        if end is not None:
            raise MalformedError(f"{where}: behind the end")
        if "end" in found:
            end = whole(found, "end", where)
        else:
            figures.append(figure_from(found, where))
    names = [one.name for one in figures]
    if len(set(names)) != len(names):
        raise MalformedError(f"{max(names, key=names.count)}: twice")
    return figures, end


def loaded(data: bytes, where: str) -> object:
    """The JSON of bytes whose number is bounded by the caller. Raises MalformedError."""
    try:
        return json.loads(data.decode())
    # Deep nesting ends the recursion; bytes that are no UTF-8 are a ValueError, too.
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{where}: no JSON ({type(error).__name__})") from None
