"""An error of what the code runs (a file, an inner cell, a program) fails the task, and no further line runs."""

from __future__ import annotations

import orjson
import pytest

from tests.agent.operator import UID, Operator, Start, ended, started
from tools.interrupt_table import interrupted
from tools.testkit.agents.interrupt_cases import BEGUN
from tools.testkit.agents.process import AgentProcess

FILES = {
    "bad.py": "before = 1\n1/0\n", "exits.py": "import sys\nsys.exit(3)\n", "leaves.py": "exit(3)\n",
    "wrong.py": "def f(:\n", "bad.ipy": "%who\n1/0\n", "ends.py": "import sys\nsys.exit(0)\n",
    "ends.ipy": "import sys\nsys.exit(0)\n",
}  # fmt: skip
WRITE = f"for name, text in {FILES!r}.items(): print(text, file=open(name, 'w'), end='')\n"
# Code, and the error that its task ends with.
FAILS = {
    "%run bad.py": "ZeroDivisionError",
    "%run -i bad.py": "ZeroDivisionError",
    "%run -t bad.py": "ZeroDivisionError",
    "%run -m bad": "ZeroDivisionError",
    "%run bad.ipy": "ZeroDivisionError",
    "%run exits.py": "SystemExit",
    "%run leaves.py": "SystemExit",
    "%run -m exits": "SystemExit",
    "%run wrong.py": "SyntaxError",
    "get_ipython().run_cell('1/0')": "ZeroDivisionError",
    "get_ipython().run_cell('def f(:')": "SyntaxError",
    "get_ipython().run_cell_magic('capture', 'out', 'print(5)\\n1/0')": "ZeroDivisionError",
    "get_ipython().run_cell_magic('script', 'nosuchprog', 'words')": "FileNotFoundError",
    "%cd /nonexistent": "FileNotFoundError",
}
GOES_ON = [
    "%run ends.py", "%run ends.ipy", "%run -m ends", "%run -e exits.py", "%cd -q .",
    "try: 1/0\nexcept ZeroDivisionError: get_ipython().showtraceback()",
    "try: get_ipython().run_cell('1/0')\nexcept ZeroDivisionError: pass",
    "try: open('/nonexistent')\nexcept OSError: get_ipython().run_line_magic('cd', '.')",
]  # fmt: skip


@pytest.mark.parametrize("code", FAILS)
def test_an_error_of_what_a_sessions_code_runs_fails_its_task(agent: AgentProcess, code: str) -> None:
    agent.execute(WRITE)
    done = agent.execute(f"{code}\nprint('went on')")
    assert (done["status"], done["reason"]) == ("Failed", FAILS[code]), done
    assert "went on\n" not in {part.get("text") for part in done["outputs"]}
    assert [part["name"] for part in done["outputs"] if part["type"] == "error"] == [FAILS[code]]
    assert agent.execute("1 + 1")["outputs"][0]["text"] == "2"


@pytest.mark.parametrize("code", GOES_ON)
def test_code_goes_on_behind_what_ends_well_or_is_handled(agent: AgentProcess, code: str) -> None:
    agent.execute(WRITE)
    done = agent.execute(f"{code}\nprint('went on')")
    assert done["status"] == "Succeed", done
    assert done["outputs"][-1].get("text", "").endswith("went on\n")


def test_a_magic_whose_code_fails_has_done_its_work(agent: AgentProcess) -> None:
    agent.execute(WRITE)
    agent.execute("%run bad.py")
    assert agent.execute("before")["outputs"][0]["text"] == "1"
    assert agent.execute("%%capture out\nprint(5)\n1/0")["reason"] == "ZeroDivisionError"
    assert agent.execute("out.stdout")["outputs"][0]["text"] == "'5\\n'"
    shown = agent.execute("%run bad.py")["outputs"][-1]["traceback"]
    assert "bad.py" in "".join(shown)


@pytest.mark.parametrize(
    "code",
    ["%run bad.py", "%cd /nonexistent", "%pip nonsense", "%%bash\nexit 3", "get_ipython().run_cell('1/0')",
     "get_ipython().run_cell_magic('script', 'nosuchprog', 'words')", "exit(3)", "import os; os.system(b'a\\0')",
     "get_ipython().run_cell_magic('timeit', '-n1 -r1', 'raise ExceptionGroup(\"several\", [ValueError()])')"],
)  # fmt: skip
def test_a_traceback_shows_no_line_of_the_product(start: Start, code: str) -> None:
    agent = start()
    agent.execute(WRITE)
    done = agent.execute(code)
    assert done["status"] == "Failed"
    assert "linkis_ecm" not in "".join(done["outputs"][-1]["traceback"])


def test_a_file_that_is_interrupted_shows_one_error_with_its_line(agent: AgentProcess) -> None:
    source = f"import time\nprint({BEGUN!r}, flush=True); time.sleep(600)"
    agent.execute(f"print({source!r}, file=open('long.py', 'w'), end='')")
    _, done = interrupted(agent, "%run long.py\nprint('went on')")
    (error,) = [part for part in done["outputs"] if part["type"] == "error"]
    assert (done["status"], error["name"]) == ("Cancelled", "KeyboardInterrupt")
    assert "long.py" in "".join(error["traceback"])


def test_an_error_that_was_raised_again_in_another_task_is_shown_again(agent: AgentProcess) -> None:
    agent.execute("try: 1/0\nexcept ZeroDivisionError as error: kept = error")
    for _ in range(2):
        assert agent.execute("raise kept")["outputs"][-1]["type"] == "error"


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("%run bad.py", 1), ("%run exits.py", 3), ("%run leaves.py", 3), ("%run wrong.py", 1), ("%cd /nonexistent", 1),
     ("get_ipython().run_cell('1/0')", 1), ("get_ipython().run_cell('import sys; sys.exit(4)')", 4),
     ("get_ipython().run_cell('exit(0)')", 0),
     ("get_ipython().run_cell_magic('capture', '', 'import sys; sys.exit(5)')", 5)],
)  # fmt: skip
async def test_a_job_ends_with_the_exit_code_of_what_its_code_ran(
    start: Start, operator: Operator, code: str, exit_code: int
) -> None:
    operator.engine(mode="once", code=f"{WRITE}{code}\nprint('went on')")
    agent = await started(start, operator, ECM_MODE="once")
    assert await ended(agent) == exit_code
    assert operator.reports[-1]["state"] == ("Failed" if exit_code else "Success")
    result = orjson.loads(await operator.archive.get(UID, 0, "result.json") or b"{}")
    assert "went on\n" not in {part.get("text") for part in result["outputs"]}


async def test_an_uncaught_interrupt_of_the_jobs_own_is_130(start: Start, operator: Operator) -> None:
    operator.engine(mode="once", code="raise KeyboardInterrupt")
    agent = await started(start, operator, ECM_MODE="once")
    assert await ended(agent) == 130
    assert operator.reports[-1]["state"] == "Failed"


async def test_a_job_that_makes_errors_of_warnings_ends_without_one_of_ours(start: Start, operator: Operator) -> None:
    operator.engine(mode="once", code="import warnings; warnings.simplefilter('error')")
    agent = await started(start, operator, ECM_MODE="once")
    assert await ended(agent) == 0
    logs = agent.log("stdout") + agent.log("stderr")
    assert "Exception in message handler" not in logs
    assert "DeprecationWarning" not in logs
