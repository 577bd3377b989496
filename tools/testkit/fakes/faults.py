"""What the fake API server shall do wrong, scripted by verb and resource; used up in the order it was added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from linkis_ecm.kube.resources import Resource


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the API server understands it; verbs are our client's: get, list, watch, create, patch, delete."""

    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def label(self) -> str:
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural


@dataclass(slots=True)
class Fault:
    """What happens to the calls it matches: `times` of them (None: all), after the first `skip`.

    `latency` passes before the call is executed, `answer_latency` after it was, before the answer. `status` answers
    in place of executing, with `reason` and `message`, and `retry_after` as header. `reset` cuts the connection before
    or after the call was executed. Without any of them the call is executed as ever, only late.
    """

    verb: str | None = None
    resource: Resource | None = None
    subresource: str | None = None
    when: Callable[[Call], bool] = lambda _: True
    times: int | None = 1
    skip: int = 0
    status: int = 0
    reason: str = ""
    message: str = "scripted"
    retry_after: int | None = None
    latency: float = 0.0
    answer_latency: float = 0.0
    reset: Literal["", "before", "after"] = ""
    # How often it was played.
    played: int = 0

    def matches(self, call: Call) -> bool:
        return (
            self.verb in (None, call.verb)
            and self.resource in (None, call.resource)
            and self.subresource in (None, call.subresource)
            and self.when(call)
        )


class Faults:
    """The script."""

    def __init__(self) -> None:
        self._script: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Adds to the script; the fault comes back so that a test can see whether it was played."""
        self._script.append(fault)
        return fault

    def clear(self) -> None:
        self._script.clear()

    def take(self, call: Call) -> Fault | None:
        """The fault for this call: the first in the script that matches."""
        for fault in self._script:
            if not fault.matches(call):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.played += 1
            if fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self._script.remove(fault)
            return fault
        return None
