"""Whose code runs in whose kernel, while restarts are under way: the kernel is scripted, so each order is certain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from linkis_ecm.agent.kernel_user import EVERYBODY, KernelUser, LateCodeError, OthersTaskError
from linkis_ecm.agent.tasks import Task
from tests.agent.test_engine import Run, Scripted, running, turns

pytestmark = pytest.mark.looptime


class Shared:
    """An engine with a kernel for each restart, and which code each of them has run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.users = KernelUser(run.engine)
        self.now = run.kernel
        self.ended = 0

    async def send(self, user: str, task_id: str, *, force: bool = False, version: int = 0) -> Task:
        return await self.users.submit(
            user, task_id=task_id, code=task_id, timeout=None, force=force, version=version
        )  # fmt: skip

    async def ran(self, task: Task) -> Scripted:
        """The kernel in which the task runs; it ends there."""
        await turns(lambda: task.status == "Running")
        kernel = self.run.engine._executor
        assert isinstance(kernel, Scripted)
        kernel.end()
        await task.done
        await turns(lambda: not self.run.engine.has_tasks)
        return kernel

    def next_kernel(self) -> Scripted:
        """The one that comes with the next restart; it answers when the test says so."""
        self.now.next = after = Scripted()
        after.warm.clear()
        return after

    async def old_one_ends(self) -> None:
        """The kernel that a restart has ended is gone, and the next one is in its place."""
        self.run.engine.child_exited(1, 9)
        after = self.now.next
        await turns(lambda: self.run.engine._executor is after)
        assert after is not None
        self.now = after


@asynccontextmanager
async def shared(folder: Path) -> AsyncIterator[Shared]:
    async with running(folder) as run:
        yield Shared(run)


async def test_code_that_came_during_a_restart_runs_in_no_kernel_of_another_user(tmp_path: Path) -> None:
    """Its owner restarts the kernel and sends code meanwhile: the next user's change must not join that restart."""
    async with shared(tmp_path) as it:
        await it.ran(await it.send("root", "r1"))
        second = it.next_kernel()
        restart = asyncio.create_task(it.run.engine.restart_kernel())
        await turns(lambda: it.run.engine.state == "Busy")
        queued = await it.send("root", "r2")
        with pytest.raises(OthersTaskError):
            await it.send("alice", "a1")
        await it.old_one_ends()
        with pytest.raises(OthersTaskError):
            await it.send("alice", "a1")
        second.warm.set()
        await restart
        assert await it.ran(queued) is second
        third = it.next_kernel()
        sent = asyncio.create_task(it.send("alice", "a1"))
        await turns(lambda: it.run.engine.state == "Busy")
        await it.old_one_ends()
        third.warm.set()
        assert await it.ran(await sent) is third


async def test_a_change_by_force_joins_a_restart_and_cancels_what_came_before_it(tmp_path: Path) -> None:
    async with shared(tmp_path) as it:
        await it.ran(await it.send("alice", "a1"))
        second = it.next_kernel()
        restart = asyncio.create_task(it.run.engine.restart_kernel())
        await turns(lambda: it.run.engine.state == "Busy")
        queued = await it.send("alice", "a2")
        forced = asyncio.create_task(it.send("root", "r1", force=True))
        await turns(queued.done.done)
        assert (queued.status, queued.reason) == ("Cancelled", "Cancelled")
        await it.old_one_ends()
        second.warm.set()
        await restart
        assert await it.ran(await forced) is second


async def test_a_second_restart_cancels_what_came_since_the_first(tmp_path: Path) -> None:
    async with shared(tmp_path) as it:
        second = it.next_kernel()
        restarts = [asyncio.create_task(it.run.engine.restart_kernel())]
        await turns(lambda: it.run.engine.state == "Busy")
        queued = await it.send(EVERYBODY, "between")
        restarts.append(asyncio.create_task(it.run.engine.restart_kernel()))
        await turns(queued.done.done)
        assert queued.status == "Cancelled"
        await it.old_one_ends()
        second.warm.set()
        await asyncio.gather(*restarts)
        assert it.run.engine.state == "Idle"


async def test_code_of_everybody_waits_for_a_change_of_user_and_is_refused_beside_his_task(tmp_path: Path) -> None:
    async with shared(tmp_path) as it:
        await it.ran(await it.send(EVERYBODY, "e1"))
        second = it.next_kernel()
        sent = asyncio.create_task(it.send("alice", "a1"))
        await turns(lambda: it.run.engine.state == "Busy")
        plain = asyncio.create_task(it.send(EVERYBODY, "e2"))
        await it.old_one_ends()
        second.warm.set()
        task = await sent
        with pytest.raises(OthersTaskError):
            await plain
        assert await it.ran(task) is second


async def test_code_that_was_answered_and_goes_on_keeps_others_out(tmp_path: Path) -> None:
    """Its caller was answered at its timeout, and it catches its interrupt."""
    async with shared(tmp_path) as it:
        it.run.kernel.deaf = True
        task = await it.users.submit("alice", task_id="a1", code="loop", timeout=1)
        await task.done
        assert task.status == "Timeout"
        with pytest.raises(OthersTaskError):
            await it.send("bob", "b1")


async def test_a_task_that_is_sent_twice_changes_no_kernel_the_second_time(tmp_path: Path) -> None:
    async with shared(tmp_path) as it:
        await it.ran(await it.send("bob", "b1"))
        second = it.next_kernel()
        first = asyncio.create_task(it.send("alice", "a1"))
        await turns(lambda: it.run.engine.state == "Busy")
        again = asyncio.create_task(it.send("alice", "a1"))
        await it.old_one_ends()
        second.warm.set()
        assert await first is await again


async def test_code_that_was_let_in_before_another_users_takes_no_kernel_of_that_user(tmp_path: Path) -> None:
    """Alice's code was on its way while the lock passed on to bob, whose variables are in the kernel."""
    async with shared(tmp_path) as it:
        kernel = await it.ran(await it.send("bob", "b1", version=8))
        with pytest.raises(LateCodeError):
            await it.send("alice", "a1", version=7)
        assert await it.ran(await it.send("bob", "b2", version=8)) is kernel, "bob has his variables"
        # The own code that comes late is not another user's, and a gateway of before names no version.
        assert await it.ran(await it.send("bob", "b3", version=5)) is kernel
        # By force, of owner and admins, and by a claim that came later.
        for user, changes in (("root", {"version": 3, "force": True}), ("alice", {"version": 9}), ("carol", {})):
            it.next_kernel()
            sent = asyncio.create_task(it.send(user, f"{user}-1", **changes))  # type: ignore[arg-type]
            await turns(lambda: it.run.engine.state == "Busy")
            after = it.now.next
            assert after is not None
            await it.old_one_ends()
            after.warm.set()
            assert await it.ran(await sent) is after
        with pytest.raises(LateCodeError):
            await it.send("bob", "b4", version=8)
