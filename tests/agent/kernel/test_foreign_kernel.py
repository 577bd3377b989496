"""The kernelspec executor with kernels that break the protocol's rules (tools/testkit/agents/fake_kernel.py)."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session
from pydantic import TypeAdapter

from linkis_ecm.agent.executors import jupyter
from linkis_ecm.agent.executors.ipython import IPythonKernel
from linkis_ecm.agent.executors.spawn import SpawnedKernel
from linkis_ecm.agent.formats.names import run_type_of
from linkis_ecm.agent.settings import read_settings
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod.spec import build_pod
from linkis_ecm.engine.view import engine_view
from linkis_ecm.model.engineconn import RunType
from linkis_ecm.model.plugin import EngineConnPluginSpec
from tools.testkit.agents import fake_kernel
from tools.testkit.agents.process import AgentProcess, children, command_line, patched, until

Start = Callable[..., AgentProcess]


def foreign(folder: Path, *habits: str, **changes: object) -> dict[str, str]:
    """The agent's settings for a fake kernel with these habits."""
    place = folder / "kernels" / "fake"
    place.mkdir(parents=True)
    spec: dict[str, object] = {
        "argv": [sys.executable, fake_kernel.__file__, "{connection_file}", *habits],
        "display_name": "Fake",
        "language": "fake",
    }
    (place / "kernel.json").write_text(json.dumps(spec | changes))
    return {"ECM_EXECUTOR": "kernelspec", "ECM_KERNEL_NAME": "fake", "JUPYTER_PATH": str(folder)}


class Impatient(AgentProcess):
    """An agent that waits a second, not ten, for a kernel that may publish nothing at all."""

    arguments = patched("linkis_ecm.agent.executors.jupyter", "SILENT_AFTER = 1.0")


class Patient(AgentProcess):
    """An agent that waits a second behind the end of a task for its last output, which a busy machine delays."""

    arguments = patched("linkis_ecm.agent.executors.kernelspec", "KernelspecKernel.settles = 1.0")


# With one of these, a kernel publishes nothing until it has a task, or never.
SILENT = frozenset({"silent", "no-status"})


def started(start: Start, folder: Path, *habits: str, **changes: object) -> AgentProcess:
    """An agent over a fake kernel with these habits."""
    kind = Impatient if SILENT.intersection(habits) else Patient if "late-output" in habits else AgentProcess
    return start(kind, **foreign(folder, *habits, **changes))


def kernel_of(agent: AgentProcess) -> int:
    def found() -> int:
        return next((pid for pid in children(agent.process.pid) if "connection.json" in command_line(pid)), 0)

    return until(found)


def connection_of(agent: AgentProcess) -> dict[str, Any]:
    """The connection file of its kernel."""
    words = command_line(kernel_of(agent)).split("\0")
    told: dict[str, Any] = json.loads(Path(next(word for word in words if "connection.json" in word)).read_text())
    return told


# -- the key of the channels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fake", "python3"])
def test_the_channels_have_a_random_key(name: str, start: Start, tmp_path: Path) -> None:
    options = foreign(tmp_path / "path") | {"ECM_KERNEL_NAME": name}
    first, second = start(**options), start(**options)
    keys = [connection_of(agent)["key"] for agent in (first, second)]
    assert [len(key) for key in keys] == [64, 64]
    assert keys[0] != keys[1]


def test_code_of_a_client_without_the_key_does_not_run(start: Start, tmp_path: Path) -> None:
    agent = start(**foreign(tmp_path / "path") | {"ECM_KERNEL_NAME": "python3"})
    connection = connection_of(agent)
    context = zmq.Context()
    try:
        shell = context.socket(zmq.DEALER)
        shell.linger = 0
        shell.connect(f"tcp://127.0.0.1:{connection['shell_port']}")
        content = {"code": "forged = 1", "silent": False}
        for key in (b"", b"another", connection["key"].encode()):
            session = Session(key=key, username="")
            session.send(shell, "execute_request", content | {"code": f"known = {len(key)}"})
        answered = Session(key=connection["key"].encode())
        assert shell.poll(30_000)
        replies = [answered.deserialize(answered.feed_identities(shell.recv_multipart())[1])]
        while shell.poll(300):
            replies.append(answered.deserialize(answered.feed_identities(shell.recv_multipart())[1]))
        # The one with the key alone.
        assert [reply["content"]["execution_count"] for reply in replies] == [1]
    finally:
        context.destroy(linger=0)
    assert agent.outputs("known")[0]["text"] == "64"


@pytest.mark.parametrize("habit", ["unsigned", "forged"])
def test_output_that_is_not_signed_is_no_output(habit: str, start: Start, tmp_path: Path) -> None:
    agent = start(**foreign(tmp_path / "path", habit))
    assert [part["text"] for part in agent.outputs("print true")] == ["true\n"]
    assert "FORGED" not in agent.log("stdout")


