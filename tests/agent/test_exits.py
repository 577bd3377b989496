"""How code ends by itself: exit(), sys.exit() and os._exit() are what they are in `python script.py`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest

from linkis_ecm.agent.executors.messages import asks_to_end, exit_code
from tests.agent.operator import TICKET, TOKEN, UID, Operator
from tools.testkit.agent_process import AgentProcess

Start = Callable[..., AgentProcess]
# Each ends a script; what comes after it in the same code must not run.
ENDS = [
    "exit()", "exit(0)", "quit(None)", "exit(1)", "quit(3)", "exit('no data')", "import sys; sys.exit()",
    "import sys; sys.exit(0)", "import sys; sys.exit(None)", "import sys; sys.exit(False)", "import sys; sys.exit(1)",
    "import sys; sys.exit(True)", "import sys; sys.exit(2)", "import sys; sys.exit(-1)", "import sys; sys.exit(256)",
    "import sys; sys.exit(2**70)", "import sys; sys.exit('no data')", "import sys; sys.exit('0')",
    "import sys; sys.exit('')", "import sys; sys.exit(0.0)", "import sys; sys.exit([])", "raise SystemExit",
    "raise SystemExit(5)", "raise SystemExit(1, 2)", "import sys\nif True:\n    sys.exit(4)", "import os; os._exit(0)",
    "import os; os._exit(3)",
]  # fmt: skip


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    made = Operator(tmp_path, file_max=4 << 20)
    await made.start()
    yield made
    await made.runner.cleanup()


async def job(start: Start, operator: Operator, code: str) -> AgentProcess:
    operator.engine(mode="once", code=code)
    return await asyncio.to_thread(
        start, wait=False, ECM_MODE="once", ECM_REPORT_URL=operator.url, ECM_UID=UID, ECM_TICKET_ID=TICKET,
        ECM_AGENT_KEY=TOKEN, ECM_POD_UID=f"pod-{UID}",
    )  # fmt: skip


@pytest.mark.parametrize("code", ENDS)
async def test_a_job_ends_as_the_script_ends(start: Start, operator: Operator, code: str) -> None:
    code = f"print('before', flush=True)\n{code}\nprint('after', flush=True)"
    script = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    agent = await job(start, operator, code)
    assert await asyncio.to_thread(agent.exit_code) == script.returncode
    last = operator.reports[-1]
    assert last["state"] == ("Failed" if script.returncode else "Success"), last
    if script.returncode and "os._exit" not in code:
        assert last["reason"] == "JobFailed"
        assert f"(exit code {script.returncode})" in last["message"]
        assert script.stderr.strip() in last["message"]
    if "os._exit" not in code:
        result = orjson.loads(await operator.archive.get(UID, 0, "result.json") or b"{}")
        assert result["status"] == ("Failed" if script.returncode else "Succeed")
        printed = "".join(part["text"] for part in result["outputs"] if part.get("stream") == "stdout")
        assert printed == script.stdout
        assert ("SystemExit" in str(result["outputs"])) == bool(script.returncode)
        assert "To exit" not in str(result["outputs"])
    assert "after\n" not in agent.log("stdout")


async def test_exit_in_a_module_of_the_jobs_own_ends_the_job(start: Start, operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text("def run():\n    exit(6)\n")
    agent = await job(start, operator, f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport work; work.run()")
    assert await asyncio.to_thread(agent.exit_code) == 6


def test_sys_exit_ends_the_task_of_a_session_and_not_the_session(agent: AgentProcess) -> None:
    for code in ("import sys; sys.exit(0)", "import sys; sys.exit()", "raise SystemExit"):
        ended = agent.execute(f"print('before')\n{code}\nprint('after')")
        assert (ended["status"], [part["text"] for part in ended["outputs"]]) == ("Succeed", ["before\n"]), code
    for code, value in (("sys.exit(3)", "3"), ("sys.exit('no data')", "no data"), ("sys.exit('0')", "0")):
        ended = agent.execute(f"import sys; {code}\nprint('after')")
        error = ended["outputs"][-1]
        assert (ended["status"], error["name"], error["value"]) == ("Failed", "SystemExit", value)
        assert not {"after\n", "To exit"} & {part.get("text") for part in ended["outputs"]}
    assert agent.execute("1 + 1")["outputs"][0]["text"] == "2"


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [("exit()", "Succeed", 0), ("quit", "Succeed", 0), ("exit(3)", "Failed", 3), ("exit('no data')", "Failed", 1),
     ("%reset -f\nexit(4)", "Failed", 4)],
)  # fmt: skip
def test_exit_ends_a_session_with_its_code(start: Start, code: str, status: str, exit_code: int) -> None:
    agent = start()
    assert agent.execute(code)["status"] == status
    assert agent.exit_code() == exit_code
    assert "the code called exit(" in agent.log("stdout")


@pytest.mark.parametrize(
    ("payload", "code", "ends"),
    [
        ([], None, False),
        ([{"source": "page", "data": {}}], None, False),
        ([{"source": "ask_exit"}], 0, True),
        # Another IPython's exit(x).
        ([{"source": "ask_exit", "keepkernel": False}], 0, True),
        ([{"source": "ask_exit", "keepkernel": 1}], 1, True),
        ([{"source": "ask_exit", "keepkernel": "no data"}], 1, True),
        ([{"source": "exit", "exitCode": 7}], 7, False),
        ([{"source": "exit", "exitCode": {}}], 1, False),
    ],
)
def test_a_reply_says_how_the_code_ended(payload: list[dict[str, object]], code: int | None, ends: bool) -> None:
    assert (exit_code({"payload": payload}), asks_to_end({"payload": payload})) == (code, ends)
