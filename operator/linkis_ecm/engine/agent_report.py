"""Parses the JSON of an agent's report (docs/design/interfaces.md) into a Report.

The agent's pod is not trusted: each field is bounded. Pure. Must not decide what a report means.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine.times import parse_time
from linkis_ecm.engine.view import EngineView, Report
from linkis_ecm.model.agent_key import AgentKeyRef
from linkis_ecm.model.states import EngineState

# What JSON's numbers hold exactly everywhere.
NUMBER_MAX = 1 << 53
# A node's clock may differ from ours; by more than a day its times say nothing.
CLOCK_SKEW = timedelta(days=1)
# What the CRD's integers and Linkis's hold. Below 2**63 by 1024, so that it is the same as a float.
INT64_MAX = 2**63 - 1024
# Numbers of one object. An agent sends fewer than ten.
FIELDS_MAX = 32


def fields_that_need_a_pass(report: Report) -> tuple[object, ...]:
    """The part of a report whose change needs a pass over its engine."""
    return report.state, report.reason, report.active, report.last_task_ended


class InvalidReportError(ValueError):
    """The report's body cannot be read. The text names the field and is sent to the agent."""


def as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidReportError("it must be a JSON object")
    return value


def text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value or len(value) > 253:
        raise InvalidReportError(f"{name} must be a text of 1 to 253 characters")
    return value


def number(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= NUMBER_MAX:
        raise InvalidReportError(f"{name} must be a whole number of 0 or more, and at most 2^53")
    return value


def state(body: Mapping[str, Any]) -> EngineState:
    try:
        return EngineState(str(body.get("state")))
    except ValueError:
        raise InvalidReportError(f"state must be one of {', '.join(EngineState)}") from None


def parse_report(
    body: Mapping[str, Any],
    engine: EngineView,
    previous: Report | None,
    now: datetime,
    *,
    agent_key: AgentKeyRef | None = None,
) -> Report:
    """Parse a report. Raises InvalidReportError. `previous` is the report before it, which has the time of the state's
    beginning. `agent_key` is the enrolment that it came with; without one that of `previous`."""
    reported_state = state(body)
    sane = Sane(engine, now)
    return Report(
        attempt=number(body, "attempt"),
        sequence=number(body, "sequence"),
        state=reported_state,
        changed=_changed_at(previous, engine, reported_state, now),
        reason=str(body.get("reason") or "")[:200],
        message=str(body.get("message") or "")[:8000],
        timings=sane.times(body.get("timings")),
        last_task_ended=sane.time(body.get("lastTaskEnded")),
        active=str(body.get("active") or "")[:200],
        last_activity=sane.time(body.get("lastActivity")),
        background=str(body.get("background") or "")[:200],
        last_background=sane.time(body.get("lastBackground")),
        task=_task(body.get("task"), sane),
        usage=_sizes(body.get("usage")),
        metrics=_numbers(body.get("metrics")),
        agent_key=agent_key or _key_before(previous, body),
    )


def _key_before(previous: Report | None, body: Mapping[str, Any]) -> AgentKeyRef | None:
    """An agent that was asked answers without its enrolment: it is the one that it reported with before."""
    if previous is None or previous.attempt != number(body, "attempt"):
        return None
    return previous.agent_key


def _changed_at(previous: Report | None, engine: EngineView, reported_state: EngineState, now: datetime) -> datetime:
    """When the engine entered a reported state, by this operator's clock; after a restart it is in the status."""
    if previous is not None and previous.state == reported_state:
        return previous.changed
    if previous is None and engine.state == reported_state:
        return parse_time(engine.text("stateSince")) or now
    return now


def _task(value: Any, sane: Sane) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {}
    return {
        "id": str(value.get("id") or "")[:128],
        "started": sane.time(value.get("started")),
        "code": str(value.get("code") or "")[:1000],
    }


class Sane:
    """Which numbers of a report are taken. Any other counts as not reported."""

    def __init__(self, engine: EngineView, now: datetime) -> None:
        self._earliest = (engine.created - CLOCK_SKEW).timestamp()
        self._latest = (now + CLOCK_SKEW).timestamp()

    def time(self, value: Any) -> float:
        """Unix seconds in the engine's life, by a clock that may be off by CLOCK_SKEW; else 0: it has not happened."""
        return float(value) if _is_number(value) and self._earliest <= value <= self._latest else 0.0

    def times(self, value: Any) -> dict[str, float]:
        """The times of an object. A time that is not taken is left out."""
        return {name: moment for name, number in _numbers(value).items() if (moment := self.time(number))}


def _sizes(value: Any) -> dict[str, float]:
    """The numbers of an object that are sizes: 0 to what the CRD's int64 holds."""
    return {name: number for name, number in _numbers(value).items() if number >= 0}


def _numbers(value: Any) -> dict[str, float]:
    """The numeric values of an object, at most FIELDS_MAX, each finite and within int64."""
    if not isinstance(value, dict):
        return {}
    numbers = {str(name)[:64]: number for name, number in value.items() if _is_number(number)}
    return dict(list(numbers.items())[:FIELDS_MAX])


def _is_number(value: Any) -> bool:
    """A finite number within int64; a comparison, because a long int cannot become a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= INT64_MAX
