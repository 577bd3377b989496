"""The test command runs every folder of tests; its steps run in order, and what is beside them cannot be overlooked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from tools.checks import FAST_FOLDERS, FOREIGN_FOLDERS, ROOT
from tools.steps import Step, Steps

# The longest that a wait here takes before it fails.
PATIENCE = 120.0


def test_each_folder_of_tests_is_in_a_step() -> None:
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("*/test_*.py")}
    assert folders == {*FAST_FOLDERS, *FOREIGN_FOLDERS}


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def touch(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()\n"


def until_exists(path: Path) -> str:
    """Code that goes on once there is a file."""
    return f"import os, time\nwhile not os.path.exists({str(path)!r}): time.sleep(0.01)\n"


def exit_code(use: Callable[[Steps], None]) -> int:
    """The code by which a run ends; 0 where nothing failed."""
    try:
        with Steps() as steps:
            use(steps)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def table(output: str) -> dict[str, str]:
    """The results by step, of the table at the end of a run."""
    _, _, rest = output.rpartition("\nstep ")
    rows = [line.split(maxsplit=2) for line in rest.splitlines()[1:]]
    return {row[0]: row[2] for row in rows if len(row) == 3}


def test_steps_beside_run_in_their_order_while_the_others_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"

    def use(steps: Steps) -> None:
        steps.beside("first", *python(touch(begun) + until_exists(go)))
        steps.beside("second", *python(f"import os; print('nice', os.nice(0), os.path.exists({str(go)!r}))"))
        # Neither it nor the first would end if one waited for the other's end.
        steps.run("main", *python(until_exists(begun) + touch(go)))
        steps.wait("second")

    assert exit_code(use) == 0
    output = capfd.readouterr().out
    assert "nice 19 True" in output
    assert table(output) == {"main": "ok", "first": "ok, beside the others", "second": "ok, beside the others"}


def test_a_failure_beside_ends_the_run_with_its_code_and_its_words(capfd: pytest.CaptureFixture[str]) -> None:
    undone: list[str] = []

    def use(steps: Steps) -> None:
        steps.undo += [lambda: undone.append("last"), lambda: undone.append("first")]
        steps.beside("build", *python("print('no such module'); raise SystemExit(3)"))
        steps.wait()

    assert exit_code(use) == 3
    assert undone == ["first", "last"]
    output = capfd.readouterr().out
    assert "no such module" in output
    assert table(output) == {"build": "failed (3), beside the others"}


def test_a_failure_beside_is_seen_after_the_step_that_ran_meanwhile(tmp_path: Path) -> None:
    def use(steps: Steps) -> None:
        steps.beside("build", *python("raise SystemExit(3)"))
        steps._queued["build"].result(PATIENCE)
        steps.run("main", *python("pass"))
        steps.run("never", *python(touch(tmp_path / "never")))

    assert exit_code(use) == 3
    assert not (tmp_path / "never").exists()


CHILD = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".part", "w") as file:
    file.write(str(child.pid))
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_failed_step_ends_what_runs_beside_and_what_waits_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = tmp_path / "pid"

    def use(steps: Steps) -> None:
        steps.beside("long", *python(CHILD), str(pid))
        steps.beside("never", *python("pass"))
        steps.run("main", *python(until_exists(pid) + "raise SystemExit(5)"))

    assert exit_code(use) == 5
    deadline = time.monotonic() + PATIENCE
    while lives(int(pid.read_text())):
        assert time.monotonic() < deadline, "the child of what ran beside lives on"
        time.sleep(0.01)
    assert table(capfd.readouterr().out) == {"main": "failed (5)"}


def test_a_step_beside_has_a_bound_on_its_time(capfd: pytest.CaptureFixture[str]) -> None:
    def use(steps: Steps) -> None:
        steps.beside("slow", *python("import time; time.sleep(600)"), seconds=0.1)
        steps.wait()

    assert exit_code(use) == 124
    assert "slow did not end within 0 s" in capfd.readouterr().out


def test_steps_run_together_and_each_line_names_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a", tmp_path / "b"

    def use(steps: Steps) -> None:
        # Neither would end if one waited for the other's end.
        show = "import os; print('one', os.environ['OF'])"
        steps.together(
            Step("x", python(touch(a) + until_exists(b) + show), env={"OF": "x's"}),
            Step("y", python(touch(b) + until_exists(a) + show), env={"OF": "y's"}),
        )

    assert exit_code(use) == 0
    output = capfd.readouterr().out
    assert "[x] one x's" in output
    assert "[y] one y's" in output
    assert table(output) == {"x": "ok, together", "y": "ok, together"}


def test_the_tests_that_failed_in_steps_together_are_named_after_the_table(capfd: pytest.CaptureFixture[str]) -> None:
    failed = "print('FAILED e2e/test_x.py::test_y - no answer'); print('1 failed'); raise SystemExit(1)"
    many = "for number in range(99): print('ERROR', number, 'x' * 999)"

    def use(steps: Steps) -> None:
        steps.together(Step("bad", python(failed)), Step("worse", python(f"{many}\nraise SystemExit(1)")))

    assert exit_code(use) == 1
    _, _, after = capfd.readouterr().out.rpartition("\ntotal ")
    lines = after.splitlines()[1:]
    assert lines[0] == "[bad] FAILED e2e/test_x.py::test_y - no answer"
    assert [line[: len("[worse] ERROR 9 ")] for line in lines[1:]] == [
        f"[worse] ERROR {number} " for number in range(10)
    ]
    assert max(map(len, lines)) < 400


def test_of_steps_together_the_others_end_by_themselves_where_one_fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def use(steps: Steps) -> None:
        steps.together(
            Step("good", python("print('done')")),
            Step("bad", python("raise SystemExit(3)")),
            Step("slow", python("import time; time.sleep(600)"), seconds=0.1),
        )
        steps.run("never", *python(touch(tmp_path / "never")))

    assert exit_code(use) == 3
    output = capfd.readouterr().out
    assert "[good] done" in output
    assert "slow did not end within 0 s" in output
    assert table(output) == {"good": "ok, together", "bad": "failed (3), together", "slow": "failed (124), together"}
    assert not (tmp_path / "never").exists()
