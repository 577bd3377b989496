"""What an interrupt takes, by kind of code: `python -m tools.interrupt_table` writes docs/cases/interrupts.md.

Starts one agent of its own, runs each member of `tools.testkit.agents.interrupt_cases`, interrupts it, and measures how
long its end took, how it ended, and whether a line behind the interrupted one ran. Members or kinds that are named as
arguments alone are printed and not written (`python -m tools.interrupt_table duckdb '!!'`); `--times 30` repeats each.
Each wait is bounded by the test kit's patience.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tools.testkit.agents.interrupt_cases import BEGUN, LATER, cases
from tools.testkit.agents.process import AgentProcess, until

PAGE = Path(__file__).parents[1] / "docs/cases/interrupts.md"
# What an interrupt should take where Python can (issue 13).
SOON = 1.0


class Row(NamedTuple):
    """One member: the longest of its ends, how they ended, and the load average of a minute then."""

    kind: str
    name: str
    seconds: float
    status: str
    went_on: bool
    load: float


def interrupted(agent: AgentProcess, code: str) -> tuple[float, dict[str, Any]]:
    """Seconds from the interrupt to the task's end, and its result."""
    before = agent.log("stdout").count(BEGUN)
    pending = agent.start_execute(code)
    until(lambda: agent.log("stdout").count(BEGUN) > before)
    # As a person would: not in the very moment.
    time.sleep(0.2)
    began = time.monotonic()
    agent.call("POST", "/v1/interrupt")
    _, result = pending.answer()
    return time.monotonic() - began, result


def went_on(result: dict[str, Any]) -> bool:
    """Whether a line behind the interrupted one has printed."""
    return any(LATER in output.get("text", "") for output in result["outputs"])


def measured(agent: AgentProcess, wanted: Iterable[str], times: int, seen: Callable[[Row], None]) -> list[Row]:
    """Each wanted member, or all of them; `seen` is told of each as it comes."""
    rows = []
    for kind, name, code in cases():
        if wanted and kind not in wanted and name not in wanted:
            continue
        for _ in range(times):
            seconds, result = interrupted(agent, code)
            agent.outputs("1")
            rows.append(Row(kind, name, seconds, result["status"], went_on(result), os.getloadavg()[0]))
            seen(rows[-1])
    return rows


def line(row: Row) -> str:
    """The row of the table."""
    on = "yes" if row.went_on else "no"
    return f"| {row.kind} | `{row.name}` | {row.seconds:.2f} | {row.status} | {on} | {row.load:.0f} |"


def page(rows: list[Row], now: datetime, processors: int) -> str:
    """The whole page."""
    loads = [row.load for row in rows]
    slow = [row for row in rows if row.seconds > SOON]
    wrong = [row for row in rows if row.status != "Cancelled" or row.went_on]
    kinds = dict.fromkeys(row.kind for row in rows)
    worst = {kind: max(row.seconds for row in rows if row.kind == kind) for kind in kinds}
    words = [
        f"Measured at {now:%Y-%m-%d %H:%M} UTC on {processors} processors. Load average of a minute while it ran:"
        f" {min(loads):.0f} to {max(loads):.0f} (more than {processors} means that processes waited for a processor,"
        " and the seconds are upper bounds).",
        f"{len(rows)} members: {len(rows) - len(wrong)} ended as Cancelled without a further line,"
        f" {len(rows) - len(slow)} within {SOON:g} s. At most, by kind: "
        + "; ".join(f"{kind} {seconds:.2f} s" for kind, seconds in worst.items())
        + ".",
    ]
    if slow:
        words.append("Over " + f"{SOON:g} s: " + ", ".join(f"`{row.name}` {row.seconds:.2f} s" for row in slow) + ".")
    head = "| kind | code | seconds | status | went on | load |\n| --- | --- | --- | --- | --- | --- |"
    return "\n\n".join((_HEAD, *words, "\n".join((head, *map(line, rows))))) + "\n"


_HEAD = """# What an interrupt takes

Written by `python -m tools.interrupt_table`; the code of each member is in `tools/testkit/agents/interrupt_cases.py`.
Seconds count from the request to the task's answer. A second stage begins 0.5 s after the first signal: it repeats it,
and reaches children that have left the kernel's group and code that has put something else in SIGINT's place
([the agent](../design/agent.md#interrupts-and-ends)). `tests/agent/kernel/test_interrupts.py` tries every third
member."""


def main(arguments: list[str]) -> int:
    """0 where each was Cancelled and none went on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wanted", nargs="*", help="members or kinds; all of them, and the page is written, without")
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args(arguments)
    agent = AgentProcess(Path(tempfile.mkdtemp()))
    try:
        rows = measured(agent, options.wanted, options.times, lambda row: print(line(row), flush=True))
    finally:
        agent.close()
    if not options.wanted and options.times == 1:
        PAGE.write_text(page(rows, datetime.now(UTC), os.cpu_count() or 1))
    return int(any(row.status != "Cancelled" or row.went_on for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
