"""IPython by ipykernel, in a process of the agent's own spawning (`spawn`): the executor of Python engines."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from linkis_ecm.agent.executors.base import Capabilities, ExecutorGoneError
from linkis_ecm.agent.executors.journal import Journal
from linkis_ecm.agent.executors.jupyter import JupyterKernel, zmq
from linkis_ecm.agent.executors.pipes import RawPipes
from linkis_ecm.agent.executors.spawn import SpawnedKernel, kernel_environment, spawn_kernel
from linkis_ecm.agent.executors.workplace import enter
from linkis_ecm.agent.formats.marks import secret_of
from linkis_ecm.agent.formats.member_requests import member_request
from linkis_ecm.agent.formats.names import INTERRUPT_MESSAGE

CAPABILITIES = Capabilities(
    language="python", run_types=("python", "py", "python3", "py3"), tables=True, progress=True, ends_as_a_script=True,
    takes=("env", "workingDir"), warm_up="pass",
)  # fmt: skip


class IPythonKernel(JupyterKernel):
    """One IPython process."""

    repeats = (0.5, 1.0, 2.0, 4.0)

    def __init__(self, spawned: SpawnedKernel, on_output: Callable[[str, bytes], None]) -> None:
        self._journal = Journal(spawned.directory)
        super().__init__(spawned, CAPABILITIES, on_output)
        self._control: Any = None  # connected at the first interrupt: no start waits for it
        # The pipes to a kernel that waits for its engine, once something was asked.
        self._member_pipes: tuple[asyncio.WriteTransport, asyncio.ReadTransport, asyncio.StreamReader] | None = None

    def restart(self) -> IPythonKernel:
        """With the environment that the first one was made of, or that it was given since."""
        self.close()
        enter(self._environment)  # the code may have removed the folder
        made = IPythonKernel(spawn_kernel(self._environment), self._on_output)
        made._environment = self._environment
        return made

    async def preload(self, module: str) -> str:
        return await self._ask({"module": module})

    async def adopt(self, environment: Mapping[str, str]) -> str:
        self._environment = dict(environment)
        kept = kernel_environment(environment, self._spawned.directory)
        try:
            return await self._ask({"environment": kept, "folder": os.getcwd()})
        finally:
            self._close_member_pipes()

    async def _ask(self, request: dict[str, Any]) -> str:
        """The error in the answer of a member's kernel; "" for none. Raises ExecutorGoneError."""
        requests, _, answers = self._member_pipes = self._member_pipes or await self._open_member_pipes()
        requests.write(member_request(request))
        answer = self._loop.create_task(answers.readline())
        await asyncio.wait((answer, self._gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done() or not (line := answer.result()):
            answer.cancel()
            raise ExecutorGoneError
        return str(json.loads(line))

    async def _open_member_pipes(self) -> tuple[asyncio.WriteTransport, asyncio.ReadTransport, asyncio.StreamReader]:
        if (descriptors := self._spawned.member_fds) is None:
            raise ExecutorGoneError
        self._spawned.member_fds = None
        reader = asyncio.StreamReader()
        writing, _ = await self._loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(descriptors[0], "wb", 0))
        reading, _ = await self._loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptors[1], "rb", 0)
        )
        return writing, reading, reader

    def _close_member_pipes(self) -> None:
        for transport in (self._member_pipes or ())[:2]:
            transport.close()
        for descriptor in self._spawned.member_fds or ():
            os.close(descriptor)
        self._member_pipes = self._spawned.member_fds = None

    def _raw_pipes(self, descriptors: dict[str, int], key: str) -> RawPipes:
        return RawPipes(descriptors, self._on_raw, secret_of(key), self._journal.sent)

    def _handle(self, frames: list[bytes], handle: Callable[[dict[str, Any]], None]) -> None:
        super()._handle(frames, handle)
        self._journal.note(frames)
        self._pipes.handled(self._journal.handled)

    def _read_sockets(self) -> bool:
        more = super()._read_sockets()
        self._journal.tell()
        return more

    def _read_rest(self) -> None:
        for frames in self._journal.rest():
            super()._handle(frames, self._on_iopub)
            self._pipes.handled(self._journal.handled)

    def _send_interrupt(self, stage: int) -> None:
        """SIGINT, and a message for the thread that helps where the code is inside a C function."""
        super()._send_interrupt(stage)
        request = self._execution.message_id if self._execution is not None else ""
        if self._control is None:
            self._control = self._connect(zmq.DEALER, "control")
        self._send(INTERRUPT_MESSAGE, {"stage": stage, "request": request}, self._control)

    def close(self) -> None:
        self._close_member_pipes()
        if self._control is not None:
            self._control.close()
        super().close()
        self._journal.close()
