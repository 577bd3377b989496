"""A kernel's way to its first task: its answer, what a pool's plugin wants imported, an empty execution.

Must not choose a state: that is the engine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from linkis_ecm.agent.background import Background
from linkis_ecm.agent.executors.base import Executor
from linkis_ecm.agent.outputs import Outputs

# A kernel that has not answered its first, empty execution by then may never: some answer no silent one. The tasks that
# wait get their turn, and their timeouts count. Its imports take 0.1 s, some seconds on a starved node.
WARM_UP_TIMEOUT = 10.0
PRELOAD_FAILED = "PreloadFailed"
# Of a module's name and its error, in a status.
_MESSAGE_CHARS = 1000


class StartFailedError(Exception):
    """The kernel is of no use: `reason` for the report, and the text."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


async def wait_until_answered(executor: Executor, within: float) -> None:
    """Raises StartFailedError where there is no answer within so many seconds, ExecutorGoneError where it ends."""
    try:
        async with asyncio.timeout(within):
            await executor.ready()
    except TimeoutError:
        said = f"the kernel did not answer within {within:g} s of its start"
        raise StartFailedError("KernelStartTimeout", said) from None


async def warm_up(executor: Executor, log: Callable[[str, str], None], background: Background) -> None:
    """The first execution imports what all later ones find: better now than in a user's first task. It is no background
    work of the user's code."""
    background.task_began()
    try:
        # Not wait_for: it can swallow a cancellation.
        async with asyncio.timeout(WARM_UP_TIMEOUT):
            await executor.execute(executor.capabilities.warm_up, Outputs(), silent=True)
    except TimeoutError:
        said = f"the kernel did not answer an empty execution within {WARM_UP_TIMEOUT:g} s"
        log("WARN", f"{said}: tasks start anyway")
    finally:
        background.task_ended()


class Preload:
    """The modules that a member of a warm pool imports before any engine has it."""

    def __init__(self, modules: Sequence[str], within: float) -> None:
        self._modules = modules
        self._within = within
        self._current = ""

    async def run(self, executor: Executor) -> None:
        """Raises StartFailedError, naming the module, ExecutorGoneError where the kernel ends."""
        try:
            async with asyncio.timeout(self._within):
                for module in self._modules:
                    self._current = module
                    if error := await executor.preload(module):
                        raise StartFailedError(PRELOAD_FAILED, self._said(error))
        except TimeoutError:
            said = f"it was not imported within {self._within:g} s, the startTimeout"
            raise StartFailedError(PRELOAD_FAILED, self._said(said)) from None
        self._current = ""

    def how_it_ended(self, reason: str, how: str, code: int) -> tuple[str, str, int]:
        """(reason, words, exit code) of a kernel that has ended, which a module may have done."""
        return (PRELOAD_FAILED, self._said(how), 1) if self._current else (reason, how, code)

    def _said(self, what: str) -> str:
        return f"preload {self._current}: {what}"[:_MESSAGE_CHARS]
