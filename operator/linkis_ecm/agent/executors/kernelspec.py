"""Any Jupyter kernel by its kernelspec, as an executor (`kernelspec_spawn` starts it)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from linkis_ecm.agent.executors.base import Capabilities
from linkis_ecm.agent.executors.jupyter import JupyterKernel, zmq
from linkis_ecm.agent.executors.kernelspec_spawn import SpecifiedKernel, spawn_kernel
from linkis_ecm.agent.executors.workplace import enter
from linkis_ecm.agent.formats.names import run_type_of

_NO_INPUT = "the code asks for input, which nobody can give here: it gets empty lines"


class KernelspecKernel(JupyterKernel):
    """One kernel process; its run types are its language and its own name."""

    # Not every kernel publishes execute_input; most say that they are busy.
    begins_with = "busy"
    begins_within = 1.0
    # Deno publishes a result on its own way: some 1 of 40 came after reply and "idle", within a few ms.
    settles = 0.05

    def __init__(self, spawned: SpecifiedKernel, on_output: Callable[[str, bytes], None]) -> None:
        run_types = tuple(dict.fromkeys(run_type_of(name) for name in (spawned.language, spawned.name)))
        super().__init__(spawned, Capabilities(spawned.language, run_types, tables=False, progress=False), on_output)
        self._by_message = spawned.by_message
        self._control: Any = self._connect(zmq.DEALER, "control")
        self._stdin: Any = self._connect(zmq.DEALER, "stdin")
        self._loop.add_reader(self._stdin.FD, self._read_sockets)

    def restart(self) -> KernelspecKernel:
        self.close()
        enter(self._environment)  # the code may have removed the folder
        made = KernelspecKernel(spawn_kernel(self._environment), self._on_output)
        made._environment = self._environment
        return made

    def stop(self) -> None:
        if not self.is_closed:
            self._send("shutdown_request", {"restart": False}, self._control)

    def _send_interrupt(self, stage: int) -> None:
        if self._by_message:
            self._send("interrupt_request", {}, self._control)
        else:
            super()._send_interrupt(stage)

    def _channels(self) -> tuple[tuple[Any, Callable[[dict[str, Any]], None]], ...]:
        return *super()._channels(), (self._stdin, self._on_stdin)

    def _on_stdin(self, message: dict[str, Any]) -> None:
        """Some kernels ask for input though we say that there is none; without an answer their code waits for ever."""
        if message["msg_type"] != "input_request":
            return
        self._send("input_reply", {"status": "ok", "value": ""}, self._stdin, message)
        execution = self._execution
        if execution is not None and not execution.asked_input:
            execution.asked_input = True
            self._say(_NO_INPUT)
            execution.sink.stream("stderr", f"[{_NO_INPUT}]\n")

    def close(self) -> None:
        self._loop.remove_reader(self._stdin.FD)
        self._stdin.close()
        self._control.close()
        super().close()
