"""Gives each user of a shared engine a kernel of its own: a new one at each change of user (docs/sharing.md).

All code comes through here: whether the user has changed, the restart and the place in the queue are one step, so it
does not matter how many gateways send code at once. So all tasks that wait or run are one user's, and the kernel has
run nobody else's code. What the last user left outside the kernel, such as files, stays. Must not know of HTTP.
"""

from __future__ import annotations

import asyncio

from linkis_ecm.agent.engine import Engine
from linkis_ecm.agent.formats.names import LATE_CODE, OTHERS_TASK
from linkis_ecm.agent.tasks import Task

# The user of code that names none: everybody whom the gateway lets use this engine's kernel together.
EVERYBODY = ""


class OthersTaskError(Exception):
    """Code of another user runs or waits: it is not ended for the sake of this one's."""


class LateCodeError(Exception):
    """The engine has passed on to another user since the code was let in."""


class KernelUser:
    """Queues code for a user; `user` is a name that only the gateways can tell apart from another."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Whose code the kernel has run, or runs next; None while no code has run, or while that is not certain.
        self._user: str | None = None
        # The highest `version` with which code came.
        self._version = 0
        self._one_at_a_time = asyncio.Lock()

    async def submit(
        self,
        user: str,
        *,
        task_id: str,
        code: str,
        timeout: float | None,
        force: bool = False,
        version: int = 0,
    ) -> Task:
        """Queue `code` in a kernel that has run no other user's, or give the task that was sent with this id before.

        `version` grows with each change of who holds the engine (0: not known): code that was let in before another
        user's comes too late to take that user's kernel. With `force` a change of user cancels what another one has
        left in the queue, and the task that runs. Raises LateCodeError; OthersTaskError where there is such a task
        without force; NotReadyError, QueueFullError, OtherTaskError.
        """
        tasks = self._engine.tasks
        if (known := tasks.find_same(task_id, code)) is not None:
            return known
        async with self._one_at_a_time:
            # It may have come twice, and the first one was before us.
            if (known := tasks.find_same(task_id, code)) is not None:
                return known
            if user != self._user:
                if 0 < version < self._version and not force:
                    raise LateCodeError(LATE_CODE)
                await self._change(user, force=force)
            self._version = max(self._version, version)
            return self._engine.submit(task_id=task_id, code=code, timeout=timeout)

    async def _change(self, user: str, *, force: bool) -> None:
        if self._engine.has_tasks and not force:
            raise OthersTaskError(OTHERS_TASK)
        # Nobody's until the new kernel has answered: after a restart that broke off everybody needs another.
        before, self._user = self._user, None
        if before is not None or self._engine.tasks.list_status():
            await self._engine.restart_kernel()
        self._user = user
