"""IPython by ipykernel, in a process of the agent's own spawning (`spawn`): the executor of Python engines."""

from __future__ import annotations

import os
from collections.abc import Callable

from linkis_ecm.agent.executors.base import Capabilities
from linkis_ecm.agent.executors.jupyter import JupyterKernel
from linkis_ecm.agent.executors.spawn import SpawnedKernel, spawn_kernel

CAPABILITIES = Capabilities(
    language="python", run_types=("python", "py", "python3", "py3"), tables=True, progress=True
)  # fmt: skip


class IPythonKernel(JupyterKernel):
    """One IPython process."""

    def __init__(self, spawned: SpawnedKernel, on_output: Callable[[str, bytes], None]) -> None:
        super().__init__(spawned, CAPABILITIES, on_output)

    def restart(self) -> IPythonKernel:
        """The process's own environment is what the first one was made of."""
        self.close()
        return IPythonKernel(spawn_kernel(os.environ), self._on_output)
