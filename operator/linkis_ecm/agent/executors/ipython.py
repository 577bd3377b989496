"""IPython by ipykernel, in a process of the agent's own spawning (`spawn`): the executor of Python engines."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from linkis_ecm.agent.executors.base import Capabilities
from linkis_ecm.agent.executors.jupyter import JupyterKernel, zmq
from linkis_ecm.agent.executors.spawn import SpawnedKernel, spawn_kernel
from linkis_ecm.agent.executors.workplace import enter
from linkis_ecm.agent.formats.marks import secret_of
from linkis_ecm.agent.formats.names import INTERRUPT_MESSAGE

CAPABILITIES = Capabilities(
    language="python", run_types=("python", "py", "python3", "py3"), tables=True, progress=True, ends_as_a_script=True
)  # fmt: skip


class IPythonKernel(JupyterKernel):
    """One IPython process."""

    repeats = (0.5, 1.0, 2.0, 4.0)

    def __init__(self, spawned: SpawnedKernel, on_output: Callable[[str, bytes], None]) -> None:
        super().__init__(spawned, CAPABILITIES, on_output)
        self._control: Any = None  # connected at the first interrupt: no start waits for it

    def restart(self) -> IPythonKernel:
        """The process's own environment is what the first one was made of."""
        self.close()
        enter(os.environ)  # the code may have removed the folder
        return IPythonKernel(spawn_kernel(os.environ), self._on_output)

    def _secret(self, spawned: SpawnedKernel) -> bytes:
        return secret_of(spawned.key)

    def _send_interrupt(self, stage: int) -> None:
        """SIGINT, and a message for the thread that helps where the code is inside a C function."""
        super()._send_interrupt(stage)
        request = self._execution.message_id if self._execution is not None else ""
        if self._control is None:
            self._control = self._connect(zmq.DEALER, "control")
        self._send(INTERRUPT_MESSAGE, {"stage": stage, "request": request}, self._control)

    def close(self) -> None:
        if self._control is not None:
            self._control.close()
        super().close()
