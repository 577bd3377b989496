"""The protocol of executors: an executor runs the engine's code in another process, such as a Jupyter kernel.

The engine imports this module and no executor. Must not import an executor, nor a module that the agent does not need
otherwise: each import delays the start of every engine.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class ExecutorGoneError(Exception):
    """The executor's process ended."""


class Capabilities(NamedTuple):
    """What an executor can do."""

    # As people call it: in refusals and in the log.
    language: str
    # What executeCode may name as runType; the first is taken where it names none.
    run_types: tuple[str, ...]
    # Whether frames and relations come as tables, and whether a task tells its progress.
    tables: bool
    progress: bool
    # Whether its process, asked to end, ends as Python does behind a script's last line: it waits for threads.
    ends_as_a_script: bool = False
    # What its process can be given while it runs (`Executor.adopt`): env, workingDir.
    takes: tuple[str, ...] = ()
    # Code that does nothing, for the first execution: it imports what all later ones find.
    warm_up: str = ""


class Exit(NamedTuple):
    """How a process ended: one of both. See `exit_of`."""

    code: int
    signal: int

    @property
    def signal_name(self) -> str:
        """SIGSEGV for 11; the real-time signals have no names."""
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"signal {self.signal}"


def exit_of(status: int) -> Exit:
    """Of waitpid's status."""
    return Exit(0, number) if (number := status & 0x7F) else Exit(status >> 8, 0)


class OutputSink(Protocol):
    """Takes what one execution publishes."""

    def stream(self, name: str, text: str) -> None:
        """Text printed to `name`, stdout or stderr."""

    def message(self, kind: str, content: dict[str, Any]) -> None:
        """Another message, in the form of Jupyter's iopub channel: display_data, execute_result, error …"""


class Executor(Protocol):
    """One process that runs code, started already (`registry.start`).

    Its last outputs come before its end: whoever is told that the process was reaped drains it first, then abandons it.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; known before it is ready."""

    @property
    def process_id(self) -> int:
        """Of the process that runs the code."""

    async def ready(self) -> None:
        """Return when it takes code. Raises ExecutorGoneError where it ends first."""

    async def execute(self, code: str, sink: OutputSink, *, silent: bool = False) -> dict[str, Any]:
        """Run `code` and return its reply. One at a time. Raises ExecutorGoneError where it ends first.

        The reply has the form of Jupyter's execute_reply: status (ok, error or aborted) and, as far as there are,
        execution_count, payload, and the error's ename, evalue and traceback.
        """

    async def preload(self, module: str) -> str:
        """Import a module before there is any code of the user; why that failed, "" where it did not. Raises
        ExecutorGoneError where it ends first."""

    async def adopt(self, environment: Mapping[str, str]) -> str:
        """Be as if the process had been started with this environment of the container in the agent's present working
        directory; a restart has it, too. Once, after `ready`, and before there is any code of the user. Why that
        failed, "" where it did not: never with a value of the environment. Raises ExecutorGoneError where it ends
        first."""

    def interrupt(self) -> None:
        """What Ctrl-C does; nothing where no code runs."""

    def stop(self) -> None:
        """Ask it to end by itself, so that its exit handlers run."""

    def kill(self) -> None:
        """End it, with what its code started."""

    def restart(self) -> Executor:
        """Another one of its kind, started in the place of this one, which has ended and is closed by it."""

    async def gone(self, timeout: float | None) -> bool:
        """Whether it has ended and was abandoned, within `timeout` seconds; None: as long as that takes."""

    def child_exited(self, pid: int, status: int) -> bool:
        """A child of the agent was reaped, with waitpid's status: whether it was this executor's process."""

    async def drain(self) -> None:
        """Handle all that the ended process has sent: it may have answered before it ended."""

    def abandon(self) -> None:
        """Nothing more is to be had from it: whoever waits for it gets ExecutorGoneError."""

    @property
    def is_closed(self) -> bool:
        """It was abandoned."""

    def close(self) -> None:
        """End what is left of the process, and free what it had: sockets, pipes, folder."""
