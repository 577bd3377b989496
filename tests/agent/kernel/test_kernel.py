"""The agent's end of a kernel's channels, with the kernel's end in the test: what comes late and what never comes."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session

from linkis_ecm.agent.executors import jupyter as kernel_module
from linkis_ecm.agent.executors.base import ExecutorGoneError
from linkis_ecm.agent.executors.ipython import IPythonKernel
from linkis_ecm.agent.executors.spawn import SpawnedKernel
from linkis_ecm.agent.outputs import Outputs
from tools.testkit.agents.process import PATIENCE


class Harmless(IPythonKernel):
    """There is no process behind it."""

    def _signal(self, number: int) -> None: ...


class Peer:
    """A kernel's end of both channels, and the agent's."""

    def __init__(self, *, bound: bool = True) -> None:
        # A short path: a unix socket's has 107 characters at most.
        self.directory = tempfile.mkdtemp(prefix="ecm-test-")
        (out, self._out), (err, self._err) = os.pipe(), os.pipe()
        os.set_blocking(out, False)
        os.set_blocking(err, False)
        spawned = SpawnedKernel(pid=0, directory=self.directory, key="key", stdout_fd=out, stderr_fd=err)
        self.session = Session(key=b"key", username="")
        self.context = zmq.Context()
        self.shell, self.iopub = self.context.socket(zmq.ROUTER), self.context.socket(zmq.XPUB)
        self.shell.rcvtimeo = self.iopub.rcvtimeo = int(PATIENCE * 1000)
        if bound:
            self.shell.bind(spawned.url("shell"))
            self.iopub.bind(spawned.url("iopub"))
        self.printed: list[tuple[str, bytes]] = []
        self.kernel = Harmless(spawned, lambda name, data: self.printed.append((name, data)))

    async def asked(self) -> tuple[list[bytes], Any]:
        """The next request: who sent it, and its message."""
        identities, frames = self.session.feed_identities(await asyncio.to_thread(self.shell.recv_multipart))
        return identities, self.session.deserialize(frames)

    def publish(self, kind: str, parent: Any, **content: Any) -> None:
        self.session.send(self.iopub, kind, content, parent=parent)

    def end(self) -> None:
        """As the process's end closes them: what was sent is on its way."""
        self.context.destroy(linger=1000)
        for descriptor in (self._out, self._err):
            os.close(descriptor)

    def close(self) -> None:
        self.kernel.close()
        if not self.context.closed:
            self.end()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    made = Peer()
    yield made
    made.close()


async def begun(peer: Peer, outputs: Outputs) -> tuple[asyncio.Task[dict[str, Any]], list[bytes], Any]:
    """An execution whose request has arrived."""
    assert await asyncio.to_thread(peer.iopub.recv) == b"\x01", "the agent's subscription"
    running = asyncio.create_task(peer.kernel.execute("code", outputs))
    async with asyncio.timeout(PATIENCE):
        identities, request = await peer.asked()
    return running, identities, request


@pytest.mark.parametrize("idle", [True, False])
async def test_a_kernels_answer_before_its_end_is_read_though_the_end_is_noticed_first(peer: Peer, idle: bool) -> None:
    outputs = Outputs()
    running, identities, request = await begun(peer, outputs)
    for number in range(500):
        peer.publish("stream", request, name="stdout", text=f"{number}\n")
    peer.session.send(peer.shell, "execute_reply", {"status": "ok"}, parent=request, ident=identities)
    if idle:
        peer.publish("status", request, execution_state="idle")
    peer.end()
    # Without a turn of the loop in between: nothing of it was handled yet.
    peer.kernel.child_exited(0, 0)
    await peer.kernel.drain()
    peer.kernel.abandon()
    assert await running == {"status": "ok"}
    assert outputs.result()[0]["text"] == "".join(f"{number}\n" for number in range(500))


async def test_an_execution_that_was_not_answered_ends_with_its_kernel(peer: Peer) -> None:
    running, _, request = await begun(peer, Outputs())
    peer.publish("stream", request, name="stdout", text="last words")
    peer.end()
    peer.kernel.child_exited(0, 0)
    await peer.kernel.drain()
    assert not running.done()
    assert peer.printed == [("stdout", b"last words")]
    peer.kernel.abandon()
    with pytest.raises(ExecutorGoneError):
        await running


async def test_a_kernel_that_never_started_closes_without_messages() -> None:
    peer = Peer(bound=False)
    try:
        peer.kernel.child_exited(0, 9)
        await peer.kernel.drain()
        peer.kernel.abandon()
        assert await peer.kernel.gone(0)
    finally:
        peer.close()


# -- with time that only sleeping moves, and messages that come by hand ------------------------------------------------


def message(kind: str, execution: Any, **content: Any) -> dict[str, Any]:
    return {"msg_type": kind, "parent_header": {"msg_id": execution.message_id}, "content": content}


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("prints", "pause", "ends", "lost"),
    [
        # What was printed goes on coming for longer than "idle" is waited for.
        (20, 0.9, 18.0, False),
        # Nothing comes.
        (0, 0.0, 1.0, True),
        # Somebody else goes on printing, on a channel that has lost "idle".
        (1000, 0.9, 30.0, True),
    ],
)
async def test_an_answered_execution_waits_for_its_outputs_as_long_as_they_come(
    prints: int, pause: float, ends: float, lost: bool
) -> None:
    wait = kernel_module.SECOND_HALF_TIMEOUT
    assert 30 * wait == kernel_module.SECOND_HALF_LONGEST
    peer = Peer(bound=False)
    kernel, outputs, loop = peer.kernel, Outputs(), asyncio.get_running_loop()
    try:
        running = asyncio.create_task(kernel.execute("code", outputs))
        await asyncio.sleep(0)
        execution = kernel._execution
        answered = loop.time()
        kernel._on_shell(message("execute_reply", execution, status="ok"))

        async def publish() -> None:
            for number in range(prints):
                await asyncio.sleep(pause * wait)
                kernel._on_iopub(message("stream", execution, name="stdout", text=f"{number}\n"))
            if prints < 1000:
                kernel._on_iopub(message("status", execution, execution_state="idle"))

        publishing = asyncio.create_task(publish()) if prints else None
        assert await running == {"status": "ok"}
        assert loop.time() - answered == pytest.approx(ends * wait, abs=wait)
        assert any(b"output was lost" in data for _, data in peer.printed) is lost
        if not lost:
            assert outputs.result()[0]["text"] == "".join(f"{number}\n" for number in range(prints))
        if publishing is not None:
            publishing.cancel()
    finally:
        peer.close()
