"""A real agent in once mode against the operator's real endpoints: it fetches its job, runs it and keeps its result."""

from __future__ import annotations

import asyncio
import json

import orjson
import pytest

from tests.agent.operator import UID, Operator, Start, ended, started
from tools.testkit.agents.process import until


def until_told() -> str:
    """Code that goes on once there is a file `told` in the agent's folder."""
    return "import os, time\nwhile not os.path.exists('told'): time.sleep(0.01)\n"


async def test_a_once_engine_fetches_runs_and_keeps_its_job(start: Start, operator: Operator) -> None:
    # It ends once the operator was told that it runs: of changes within 50 ms the last alone is told.
    code = f"{until_told()}print('the job'); 6*7"
    operator.engine(mode="once", code=code)
    agent = await started(start, operator, ECM_MODE="once")
    await asyncio.to_thread(until, lambda: any(report["state"] == "Running" for report in operator.reports))
    (agent.home / "told").touch()
    assert await ended(agent) == 0
    states = [report["state"] for report in operator.reports]
    assert "Running" in states
    assert states[-1] == "Success"
    assert "Idle" not in states
    result = json.loads(await operator.archive.get(UID, 0, "result.json") or b"{}")
    assert result["status"] == "Succeed"
    assert [output["text"] for output in result["outputs"]] == ["the job\n", "42"]
    assert b"the job\n" in (await operator.archive.get(UID, 0, "stdout", limit=64 << 20) or b"")


async def test_a_once_engine_whose_job_fails_ends_as_failed_with_its_error(start: Start, operator: Operator) -> None:
    operator.engine(mode="once", code="raise ValueError('no data')")
    agent = await started(start, operator, ECM_MODE="once")
    assert await ended(agent) == 1
    last = operator.reports[-1]
    assert (last["state"], last["reason"]) == ("Failed", "JobFailed")
    assert "ValueError: no data" in last["message"]
    result = json.loads(await operator.archive.get(UID, 0, "result.json") or b"{}")
    assert result["status"] == "Failed"


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("import atexit, os; atexit.register(os._exit, 5); print('kept')", 5),
        ("import os; print('kept', flush=True); os._exit(5)", 5),
        ("import os; print('kept', flush=True); os.kill(os.getpid(), 9)", 137),
        ("import atexit, os; atexit.register(os.kill, os.getpid(), 9); print('kept')", 137),
    ],
)
async def test_a_job_whose_engine_fails_keeps_its_outputs_with_the_engines_verdict(
    start: Start, operator: Operator, code: str, exit_code: int
) -> None:
    operator.engine(mode="once", code=code)
    agent = await started(start, operator, ECM_MODE="once")
    assert await ended(agent) == exit_code
    assert operator.reports[-1]["state"] == "Failed"
    result = json.loads(await operator.archive.get(UID, 0, "result.json") or b"{}")
    assert (result["status"], result["reason"]) == ("Failed", "KernelDied")
    assert "kept\n" in [part.get("text") for part in result["outputs"]], result


@pytest.mark.parametrize(
    ("code", "exit_code", "shown"),
    [
        (r"print('\ud800')", 0, "?\n"),
        (r"from IPython.display import display; display({'text/plain': 'a\ud800'}, raw=True)", 0, "a?"),
        (r"raise ValueError('\ud800')", 1, "?"),
    ],
)
async def test_a_job_that_prints_invalid_characters_ends_and_its_result_is_utf8(
    start: Start, operator: Operator, code: str, exit_code: int, shown: str
) -> None:
    operator.engine(mode="once", code=code)
    agent = await started(start, operator, ECM_MODE="once")
    assert await ended(agent) == exit_code
    assert operator.reports[-1]["state"] == ("Failed" if exit_code else "Success")
    (output,) = orjson.loads(await operator.archive.get(UID, 0, "result.json") or b"{}")["outputs"]
    assert shown in (output.get("text"), output.get("value"))
    orjson.dumps(operator.reports)


@pytest.mark.parametrize("made", ["os.mkdir", "os.mkfifo", "lambda name: os.symlink('/dev/stdin', name)"])
async def test_a_job_that_replaces_its_result_file_does_not_delay_the_end(
    start: Start, operator: Operator, made: str
) -> None:
    operator.engine(mode="once", code=f"import os; ({made})(os.environ['LOG_DIRS'] + '/result.json')")
    agent = await started(start, operator, ECM_MODE="once")
    assert await ended(agent) == 0
    assert operator.reports[-1]["state"] == "Success"
    assert "the job's result could not be kept: " in agent.log("stdout")
    assert set(await operator.archive.files(UID, 0)) == {"stdout", "stderr"}


async def test_a_pipe_in_the_place_of_a_result_holds_no_engine_up_on_its_way_out(
    start: Start, operator: Operator
) -> None:
    agent = await started(start, operator)
    await asyncio.to_thread(agent.execute, "import os; os.mkfifo(os.environ['LOG_DIRS'] + '/result.json')")
    agent.process.terminate()
    assert await ended(agent) == 143
    assert set(await operator.archive.files(UID, 0)) == {"stdout", "stderr"}


async def test_a_job_that_is_stopped_before_its_end_exits_as_no_success(start: Start, operator: Operator) -> None:
    operator.engine(mode="once", code="import time\nprint('begun', flush=True)\ntime.sleep(600)")
    agent = await started(start, operator, ECM_MODE="once", ECM_STOP_GRACE="0.1")
    await asyncio.to_thread(until, lambda: "begun" in agent.log("stdout"))
    agent.process.terminate()
    assert await ended(agent) == 143
    assert operator.reports[-1]["state"] == "ShuttingDown"


async def test_a_job_that_ends_within_the_grace_of_a_stop_or_by_exit_is_a_success(
    start: Start, operator: Operator
) -> None:
    operator.engine(mode="once", code=f"print('begun', flush=True)\n{until_told()}")
    agent = await started(start, operator, ECM_MODE="once", ECM_STOP_GRACE="100")
    await asyncio.to_thread(until, lambda: "begun" in agent.log("stdout"))
    agent.process.terminate()
    await asyncio.to_thread(until, lambda: operator.reports[-1]["state"] == "ShuttingDown")
    (agent.home / "told").touch()
    assert await ended(agent) == 0
    operator.engine(mode="once", code="exit()")
    agent = await started(start, operator, ECM_MODE="once")
    assert await ended(agent) == 0
    assert "the code called exit()" in agent.log("stdout")
