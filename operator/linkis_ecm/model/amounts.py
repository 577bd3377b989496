"""Amounts of cpu, memory and disk: which texts are amounts, the least that is one, and which of two must not be above.

One rule for CRD, REST and pods; of durations the same, where 0s is never, at once, or no duration at all.

Kubernetes takes a limit of 0 for no limit at all: the container may use the whole node, an emptyDir has no size, and
limits of people count nothing. So an amount is a positive number. Must not know whose amount it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic.config import JsonDict

from linkis_ecm.model.formats import parse_duration, parse_quantity

# Kubernetes's own form of a quantity, as far as engines need it.
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
# The same without 0 and without what is under a thousandth: the part before the point has a figure that is not 0, or
# the part behind it has one and the unit is not m.
AMOUNT_PATTERN = r"^([0-9]*[1-9][0-9]*(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?|0+\.[0-9]*[1-9][0-9]*(k|M|G|T|Ki|Mi|Gi|Ti)?)$"
_AMOUNT = re.compile(AMOUNT_PATTERN)
# The context of a validation of what the API server has stored. Objects from before the rule are parsed, so that a live
# engine goes on and its plugin stays in the catalogue; `engine.pod.spec` makes no new pod with such an amount.
STORED = {"stored": True}

# Kubernetes's own form of a duration, as far as engines need it.
DURATION_PATTERN = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"
# How long a running task may go on: a node that is drained waits for it, and the kubelet's own patience has an end.
STOP_GRACE_MAX = "1h"
STOP_GRACE_TEXT = f"stopGrace must not be above {STOP_GRACE_MAX}: shorten it"
# Linkis's own default.
START_TIMEOUT = "8m"
# No time at all would fail each engine, and there is none that waits for ever: a start that hangs holds its room.
START_TIMEOUT_TEXT = "startTimeout must be 1s or more, as no engine starts in no time: raise it, or leave it out"

Kind = Literal["cpu", "memory", "disk"]
# memory: measured, an ipykernel alone has 37 MiB and an agent 10 MiB before its first import; a process that is no
# Python, such as a web server, does with less. A container with less than some MiB is not even started by its runtime.
# cpu: the least that Kubernetes counts. disk: one byte.
LEAST: dict[Kind, str] = {"cpu": "1m", "memory": "32Mi", "disk": "1"}
ZERO_TEXT = "0 is no limit for Kubernetes, so it is no amount: give a positive one or leave it out"


@dataclass(frozen=True, slots=True)
class AtMost:
    """That one amount of a spec must not be above another one. Paths are those of the JSON, below `spec`.

    Where one of the two is not given, the rule says nothing.
    """

    small: str
    large: str
    remedy: str

    @property
    def field(self) -> str:
        """Where a form shows the fault."""
        return self.small

    @property
    def text(self) -> str:
        return f"spec.{self.small} must not be above {self.large}: {self.remedy}"

    @property
    def cel(self) -> str:
        """The rule for the API server (CEL; `quantity` is there since Kubernetes 1.29). The values are of the type
        int-or-string, so each is made a text first."""
        absent = " || ".join(f"!has(self.{path})" for path in dict.fromkeys((*_parts(self.small), *_parts(self.large))))
        small, large = (f"quantity(string(self.{path}))" for path in (self.small, self.large))
        return f"{absent} || {small}.compareTo({large}) <= 0"

    def holds(self, spec: Mapping[str, Any]) -> bool:
        """The same for a spec as JSON."""
        small, large = _reached(spec, self.small), _reached(spec, self.large)
        return small is None or large is None or parse_quantity(str(small)) <= parse_quantity(str(large))


@dataclass(frozen=True, slots=True)
class Before:
    """That one duration of a spec must end before another one, or it never has an effect. Paths are as in AtMost.

    0s of the latter is never. `unless` is an entry of `overridable` by which engines make the latter longer. `first`
    may be a number of seconds.
    """

    first: str
    last: str
    remedy: str
    unless: str = ""
    in_seconds: bool = False

    @property
    def field(self) -> str:
        return self.first

    @property
    def text(self) -> str:
        return f"spec.{self.first} must be shorter than {self.last}: {self.remedy}"

    @property
    def cel(self) -> str:
        """The rule for the API server."""
        paths = dict.fromkeys((*_parts(self.first), *_parts(self.last)))
        excused = [f"!has(self.{path})" for path in paths]
        if self.unless:
            excused.append(f"(has(self.overridable) && '{self.unless}' in self.overridable)")
        excused.append(f"duration(self.{self.last}) == duration('0s')")
        last = f"duration(self.{self.last})"
        holds = (
            f"self.{self.first} < {last}.getSeconds()" if self.in_seconds else f"duration(self.{self.first}) < {last}"
        )
        return " || ".join([*excused, holds])

    def holds(self, spec: Mapping[str, Any]) -> bool:
        """The same for a spec as JSON."""
        first, last = _reached(spec, self.first), _reached(spec, self.last)
        if first is None or last is None or (self.unless and self.unless in (spec.get("overridable") or ())):
            return True
        end = parse_duration(last)
        return not end or (first if self.in_seconds else parse_duration(first)) < end


# A bound of one figure or of two, as a rule for the API server and for us.
Bound = AtMost | Before


def broken_bound(bounds: Iterable[Bound], spec: Mapping[str, Any]) -> str:
    """What is wrong with a spec as JSON, by the first bound that does not hold; "" where all do."""
    return next((bound.text for bound in bounds if not bound.holds(spec)), "")


def _parts(path: str) -> list[str]:
    """Each field on the way: a, a.b, a.b.c."""
    names = path.split(".")
    return [".".join(names[: number + 1]) for number in range(len(names))]


def _reached(spec: Any, path: str) -> Any:
    for name in path.split("."):
        spec = spec.get(name) if isinstance(spec, Mapping) else None
    return spec


def too_small(kind: Kind, text: str) -> str:
    """What is wrong with an amount under the least, without the remedy; "" where it is enough. Raises ValueError for
    what is no quantity."""
    if parse_quantity(text) >= parse_quantity(LEAST[kind]):
        return ""
    return f"is under {LEAST[kind]}, the least amount (0 is no limit for Kubernetes)"


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _whole(text: str) -> str:
    # Python's `$` also matches before a last newline; the API server's regular expressions do not.
    if text.endswith("\n"):
        raise ValueError("must not end with a line break")
    return text


def _positive(text: str, info: ValidationInfo) -> str:
    if info.context != STORED and _AMOUNT.fullmatch(text) is None:
        raise ValueError(ZERO_TEXT)
    return text


def _at_least(kind: Kind) -> AfterValidator:
    def check(text: str) -> str:
        if too_small(kind, text):
            raise ValueError(f"ask for {LEAST[kind]} or more")
        return text

    return AfterValidator(check)


WHOLE = AfterValidator(_whole)
# As Kubernetes takes them: YAML reads `cpu: 1` as a number.
_INT_OR_STRING: JsonDict = {"x-kubernetes-int-or-string": True}
# May be 0.
Quantity = Annotated[
    str,
    Field(pattern=QUANTITY_PATTERN, max_length=20, json_schema_extra=_INT_OR_STRING),
    WHOLE,
    BeforeValidator(_number_as_text),
]
# May not. The schema has the narrower pattern, which also holds for objects that are written anew.
Amount = Annotated[
    str,
    Field(pattern=QUANTITY_PATTERN, max_length=20, json_schema_extra=_INT_OR_STRING | {"pattern": AMOUNT_PATTERN}),
    WHOLE,
    BeforeValidator(_number_as_text),
    AfterValidator(_positive),
]
# Of requests, which are answered at once; a resource with less is refused by the operator (InvalidSpec).
CpuAmount = Annotated[Amount, _at_least("cpu")]
MemoryAmount = Annotated[Amount, _at_least("memory")]


def _short_grace(text: str, info: ValidationInfo) -> str:
    if info.context != STORED and parse_duration(text) > parse_duration(STOP_GRACE_MAX):
        raise ValueError(STOP_GRACE_TEXT)
    return text


def _some_time(text: str, info: ValidationInfo) -> str:
    if parse_duration(text):
        return text
    if info.context != STORED:
        raise ValueError(START_TIMEOUT_TEXT)
    # From before the rule: as if it were not given.
    return START_TIMEOUT


def _duration_rule(expression: str, message: str) -> JsonDict:
    entry: JsonDict = {"rule": expression, "message": message, "reason": "FieldValueInvalid"}
    return {"x-kubernetes-validations": [entry]}


Duration = Annotated[str, Field(pattern=DURATION_PATTERN, min_length=2, max_length=20), WHOLE]
# 0s is at once.
StopGrace = Annotated[
    Duration,
    AfterValidator(_short_grace),
    Field(json_schema_extra=_duration_rule(f"duration(self) <= duration('{STOP_GRACE_MAX}')", STOP_GRACE_TEXT)),
]
# 0s is none.
StartTimeout = Annotated[
    Duration,
    AfterValidator(_some_time),
    Field(json_schema_extra=_duration_rule("duration(self) > duration('0s')", START_TIMEOUT_TEXT)),
]