async def test_channels_without_a_key_are_refused() -> None:
    spawned = SpawnedKernel(pid=0, directory="/nonexistent", key="", stdout_fd=-1, stderr_fd=-1)
    with pytest.raises(ValueError, match="need a key"):
        IPythonKernel(spawned, lambda _name, _data: None)


# -- signals -----------------------------------------------------------------------------------------------------------


def test_an_interrupt_reaches_a_kernel_whose_agent_was_started_in_the_background(start: Start, tmp_path: Path) -> None:
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts a job with &
    try:
        agent = start(**foreign(tmp_path / "path", "keeps-sigint"))
    finally:
        signal.signal(signal.SIGINT, ignored)
    words = Path(f"/proc/{kernel_of(agent)}/status").read_text()
    (ignored_by_kernel,) = [int(line.split()[1], 16) for line in words.splitlines() if line.startswith("SigIgn:")]
    assert not ignored_by_kernel & 1 << (signal.SIGINT - 1)


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "habits",
    [
        ("unsigned",), ("forged",), ("repeated",), ("no-delimiter",), ("no-object",), ("odd-contents",),
        ("null-parent",), ("empty-parent",), ("null-parent-status",), ("null-parent-status", "no-busy"),
        ("late-output",),
        ("unsigned", "forged", "repeated", "no-delimiter", "no-object", "odd-contents"),
    ],
)  # fmt: skip
def test_a_bad_message_is_left_out_and_costs_the_others_nothing(
    habits: tuple[str, ...], start: Start, tmp_path: Path
) -> None:
    agent = started(start, tmp_path / "path", *habits)
    for number in range(3):
        result = agent.execute(f"print {number}")
        assert result["status"] == "Succeed"
        assert [part["text"] for part in result["outputs"] if part.get("stream") == "stdout"] == [f"{number}\n"]
    words = agent.log("stderr")
    bad = not any("parent" in habit or "late" in habit for habit in habits)
    assert words.count("a message of the kernel cannot be used") == int(bad)
    assert "output was lost" not in words


def test_bad_messages_are_counted(start: Start, tmp_path: Path) -> None:
    agent = start(**foreign(tmp_path / "path", "forged"))
    for _ in range(3):
        agent.outputs("print true")
    agent.json("POST", "/v1/stop", {"graceSeconds": 5, "reason": "test"})
    assert agent.exit_code() == 0
    assert "[3 messages of the kernel were left out]" in agent.log("stderr")


@pytest.mark.parametrize(
    "habits",
    [("null-parent",), ("empty-parent",), ("no-idle",), ("no-status",), ("no-idle", "null-parent"), ("no-busy",)],
)
def test_a_kernel_that_says_little_of_its_state_is_not_waited_for(
    habits: tuple[str, ...], start: Start, tmp_path: Path
) -> None:
    agent = started(start, tmp_path / "path", *habits)
    agent.outputs("print first")
    began = time.monotonic()
    for number in range(10):
        assert [part["text"] for part in agent.outputs(f"print {number}")] == [f"{number}\n"]
    assert time.monotonic() - began < 10 * jupyter.SECOND_HALF_TIMEOUT
    assert "output was lost" not in agent.log("stderr")


def test_what_ran_before_is_not_taken_for_the_end_of_a_task(start: Start, tmp_path: Path) -> None:
    agent = start(**foreign(tmp_path / "path", "null-parent"))
    began = time.monotonic()
    assert agent.execute("sleep 3")["status"] == "Succeed"
    assert time.monotonic() - began >= 3


# -- interrupts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["signal", "message"])
@pytest.mark.parametrize("habits", [("no-busy",), ("no-busy", "no-input-message"), ("null-parent",), ("silent",)])
def test_an_interrupt_that_is_accepted_is_sent(
    habits: tuple[str, ...], mode: str, start: Start, tmp_path: Path
) -> None:
    agent = started(start, tmp_path / "path", *habits, interrupt_mode=mode)
    running = agent.start_execute("sleep 30")
    until(lambda: agent.status()["state"] == "Busy")
    assert agent.json("POST", "/v1/interrupt")[0] == 202
    status, result = running.answer()
    assert (status, result["status"]) == (200, "Cancelled")


# -- the start ---------------------------------------------------------------------------------------------------------


def test_a_kernel_that_publishes_nothing_is_used_and_the_log_says_so(start: Start, tmp_path: Path) -> None:
    agent = started(start, tmp_path / "path", "silent")
    result = agent.execute("print nothing")
    assert (result["status"], result["outputs"]) == ("Succeed", [])
    assert "[the kernel answers and publishes nothing: the outputs of its tasks will be missing]" in agent.log("stderr")
    asked = int(agent.execute("asked")["executionCount"])
    assert asked < 30


