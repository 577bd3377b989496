"""A member of a warm pool before an engine claims it: what it imports, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.kernel.test_kernelspec import kernelspec
from tests.agent.kernel.test_kernelspec import settings as kernelspec_settings
from tests.agent.operator import TICKET, UID, Operator
from tests.agent.operator import TOKEN as OF_ENGINE
from tools.testkit.agents.keys import enrolment_of
from tools.testkit.agents.member import MemberProcess, Start, engine_environment, key_of, text
from tools.testkit.agents.process import AgentProcess, until


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemberProcess]:
    """A member that the test must leave unclaimed."""
    process = MemberProcess(tmp_path_factory.mktemp("waiting"))
    yield process
    process.close()


# --- before the claim


def test_a_member_reports_that_it_waits(waiting: MemberProcess) -> None:
    report = waiting.status()
    who = {name: report[name] for name in ("namespace", "name", "uid", "attempt", "state")}
    assert who == {"namespace": "lab", "name": "", "uid": "member", "attempt": 0, "state": "Idle"}
    assert report["member"] == {"ready": True, "takes": ["env", "workingDir"]}
    assert report["timings"]["claimed"] == 0.0
    assert report["task"] is None
    assert "member of a warm pool in lab: the agent listens" in waiting.log("stdout")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/execute"), ("GET", "/v1/tasks"), ("POST", "/v1/tasks/t/cancel"), ("POST", "/v1/interrupt"),
        ("POST", "/v1/restart"), ("GET", "/v1/results/0123456789abcdef"),
    ],
)  # fmt: skip
def test_a_member_takes_no_code(waiting: MemberProcess, method: str, path: str) -> None:
    status, answer = waiting.json(method, path, {"code": "1"} if method == "POST" else None)
    assert (status, answer["error"]) == (
        409,
        "this agent waits in a warm pool and takes no code until an engine has claimed it: ask the engine",
    )
    assert waiting.call(method, path, token="other")[0] == 401


def test_whoever_has_not_the_members_key_claims_nothing(waiting: MemberProcess) -> None:
    body = {"environment": engine_environment(), "key": key_of("uid-1")}
    for token in ("", "other", key_of("uid-1")):
        assert waiting.call("POST", "/v1/claim", body, token=token)[0] == 401
    assert waiting.status()["uid"] == "member"


SECRET = "a-value-that-nobody-may-read"
BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no environment": ({"environment": None}, 400, "environment is not an object"),
    "no key": ({"key": None}, 400, "key is not an engine's key"),
    "a short key": ({"key": SECRET}, 400, "key is not an engine's key"),
    "a key that is no text": ({"key": 7}, 400, "key is not a string"),
    "a value that is no text": ({"ECM_ENV_A": 7}, 400, "environment: ECM_ENV_A is not a string"),
    "a name with =": ({"ECM_ENV_A=B": SECRET}, 400, "environment: 'ECM_ENV_A=B' is no variable's name"),
    "a NUL": ({"ECM_ENV_A": f"{SECRET}\0"}, 400, "environment: ECM_ENV_A holds a NUL character"),
    "half of a pair": ({"ECM_ENV_A": f"{SECRET}\ud800"}, 400, "environment: ECM_ENV_A has half of a surrogate pair"),
    "a large variable": ({"ECM_ENV_A": "x" * (128 << 10)}, 413, "environment: ECM_ENV_A takes more than 131072 bytes"),
    "many variables": ({f"ECM_ENV_{n}": "x" * 100_000 for n in range(25)}, 413, "all variables together take more"),
    "a large body": ({f"ECM_ENV_{n}": "x" * 100_000 for n in range(50)}, 413, "the body is over 4194304 bytes"),
    "no uid": ({"ECM_UID": ""}, 400, "ECM_UID and ECM_NAME must be the engine's"),
    "a member's uid": ({"ECM_UID": "member"}, 400, "ECM_UID and ECM_NAME must be the engine's"),
    "a bad attempt": ({"ECM_ATTEMPT": "x"}, 400, "ECM_ATTEMPT is 'x': write a whole number"),
    "a job": ({"ECM_MODE": "once"}, 400, "ECM_MODE differs from the member's"),
    "other logs": ({"ECM_LOG_DIR": "/tmp"}, 400, "ECM_LOG_DIR differs from the member's"),
    "a variable of Python's start": (
        {"ECM_ENV_PYTHONPATH": SECRET}, 400, "PYTHONPATH is read when the kernel's process starts",
    ),
    "a folder that cannot be entered": ({"ECM_WORK_DIR": "/proc/none"}, 400, "workingDir /proc/none: No such file"),
    # What another process cannot enter, and what no call ends of.
    "a folder of this process": ({"ECM_WORK_DIR": "/proc/self/fd"}, 400, "workingDir /proc/self/fd: it is in /proc"),
    "a folder below thousands": ({"ECM_WORK_DIR": "/tmp" + "/a" * 2000}, 400, "File name too long"),
    "a folder of a long name": ({"ECM_WORK_DIR": "/tmp" + "/a" * 60_000}, 400, "File name too long"),
    "a zone that is a pipe": ({"ECM_ENV_TZ": ":/proc/self/fd/1"}, 400, "environment: TZ is a path"),
    "a pipe among the zones": (
        {"ECM_ENV_TZDIR": "/proc/self/fd", "ECM_ENV_TZ": "1"}, 400, "TZDIR is read when the kernel's process starts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_claim_that_cannot_be_used_changes_nothing(waiting: MemberProcess, kind: str) -> None:
    changes, status, sentence = BAD[kind]
    body: dict[str, Any] = {"environment": engine_environment(), "key": key_of("uid-1")}
    if changes.keys() <= body.keys():
        body |= changes
    else:
        body["environment"] |= changes
    answer = waiting.json("POST", "/v1/claim", body)
    assert (answer[0], sentence in answer[1]["error"]) == (status, True), answer
    assert SECRET not in answer[1]["error"]
    assert SECRET not in waiting.log("stdout") + waiting.log("stderr")
    report = waiting.status()
    assert (report["uid"], report["state"], report["member"]["ready"]) == ("member", "Idle", True)


def test_an_agent_that_was_started_for_its_engine_cannot_be_claimed(agent: AgentProcess) -> None:
    answer = agent.json("POST", "/v1/claim", {"environment": engine_environment(), "key": key_of("uid-1")})
    assert answer[0] == 409
    assert "started for an engine of its own" in answer[1]["error"]
    assert "member" not in agent.status()


# --- what a member imports before


def preloads(folder: Path, source: str) -> dict[str, str]:
    """A member's environment that names a module of this source."""
    (folder / "modules").mkdir()
    (folder / "modules/of_pool.py").write_text(source)
    # Tests may be run from a checkout beside the installed one: the agent needs that path, too.
    paths = [str(folder / "modules"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "ECM_PRELOAD": "json, of_pool"}


def test_a_preloaded_module_is_there_and_leaves_no_trace(member: Start, tmp_path: Path) -> None:
    source = "import os, sys\nprint('said once')\nos.environ['OF_MODULE'] = 'set'\nos.environ['MINE'] = 'module'\n"
    agent = member(**preloads(tmp_path, source))
    assert agent.log("stdout").count("said once") == 1
    agent.become(engine_environment(ECM_ENV_MINE="user"))
    result = agent.execute("import sys; print('of_pool' in sys.modules, 'of_pool' in globals())")
    assert (result["executionCount"], result["outputs"]) == (
        1,
        [{"type": "text", "stream": "stdout", "text": "True False\n"}],
    )
    # What a module has set stays, and the engine's own wins.
    assert text(agent, "import os; print(os.environ['OF_MODULE'], os.environ['MINE'])") == "set user\n"
    assert text(agent, "%history").splitlines()[0].startswith("import sys")
    assert text(agent, "import gc; print(gc.isenabled(), gc.get_freeze_count() > 1000)") == "True True\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "preload not_there: ModuleNotFoundError: No module named 'not_there'"),
        ("import not_there_either", "preload of_pool: ModuleNotFoundError: No module named 'not_there_either'"),
        ("raise ValueError('x' * 9000)", "preload of_pool: ValueError: xxx"),
        ("exit(0)", "preload of_pool: SystemExit: 0"),
        ("import os; os._exit(3)", "preload of_pool: the kernel exited with code 3"),
        ("import os; os.kill(os.getpid(), 11)", "preload of_pool: the kernel was killed by SIGSEGV"),
    ],
    ids=["no such module", "an error in it", "a long error", "exit", "it ends the process", "it crashes"],
)  # fmt: skip
async def test_a_preload_that_fails_ends_the_member(
    operator: Operator, member: Start, tmp_path: Path, source: str | None, message: str
) -> None:
    wanted = preloads(tmp_path, source) if source is not None else {"ECM_PRELOAD": "not_there"}
    agent = await asyncio.to_thread(member, wait=False, ECM_REPORT_URL=operator.url, **wanted)
    assert await asyncio.to_thread(agent.exit_code) == 1
    last = operator.reports[-1]
    assert (last["state"], last["reason"], last["uid"]) == ("Failed", "PreloadFailed", "member")
    assert last["message"].startswith(message)
    assert len(last["message"]) <= 1000
    assert last["member"]["ready"] is False
    assert not any(report["member"]["ready"] for report in operator.reports)


