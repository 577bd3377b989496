"""The form of a kept run, and its JSON.

Files come from people: each field is checked and bounded, and an error's message names the field. Must not measure.
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.figures.figure import (
    Figure,
    MalformedError,
    as_json,
    figure_from,
    listed,
    mapping,
    number,
    text,
    whole,
)
from bench.figures.table import MAX_FIGURES, loaded

FORM = 1
MAX_FILE = 1 << 20
MAX_BENCHES, MAX_VERSIONS = 50, 50
Outcome = Literal["done", "failed", "timed out", "unreadable", "not run", "left out"]
OUTCOMES: tuple[Outcome, ...] = ("done", "failed", "timed out", "unreadable", "not run", "left out")
_COMMIT = re.compile(r"[0-9a-f]{40}|unknown")
_DATE = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one benchmark.

    "left out": this machine lacks what it needs, and nobody asked for it by name. Where it is not done, `reason` says
    why in one line, and `figures` are what it had measured until then. `left`: processes that it left behind, which
    were ended. `load`: the load average of a minute before it began.
    """

    name: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    load: float = 0.0
    left: int = 0
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True)
class Conditions:
    """Where and when a run was: `changed` where the checkout was not as the commit is; `load` before it began."""

    date: datetime.datetime
    commit: str
    changed: bool
    cores: int
    processor: str
    load: float
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """All benchmarks of one run."""

    conditions: Conditions
    results: tuple[Result, ...]

    @property
    def figures(self) -> dict[str, Figure]:
        """Those of all its benchmarks, by name."""
        return {one.name: one for result in self.results for one in result.figures}

    @property
    def is_busy(self) -> bool:
        """Others kept half of the cores busy before it began: its floors and figures swing."""
        return self.conditions.load > self.conditions.cores / 2

    @property
    def is_good(self) -> bool:
        """Each benchmark that was not left out came to its end, left nothing and met its goals; and there is one."""
        begun = [one for one in self.results if one.outcome != "left out"]
        return bool(begun) and all(
            one.outcome == "done" and not one.left and all(figure.passed is not False for figure in one.figures)
            for one in begun
        )

    def file_name(self) -> str:
        """Of its JSON: sorted by name, runs are in their order."""
        return f"{self.conditions.date:%Y-%m-%d-%H%M%S}-{self.conditions.commit[:12]}.json"


def run_as_json(run: Run) -> str:
    """What `run_from` reads."""
    conditions = run.conditions
    body = {
        "form": FORM, "date": conditions.date.strftime(_DATE), "commit": conditions.commit,
        "changed": conditions.changed, "cores": conditions.cores, "processor": conditions.processor,
        "load": conditions.load, "versions": conditions.versions,
        "benches": [
            {
                "name": one.name, "outcome": one.outcome, "reason": one.reason, "seconds": one.seconds,
                "load": one.load, "left": one.left, "figures": [as_json(figure) for figure in one.figures],
            }
            for one in run.results
        ],
    }  # fmt: skip
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def read_run(file: Path) -> Run:
    """The run in a file. Raises MalformedError, whose message begins with the file's name, and OSError."""
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE + 1)
    try:
        if len(data) > MAX_FILE:
            raise MalformedError(f"more than {MAX_FILE} bytes")
        return run_from(loaded(data, "run"))
    except MalformedError as error:
        raise MalformedError(f"{file.name}: {error}") from None


def run_from(found: object) -> Run:
    """The run that this JSON is. Raises MalformedError."""
    fields = mapping(found, "run")
    if fields.get("form") != FORM:
        raise MalformedError(f"run.form: not {FORM}")
    results = tuple(
        _result(one, f"run.benches[{place}]")
        for place, one in enumerate(listed(fields, "benches", "run", most=MAX_BENCHES))
    )
    _once([one.name for one in results], "run.benches")
    _once([figure.name for one in results for figure in one.figures], "run.benches[].figures")
    return Run(_conditions(fields), results)


def _conditions(fields: Any) -> Conditions:
    date, commit = text(fields, "date", "run"), text(fields, "commit", "run")
    try:
        at = datetime.datetime.strptime(date, _DATE).replace(tzinfo=datetime.UTC)
    except ValueError:
        raise MalformedError("run.date: not as 2026-01-31T23:59:59Z") from None
    if not _COMMIT.fullmatch(commit):
        raise MalformedError("run.commit: neither 40 hexadecimal digits nor unknown")
    if not isinstance(fields.get("changed"), bool):
        raise MalformedError("run.changed: neither true nor false")
    versions = mapping(fields.get("versions"), "run.versions")
    if len(versions) > MAX_VERSIONS:
        raise MalformedError(f"run.versions: more than {MAX_VERSIONS}")
    return Conditions(
        date=at,
        commit=commit,
        changed=fields["changed"],
        cores=whole(fields, "cores", "run", least=1),
        processor=text(fields, "processor", "run", empty=True),
        load=number(fields, "load", "run", least=0.0),
        versions={name: text(versions, name, "run.versions") for name in versions},
    )


def _result(found: object, where: str) -> Result:
    fields = mapping(found, where)
    outcome = fields.get("outcome")
    if outcome not in OUTCOMES:
        raise MalformedError(f"{where}.outcome: none of {', '.join(OUTCOMES)}")
    figures = listed(fields, "figures", where, most=MAX_FIGURES)
    return Result(
        name=text(fields, "name", where),
        outcome=outcome,
        reason=text(fields, "reason", where, most=500, empty=True),
        seconds=number(fields, "seconds", where, least=0.0),
        load=number(fields, "load", where, least=0.0),
        left=whole(fields, "left", where),
        figures=tuple(figure_from(one, f"{where}.figures[{place}]") for place, one in enumerate(figures)),
    )


def _once(names: list[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise MalformedError(f"{where}: {name} twice")
