"""What an interrupt takes, by kind of code: `python -m tools.interrupt_table`.

Starts one agent of its own, runs each member of `tools.testkit.interrupt_cases`, interrupts it, and prints a Markdown
table: how long its end took, how it ended, and whether a line behind the interrupted one ran. Each wait is bounded by
the test kit's patience.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tools.testkit.agent_process import AgentProcess, until
from tools.testkit.interrupt_cases import BEGUN, LATER, cases


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


def main(wanted: list[str]) -> int:
    agent = AgentProcess(Path(tempfile.mkdtemp()))
    worst: dict[str, float] = {}
    bad = 0
    print("| kind | code | seconds | status | went on |\n| --- | --- | --- | --- | --- |")
    try:
        for kind, name, code in cases():
            if wanted and kind not in wanted and name not in wanted:
                continue
            seconds, result = interrupted(agent, code)
            agent.outputs("1")
            wrong = result["status"] != "Cancelled" or went_on(result)
            bad += wrong
            worst[kind] = max(worst.get(kind, 0.0), seconds)
            print(f"| {kind} | `{name}` | {seconds:.2f} | {result['status']} | {'yes' if went_on(result) else 'no'} |")
            sys.stdout.flush()
    finally:
        agent.close()
    print("\n" + "; ".join(f"{kind}: {seconds:.2f} s at most" for kind, seconds in worst.items()))
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