def test_until_the_preload_is_done_a_member_cannot_be_claimed(member: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    agent = member(wait=False, **preloads(tmp_path, f"open({str(go)!r}).read()"))
    agent.wait_until_listening()
    until(lambda: agent.status()["timings"]["kernelReady"])
    assert agent.status()["state"] == "Starting"
    assert agent.status()["member"]["ready"] is False
    status, answer = agent.claim(engine_environment())
    assert (status, answer["error"]) == (503, "this member's kernel is not ready: claim another one")
    go.write_text("")
    agent.wait_until_ready()
    assert agent.status()["state"] == "Idle"
    assert agent.claim(engine_environment())[0] == 200


# --- its end


async def test_a_member_that_is_stopped_ends_and_archives_nothing(operator: Operator, member: Start) -> None:
    agent = await asyncio.to_thread(member, ECM_REPORT_URL=operator.url)
    agent.process.terminate()
    assert await asyncio.to_thread(agent.exit_code) == 143
    last = operator.reports[-1]
    assert (last["uid"], last["state"], last["reason"]) == ("member", "ShuttingDown", "Stopped")
    # Where it had tried, the operator would have refused it, and the log would say so.
    assert "archived" not in agent.log("stdout")
    assert operator.index.entries == []


async def test_an_engine_that_was_a_member_archives_its_logs_as_any_other(operator: Operator, member: Start) -> None:
    operator.engine()
    agent = await asyncio.to_thread(member, ECM_REPORT_URL=operator.url, ECM_POD_UID=enrolment_of(UID).pod_uid)
    environment = engine_environment(UID, ECM_NAME="first", ECM_TICKET_ID=TICKET, ECM_STOP_GRACE="3")
    status, _ = await asyncio.to_thread(agent.claim, environment, key=OF_ENGINE)
    assert status == 200
    agent.token = OF_ENGINE
    await asyncio.to_thread(agent.execute, "print('of the engine')")
    agent.process.terminate()
    assert await asyncio.to_thread(agent.exit_code) == 143
    last = operator.reports[-1]
    assert (last["uid"], last["name"], last["state"]) == (UID, "first", "ShuttingDown")
    assert b"of the engine" in (await operator.archive.get(UID, 0, "stdout") or b"")
    assert "stopping within 3 s" in agent.log("stdout")


def test_a_member_whose_kernel_dies_ends(member: Start) -> None:
    agent = member()
    os.kill(agent.kernel_pid(), signal.SIGKILL)
    assert agent.exit_code() == 137
    assert "KernelDied" in agent.log("stdout")


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": "/tmp" + "/a" * 60_000}, {"HOME": "/tmp" + "/a" * 1900}, {"HOME": "/proc/self/fd"},
        {"HOME": "/dev/stdin"}, {"XDG_CACHE_HOME": "/tmp" + "/a" * 60_000, "MPLCONFIGDIR": ""},
        {"MPLCONFIGDIR": "/tmp" + "/a" * 1900},
        {"MPLCONFIGDIR": "/proc/self/fd/0"}, {"TMPDIR": "/proc/self/fd/1"}, {"PATH": "/proc/self/fd"},
        {"IPYTHONDIR": "/proc/self/fd/1"}, {"LOCPATH": "/proc/self/fd"}, {"TZ": "x" * 100_000}, {"TZ": "Europe"},
        {"TERM": "x" * 100_000, "PAGER": "/proc/self/fd/1", "HTTP_PROXY": "http://[", "COLUMNS": "-1"},
    ],
    ids=lambda one: ",".join(f"{name}={value[:20]}" for name, value in one.items()),
)  # fmt: skip
def test_no_value_that_a_running_kernel_takes_ends_it(member: Start, environment: dict[str, str]) -> None:
    agent = member()
    status, answer = agent.claim(engine_environment(**{f"ECM_ENV_{name}": one for name, one in environment.items()}))
    assert status == 200, answer


