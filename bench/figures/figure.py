"""The one form of a measured figure: what a benchmark reports, what a run keeps as JSON, and what is compared.

JSON comes from processes and from files that people hand over: `figure_from` checks each field and bounds it. Must not
measure, print or read a file.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["at most", "at least"]
DIRECTIONS: tuple[Direction, ...] = ("at most", "at least")
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
MAX_NAME, MAX_TEXT, MAX_UNIT = 60, 200, 20
# Fewer samples say nothing of how far they are spread.
FEWEST_SAMPLES = 3
# The standard error of a median is that of the mean times the square root of pi / 2, where samples are normal. Single
# slow samples make the deviation larger, so that the error is too large rather than too small.
MEDIAN_TO_MEAN = math.sqrt(math.pi / 2)


class MalformedError(ValueError):
    """JSON that is no run or no figure; the message names the field.

    It may quote what stands in the file, which is written so that a terminal prints it and obeys none of it.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(one if one.isprintable() else ascii(one)[1:-1] for one in message))


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one run.

    `name` stays the same over commits, `what` is for people. `value` and `error` are in `unit`, "" for a ratio. `floor`
    is what the same run measured without us, in `floor_unit`. `error` is the standard error of the value by its
    samples, None where there are too few. `load` is the machine's load average of one minute when it was measured.
    """

    name: str
    what: str
    value: float
    unit: str = ""
    floor: float | None = None
    floor_unit: str = ""
    goal: float | None = None
    direction: Direction = "at most"
    samples: int = 1
    error: float | None = None
    load: float = 0.0

    @property
    def passed(self) -> bool | None:
        """Whether the goal is met; None where there is no goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.direction == "at most" else self.value >= self.goal

    @property
    def is_ratio(self) -> bool:
        """A value without a unit: it means the same on another machine."""
        return not self.unit

    def worsening(self, kept: float) -> float:
        """By how much the value is worse than `kept`, in its unit; negative where it is better."""
        return self.value - kept if self.direction == "at most" else kept - self.value

    def shown(self) -> str:
        """The value for people."""
        return show(self.value, self.unit)

    def goal_shown(self) -> str:
        """The goal for people; "" where there is none."""
        if self.goal is None:
            return ""
        return f"{'≤' if self.direction == 'at most' else '≥'} {self.goal:g}"


def show(value: float, unit: str) -> str:
    """A ratio with two decimals, any other value with three digits and its unit."""
    if not unit:
        return f"{value:.2f}"
    return f"{value:.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"


def standard_error(samples: Sequence[float]) -> float | None:
    """Of the median of these samples, in their unit; None where there are too few to tell."""
    if len(samples) < FEWEST_SAMPLES:
        return None
    return MEDIAN_TO_MEAN * statistics.stdev(samples) / math.sqrt(len(samples))


def as_json(figure: Figure) -> dict[str, Any]:
    """What `figure_from` reads."""
    return {
        "name": figure.name, "what": figure.what, "value": figure.value, "unit": figure.unit, "floor": figure.floor,
        "floorUnit": figure.floor_unit, "goal": figure.goal, "direction": figure.direction, "passed": figure.passed,
        "samples": figure.samples, "error": figure.error, "load": figure.load,
    }  # fmt: skip


def figure_from(found: object, where: str = "figure") -> Figure:
    """The figure that this JSON is. Raises MalformedError; `where` is what its message calls the place."""
    fields = mapping(found, where)
    direction = fields.get("direction")
    if direction not in DIRECTIONS:
        raise MalformedError(f"{where}.direction: neither {' nor '.join(DIRECTIONS)}")
    name = text(fields, "name", where, most=MAX_NAME)
    if not NAME.fullmatch(name):
        raise MalformedError(f"{where}.name: not small letters and digits with hyphens between")
    value = number(fields, "value", where)
    figure = Figure(
        name=name,
        what=text(fields, "what", where),
        value=value,
        unit=text(fields, "unit", where, most=MAX_UNIT, empty=True),
        floor=optional_number(fields, "floor", where),
        floor_unit=text(fields, "floorUnit", where, most=MAX_UNIT, empty=True),
        goal=optional_number(fields, "goal", where),
        direction=direction,
        samples=whole(fields, "samples", where, least=1),
        error=optional_number(fields, "error", where, least=0.0),
        load=number(fields, "load", where, least=0.0),
    )
    if fields.get("passed") is not figure.passed:
        raise MalformedError(f"{where}.passed: not what value, goal and direction say")
    return figure


# -- fields of JSON --------------------------------------------------------------------------------------------------


def mapping(found: object, where: str) -> Mapping[str, Any]:
    """Raises MalformedError where it is no object."""
    if not isinstance(found, dict):
        raise MalformedError(f"{where}: not an object")
    return found


def listed(fields: Mapping[str, Any], key: str, where: str, *, most: int) -> list[Any]:
    """A list of at most so many."""
    found = fields.get(key)
    if not isinstance(found, list):
        raise MalformedError(f"{where}.{key}: not a list")
    if len(found) > most:
        raise MalformedError(f"{where}.{key}: more than {most}")
    return found


def text(fields: Mapping[str, Any], key: str, where: str, *, most: int = MAX_TEXT, empty: bool = False) -> str:
    """One line of printable text, so that it can stand in a page's table."""
    found = fields.get(key)
    if not isinstance(found, str) or not (found or empty):
        raise MalformedError(f"{where}.{key}: not a text")
    if len(found) > most:
        raise MalformedError(f"{where}.{key}: longer than {most} characters")
    if not found.isprintable():
        raise MalformedError(f"{where}.{key}: has characters that are not printed")
    return found


def number(fields: Mapping[str, Any], key: str, where: str, *, least: float | None = None) -> float:
    """A finite number, at least `least`."""
    found = fields.get(key)
    # Larger ones cannot become a float; a comparison of JSON's whole numbers is exact.
    if isinstance(found, bool) or not isinstance(found, int | float) or not -1e300 < found < 1e300:
        raise MalformedError(f"{where}.{key}: not a finite number")
    if least is not None and found < least:
        raise MalformedError(f"{where}.{key}: less than {least:g}")
    return float(found)


def optional_number(fields: Mapping[str, Any], key: str, where: str, *, least: float | None = None) -> float | None:
    """As `number`, or None."""
    return None if fields.get(key) is None else number(fields, key, where, least=least)


def whole(fields: Mapping[str, Any], key: str, where: str, *, least: int = 0) -> int:
    """A whole number, at least `least`."""
    found = fields.get(key)
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found < 1 << 53:
        raise MalformedError(f"{where}.{key}: not a whole number of {least} or more")
    return found