def test_a_kernel_that_drops_its_first_request_is_soon_asked_again(start: Start, tmp_path: Path) -> None:
    began = time.monotonic()
    start(**foreign(tmp_path / "path", "drops-first"))
    assert time.monotonic() - began < 25  # 1 s and what a busy machine takes; it was 30 s


# -- input -------------------------------------------------------------------------------------------------------------


def test_code_that_asks_for_input_gets_none_and_goes_on(start: Start, tmp_path: Path) -> None:
    agent = start(**foreign(tmp_path / "path"))
    texts = [part["text"] for part in agent.outputs("input")]
    assert texts == ["[the code asks for input, which nobody can give here: it gets empty lines]\n", "got ''\n"]
    assert "the code asks for input" in agent.log("stderr")
    assert agent.outputs("print next")[0]["text"] == "next\n"


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("habit", ["forks", "exits"])
def test_a_kernel_that_exits_at_once_has_not_been_ended_by_code(habit: str, start: Start, tmp_path: Path) -> None:
    agent = start(**foreign(tmp_path / "path", habit), wait=False)
    assert agent.exit_code() == 1
    words = agent.log("stdout") + agent.log("stderr")
    assert "the kernel exited with code 0 before any code ran: what starts it must stay with it" in words
    assert "exit()" not in words


def test_a_kernel_that_ends_after_a_task_is_not_told_as_an_exit_of_the_code(start: Start, tmp_path: Path) -> None:
    agent = start(**foreign(tmp_path / "path", "exits-later"))
    agent.execute("print last")
    assert agent.exit_code() == 0
    words = agent.log("stdout") + agent.log("stderr")
    assert "the kernel ended by itself with exit code 0, after its last task" in words


# -- the operator's environment ----------------------------------------------------------------------------------------

# What the test's own agent has in their place: its port, its folder, and nobody to report to.
OF_THE_TEST = {"ECM_LOG_DIR", "ECM_AGENT_PORT", "ECM_REPORT_URL"}


def environment_of(engine_type: str, *, mode: str = "computation", **plugin: object) -> dict[str, str]:
    """What the operator sets in an engine's container, with a plugin of that type."""
    metadata = {
        "namespace": "ns", "name": "w", "uid": "u1", "resourceVersion": "5", "generation": 1,
        "creationTimestamp": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    created = datetime(2026, 11, 24, 12, tzinfo=UTC)
    engine = engine_view({"metadata": metadata, "spec": {"plugin": "p", "user": "hadoop", "mode": mode}}, epoch=created)
    assert engine.spec is not None
    spec = EngineConnPluginSpec.model_validate(
        {"engineType": engine_type, "engineVersion": "1", "image": "image:1", "runTypes": ["x"],
         "defaultResources": {"cpu": "1", "memory": "1Gi"}} | plugin
    )  # fmt: skip
    pod = build_pod(engine, engine.spec, spec, ticket="t", attempt=0, settings=PodSettings(report_url="http://o:9103"))
    return {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"] if "value" in one}


@pytest.mark.parametrize("engine_type", ["python", "fake", "typescript", "my_own_2"])
def test_an_agent_starts_with_what_the_operator_sets_for_any_engine_type(
    engine_type: str, start: Start, tmp_path: Path
) -> None:
    environment = environment_of(engine_type)
    assert environment["ECM_ENGINE_TYPE"] == engine_type
    kept = {name: value for name, value in environment.items() if name not in OF_THE_TEST}
    agent = start(**kept | foreign(tmp_path / "path"))
    assert agent.outputs("print 1")[0]["text"] == "1\n"


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 480.0), ("30m", 1800.0), ("5s", 5.0), ("2400h", 86400.0)])
def test_the_agents_start_timeout_is_the_engines(timeout: str | None, seconds: float) -> None:
    environment = environment_of("python", **({"startTimeout": timeout} if timeout else {}))
    settings = read_settings(environment)
    assert settings.start_timeout == seconds


@pytest.mark.parametrize(
    ("language", "run_type"),
    [("C#", "c#"), ("C++17", "c++17"), (".net-csharp", ".net-csharp"), ("Wolfram Language", "wolfram_language"),
     ("python", "python"), ("  R ", "r"), ("é" * 40, "_" * 30)],
)  # fmt: skip
def test_a_kernels_language_is_a_run_type_that_a_plugin_can_offer(language: str, run_type: str) -> None:
    assert run_type_of(language) == run_type
    assert run_type_of(run_type) == run_type
    assert TypeAdapter(RunType).validate_python(run_type) == run_type


def test_a_run_type_is_taken_in_any_case(start: Start, tmp_path: Path) -> None:
    agent = start(**foreign(tmp_path / "path", language="C#"))
    for run_type in ("c#", "C#", "fake", "Fake"):
        assert agent.execute("print 1", runType=run_type)["status"] == "Succeed"
    assert agent.json("POST", "/v1/execute", {"code": "1", "runType": "c++"})[0] == 400
