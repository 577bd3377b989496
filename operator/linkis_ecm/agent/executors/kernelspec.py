"""Any Jupyter kernel by its kernelspec, as an executor (`kernelspec_spawn` starts it)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from linkis_ecm.agent.executors.base import Capabilities
from linkis_ecm.agent.executors.jupyter import JupyterKernel, zmq
from linkis_ecm.agent.executors.kernelspec_spawn import SpecifiedKernel, spawn_kernel


class KernelspecKernel(JupyterKernel):
    """One kernel process; its run types are its language and its own name."""

    # Not every kernel publishes execute_input; each says that it is busy.
    begins_with = "busy"

    def __init__(self, spawned: SpecifiedKernel, on_output: Callable[[str, bytes], None]) -> None:
        run_types = tuple(dict.fromkeys((spawned.language, spawned.name)))
        super().__init__(spawned, Capabilities(spawned.language, run_types, tables=False, progress=False), on_output)
        self._by_message = spawned.by_message
        self._control: Any = self._connect(zmq.DEALER, "control")

    def restart(self) -> KernelspecKernel:
        self.close()
        return KernelspecKernel(spawn_kernel(os.environ), self._on_output)

    def stop(self) -> None:
        if not self.is_closed:
            self._session.send(self._control, "shutdown_request", {"restart": False})

    def _send_interrupt(self) -> None:
        if self._by_message:
            self._session.send(self._control, "interrupt_request", {})
        else:
            super()._send_interrupt()

    def close(self) -> None:
        self._control.close()
        super().close()
