"""The kernelspec executor with kernels that break the protocol's rules (tools/testkit/fake_kernel.py)."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session

from linkis_ecm.agent.executors.ipython import IPythonKernel
from linkis_ecm.agent.executors.spawn import SpawnedKernel
from tools.testkit import fake_kernel
from tools.testkit.agent_process import AgentProcess, children, command_line, until

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
