"""What a session does without a task: seen where it prints or uses the processor, reported, and logged at its end."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable

import pytest

from linkis_ecm.agent.background import AFTER_TASK_SECONDS, LOOK_SECONDS, SEEN_SECONDS, Background, cpu_seconds_below
from tools.testkit.agents.process import AgentProcess, until

Start = Callable[..., AgentProcess]


class Bench:
    """A clock and a processor's time that the test sets."""

    def __init__(self) -> None:
        self.now, self.used, self.looks = 1000.0, 5.0, 0
        self.background = Background(lambda: self.now, self.cpu)
        self.background.task_ended()
        self.now += AFTER_TASK_SECONDS

    def cpu(self, _pid: int) -> float:
        self.looks += 1
        return self.used

    def look(self, pid: int = 7) -> tuple[str, float]:
        return self.background.look(pid)


def test_a_quiet_session_does_nothing() -> None:
    bench = Bench()
    assert bench.look() == ("", 0.0)
    bench.now, bench.used = bench.now + 10, bench.used + 0.1
    assert bench.look() == ("", 0.0)


def test_what_prints_and_computes_is_said_for_a_while_and_when_it_was_seen_for_ever() -> None:
    bench = Bench()
    bench.look()
    assert bench.background.printed()
    assert not bench.background.printed(), "known"
    assert bench.look() == ("background work of the session prints", bench.now)
    bench.now, bench.used = bench.now + 10, bench.used + 10
    seen = bench.now
    assert bench.look() == ("background work of the session prints and uses the processor", seen)
    bench.now = seen + SEEN_SECONDS
    assert bench.look() == ("", seen)
    assert bench.background.printed()


@pytest.mark.parametrize("share", [0.01, 0.03])
def test_a_fiftieth_of_a_processor_is_work(share: float) -> None:
    bench = Bench()
    bench.look()
    bench.now, bench.used = bench.now + 10, bench.used + 10 * share
    assert bool(bench.look()[0]) is (share > 0.02)


def test_the_rest_of_a_task_is_its_own_and_tasks_in_a_row_are_not_looked_at() -> None:
    bench = Bench()
    looks = bench.looks
    for _ in range(100):
        bench.background.task_ended()
        assert not bench.background.printed()
        bench.look()
        bench.now += 0.01
    assert bench.looks == looks
    bench.now += AFTER_TASK_SECONDS
    bench.look()
    bench.now += LOOK_SECONDS / 2
    bench.look()
    assert bench.looks == looks + 1, "two looks at the processor's time are LOOK_SECONDS apart"


def test_another_kernel_is_looked_at_anew() -> None:
    bench = Bench()
    bench.look(7)
    bench.now, bench.used = bench.now + 10, 0.1
    assert bench.look(8) == ("", 0.0)


def test_the_processors_time_is_that_of_children_too() -> None:
    before = cpu_seconds_below(os.getpid())
    child = subprocess.Popen(["sh", "-c", "while true; do :; done"])
    try:
        until(lambda: cpu_seconds_below(child.pid) > 0.2)
        assert cpu_seconds_below(os.getpid()) > before + 0.1
    finally:
        child.kill()
        child.wait()
    assert cpu_seconds_below(os.getpid()) > before + 0.2, "an ended child's too"
    assert cpu_seconds_below(child.pid) == 0


@pytest.mark.parametrize(
    ("code", "does"),
    [
        (
            "import threading, time\ndef f():\n    while True:\n        print('epoch')\n        time.sleep(0.2)\n"
            "threading.Thread(target=f, daemon=True).start()",
            "prints",
        ),
        ("import subprocess\np = subprocess.Popen('while true; do echo x; sleep 0.2; done', shell=True)", "prints"),
        ("import subprocess\np = subprocess.Popen('while true; do :; done', shell=True)", "uses the processor"),
        (
            "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f, daemon=True).start()",
            "uses the processor",
        ),
        ("import asyncio\nasync def f():\n    while True:\n        print('x')\n        await asyncio.sleep(0.2)\n"
         "t = asyncio.create_task(f())", "prints"),
    ],
)  # fmt: skip
def test_background_work_is_reported_and_its_end_is_said_in_the_log(start: Start, code: str, does: str) -> None:
    agent = start()
    assert agent.status()["background"] == ""
    agent.outputs(code)
    until(lambda: does in agent.status()["background"])
    assert agent.status()["state"] == "Idle"
    assert agent.status()["lastBackground"] > 0
    agent.call("POST", "/v1/stop", {"graceSeconds": 0, "reason": "idleTimeout"})
    agent.exit_code()
    # It may do both by now.
    assert re.search(rf"background work of the session .*{does}.*: the stop ends it", agent.log("stdout"))