def test_a_kernel_that_does_not_take_the_environment_ends_the_agent(member: Start) -> None:
    agent = member()
    os.kill(agent.kernel_pid(), signal.SIGSTOP)
    status, answer = agent.claim(engine_environment(ECM_ENV_SECRET=SECRET))
    assert status == 500
    assert answer["error"] == "the kernel did not take the engine's environment: no answer within 2 s. This member ends"
    assert agent.exit_code() == 1
    assert "ClaimFailed" in agent.log("stdout")
    assert SECRET not in agent.log("stdout") + agent.log("stderr")


# --- a kernel by its kernelspec


def test_a_kernel_by_its_kernelspec_takes_neither_variables_nor_folder(member: Start, tmp_path: Path) -> None:
    settings = kernelspec_settings(kernelspec(tmp_path / "path"))
    agent = member(ECM_WORK_DIR="/tmp", **settings)
    assert agent.status()["member"] == {"ready": True, "takes": []}
    status, answer = agent.claim(engine_environment(ECM_WORK_DIR="/tmp", ECM_ENV_A=SECRET))
    assert (status, answer["error"]) == (
        400,
        "environment: this kernel takes no variables, such as A: start this engine cold",
    )
    status, answer = agent.claim(engine_environment())
    assert (status, answer["error"]) == (
        400,
        "ECM_WORK_DIR: this kernel takes no other working directory: start this engine cold",
    )
    agent.become(engine_environment(ECM_WORK_DIR="/tmp", **settings))
    assert text(agent, "console.log(Deno.cwd())") == "/tmp\n"
    assert agent.json("POST", "/v1/restart")[0] == 200
    assert re.sub(r"\s", "", text(agent, "6 * 7")) == "42"


def test_a_kernel_by_its_kernelspec_imports_no_module(member: Start, tmp_path: Path) -> None:
    agent = member(wait=False, ECM_PRELOAD="pandas", **kernelspec_settings(kernelspec(tmp_path / "path")))
    assert agent.exit_code() == 1
    assert "PreloadFailed: preload pandas: this kernel imports no Python module" in agent.log("stdout")
