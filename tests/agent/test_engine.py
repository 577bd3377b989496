"""When things happen to tasks and engines, by a clock that only sleeping moves: timeouts, graces, ends. The kernel is
scripted; a real one does the same in test_execute.py and test_life.py, at times that a machine's load decides."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from linkis_ecm.agent import engine as engine_module
from linkis_ecm.agent import kernel_start
from linkis_ecm.agent.background import LOOK_SECONDS, Background
from linkis_ecm.agent.engine import Engine
from linkis_ecm.agent.executors.base import Capabilities, ExecutorGoneError, OutputSink
from linkis_ecm.agent.host.process_bound import ProcessBound, own_standing
from linkis_ecm.agent.host.usage import Usage
from linkis_ecm.agent.tasks import Task

pytestmark = pytest.mark.looptime


class Scripted:
    """A kernel whose code goes on until `end`, or an interrupt that it does not ignore."""

    capabilities = Capabilities("python", ("python",), tables=False, progress=False)
    process_id = 0

    def __init__(self) -> None:
        self.deaf = False
        self.warm = asyncio.Event()
        self.warm.set()
        self.answers = asyncio.Event()
        self.answers.set()
        self.next: Scripted | None = None
        self.is_closed = False
        self.interrupts: list[float] = []
        self.patience: list[float] = []
        self.sink: OutputSink | None = None
        self._done: asyncio.Future[dict[str, Any]] | None = None

    async def ready(self) -> None:
        await self.answers.wait()

    async def execute(self, code: str, sink: OutputSink, *, silent: bool = False) -> dict[str, Any]:
        if silent:
            await self.warm.wait()
            return {"status": "ok"}
        self.sink, self._done = sink, asyncio.get_running_loop().create_future()
        return await self._done

    def end(self, status: str = "ok", **more: Any) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result({"status": status, **more})

    def interrupt(self) -> None:
        self.interrupts.append(asyncio.get_running_loop().time())
        if not self.deaf:
            self.end("error")

    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def child_exited(self, pid: int, status: int) -> bool:
        return pid == 1

    async def drain(self) -> None: ...

    def restart(self) -> Scripted:
        assert self.next is not None
        return self.next

    def abandon(self) -> None:
        self.is_closed = True
        if self._done is not None and not self._done.done():
            self._done.set_exception(ExecutorGoneError())

    async def gone(self, timeout: float) -> bool:
        self.patience.append(timeout)
        return True


async def turns(ready: Callable[[], bool]) -> None:
    """Until it is so, within a few turns of the loop and no time."""
    for _ in range(20):
        if ready():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come so far")


class Run:
    """An Idle engine and its kernel; times count from when it became so."""

    def __init__(self, folder: Path, start_timeout: float = 120.0) -> None:
        self.kernel = Scripted()
        self.loop = asyncio.get_running_loop()
        self.begun = self.loop.time()
        logs: Any = SimpleNamespace(
            directory=str(folder), event=lambda *_: None, stderr_bytes=0, last_stderr_lines=lambda *_: []
        )
        kernel: Any = self.kernel
        self.processes = 0
        self.killed: list[tuple[int, int]] = []
        self.bound = ProcessBound(
            100, lambda: self.processes, kill=lambda *call: self.killed.append(call), pid=lambda: 1
        )
        self.engine = Engine(
            executor=kernel, logs=logs, usage=Usage(str(folder), "/nowhere"), bound=self.bound,
            timings={"kernelReady": 0.0}, on_change=lambda: None, clock=self.now, start_timeout=start_timeout,
        )  # fmt: skip

    def now(self) -> float:
        return self.loop.time() - self.begun

    async def task(self, timeout: float | None = None) -> Task:
        """A task that runs."""
        task = self.engine.submit(task_id="t", code="code", timeout=timeout)
        await turns(lambda: self.engine.state == "Busy")
        return task


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Run]:
    """Not a fixture: in those time is the machine's."""
    made = Run(folder)
    living = asyncio.create_task(made.engine.run())
    try:
        await turns(lambda: made.engine.state == "Idle")
        yield made
    finally:
        living.cancel()
        await asyncio.wait((living,))


async def test_a_task_is_interrupted_when_its_timeout_is_over_and_keeps_what_it_has_printed(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        task = await run.task(timeout=0.3)
        await asyncio.sleep(0.1)
        assert run.kernel.sink is not None
        run.kernel.sink.stream("stdout", "begun\n")
        await task.done
        assert run.kernel.interrupts == pytest.approx([0.3])
        assert (task.status, task.ended - task.started) == ("Timeout", pytest.approx(0.3))
        assert task.result()["outputs"] == [{"type": "text", "stream": "stdout", "text": "begun\n"}]
        assert run.engine.state == "Idle"


async def test_code_that_ignores_its_interrupt_is_answered_soon_after_it_and_keeps_the_engine_busy(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as run:
        run.kernel.deaf = True
        task = await run.task(timeout=0.2)
        await task.done
        assert run.now() == pytest.approx(0.2 + engine_module.INTERRUPT_TIMEOUT)
        assert (task.status, task.result()["outputs"][-1]["name"]) == ("Timeout", "Timeout")
        await asyncio.sleep(1000)
        assert run.engine.state == "Busy"
        run.kernel.end()
        await turns(lambda: run.engine.state == "Idle")
        assert task.status == "Timeout"


@pytest.mark.parametrize(
    ("stops", "interrupted"),
    [
        ([(0.0, 0.2)], 0.2),
        ([(0.0, 600.0), (1.0, 2.0)], 3.0),
        ([(0.0, 2.0), (1.0, 600.0)], 2.0),
        ([(0.0, 600.0), (5.0, 0.0)], 5.0),
    ],
)
async def test_a_stop_interrupts_the_task_when_the_soonest_grace_is_over(
    tmp_path: Path, stops: list[tuple[float, float]], interrupted: float
) -> None:
    async with running(tmp_path) as run:
        task = await run.task()
        for at, grace in stops:
            await asyncio.sleep(at - run.now())
            run.engine.stop(grace=grace, reason="")
        assert await run.engine.ended == 0
        assert run.kernel.interrupts == pytest.approx([interrupted])
        assert task.status == "Cancelled"
        assert run.now() == pytest.approx(interrupted)


@pytest.mark.parametrize(("grace", "patience"), [(0.0, 2.0), (5.0, 5.0), (600.0, 10.0)])
async def test_exit_handlers_have_what_is_left_of_the_grace_within_bounds(
    tmp_path: Path, grace: float, patience: float
) -> None:
    async with running(tmp_path) as run:
        run.engine.stop(grace=grace, reason="")
        assert await run.engine.ended == 0
        assert run.kernel.patience == pytest.approx([patience])


async def test_a_kernel_killed_while_idle_ends_the_engine_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await asyncio.sleep(7)
        run.engine.child_exited(1, signal.SIGKILL)
        assert await run.engine.ended == 137
        assert run.now() == pytest.approx(7)
        assert (run.engine.state, run.engine.reason) == ("Failed", "KernelDied")


async def test_a_task_that_is_answered_as_its_kernel_ends_has_its_own_end_first(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        task = await run.task()
        run.kernel.end(payload=[{"source": "ask_exit"}])
        run.engine.child_exited(1, 0)
        assert await run.engine.ended == 0
        assert task.status == "Succeed"
        assert (run.engine.reason, run.engine.message) == ("Stopped", "the code called exit()")


async def test_a_task_that_its_kernel_died_in_has_failed(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        task = await run.task()
        run.engine.child_exited(1, signal.SIGSEGV)
        assert await run.engine.ended == 139
        assert (task.status, task.result()["outputs"][-1]["name"]) == ("Failed", "KernelDied")


async def test_an_engine_with_too_many_processes_ends_and_its_task_says_why(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        task = await run.task()
        run.processes = 100
        watching = asyncio.create_task(run.bound.watch())
        await asyncio.sleep(5)
        assert run.killed == []
        run.processes = 101
        await watching
        assert run.killed == [(-1, signal.SIGKILL)]
        run.engine.child_exited(1, signal.SIGKILL)
        assert await run.engine.ended == 137
        words = "the engine had 101 processes and threads, and 100 are the most (maxProcesses of its EngineConnPlugin)"
        assert (run.engine.reason, run.engine.message) == ("TooManyProcesses", words)
        error = task.result()["outputs"][-1]
        assert (task.status, error["name"], error["value"]) == ("Failed", "TooManyProcesses", words)


async def test_processes_are_bounded_only_where_all_that_can_be_signalled_are_the_engines() -> None:
    def kill(*call: int) -> None:
        raise AssertionError(call)

    for most, pid in ((1, 2), (0, 1)):
        bound = ProcessBound(most, lambda: 5, kill=kill, pid=lambda pid=pid: pid)
        await bound.watch()
        assert bound.exceeded == ""


async def test_a_restart_while_the_kernel_warms_up_is_answered_by_the_next_one(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.kernel.next = after = Scripted()
    run.kernel.warm.clear()
    after.warm.clear()
    living = asyncio.create_task(run.engine.run())
    try:
        await turns(lambda: run.engine.state == "Idle")
        restarted = asyncio.create_task(run.engine.restart_kernel())
        await turns(lambda: run.engine.state == "Busy")
        run.kernel.warm.set()  # its first execution was answered before the kill
        run.engine.child_exited(1, signal.SIGKILL)
        await turns(lambda: run.engine._executor is after)
        assert (restarted.done(), run.engine.state) == (False, "Busy")
        after.warm.set()
        await turns(restarted.done)
        assert (restarted.exception(), run.engine.state) == (None, "Idle")
    finally:
        living.cancel()
        await asyncio.wait((living,))


async def test_a_kernel_that_never_answers_its_warm_up_runs_tasks_and_their_timeouts_count(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.kernel.warm.clear()
    living = asyncio.create_task(run.engine.run())
    try:
        await turns(lambda: run.engine.state == "Idle")
        task = run.engine.submit(task_id="t", code="code", timeout=3)
        await task.done
        assert task.status == "Timeout"
        assert run.now() == pytest.approx(kernel_start.WARM_UP_TIMEOUT + 3)
    finally:
        living.cancel()
        await asyncio.wait((living,))


@pytest.mark.parametrize("limit", [120.0, 480.0, 3600.0])
async def test_a_kernel_has_the_engines_own_start_timeout(tmp_path: Path, limit: float) -> None:
    run = Run(tmp_path, start_timeout=limit)
    run.kernel.answers.clear()
    await run.engine.run()
    assert run.now() == pytest.approx(limit)
    assert (run.engine.state, run.engine.reason) == ("Failed", "KernelStartTimeout")
    assert run.engine.message == f"the kernel did not answer within {limit:g} s of its start"


@pytest.mark.parametrize("ready", [True, False])
async def test_a_kernel_that_exits_with_0_before_any_code_ran_has_failed(tmp_path: Path, ready: bool) -> None:
    run = Run(tmp_path)
    if not ready:
        run.kernel.answers.clear()
    living = asyncio.create_task(run.engine.run())
    try:
        await turns(lambda: run.engine.state == ("Idle" if ready else "Starting"))
        run.engine.child_exited(1, 0)
        assert await run.engine.ended == 1
        assert (run.engine.state, run.engine.reason) == ("Failed", "KernelDied")
        assert "exited with code 0 before any code ran: what starts it must stay with it" in run.engine.message
    finally:
        living.cancel()
        await asyncio.wait((living,))


async def test_a_kernel_that_exits_with_0_after_a_task_ends_the_engine_and_exit_is_not_blamed(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        task = await run.task()
        run.kernel.end()
        await task.done
        run.engine.child_exited(1, 0)
        assert await run.engine.ended == 0
        assert run.engine.message == "the kernel ended by itself with exit code 0, after its last task"


async def test_a_count_that_fails_ends_the_engine(tmp_path: Path) -> None:
    async with running(tmp_path) as run:

        def starved() -> int:
            raise OSError(24, "Too many open files")

        run.bound._count = starved
        assert run.bound.check()
        assert run.killed == [(-1, signal.SIGKILL)]
        run.engine.child_exited(1, signal.SIGKILL)
        assert await run.engine.ended == 137
        assert run.engine.reason == "AgentTampered"
        assert run.engine.message.startswith("the agent could not count the engine's processes (OSError)")


@pytest.mark.parametrize("error", [OSError(24, "x"), ValueError("x"), MemoryError()])
@pytest.mark.parametrize("where", ["count", "standing"])
def test_no_failure_of_the_guard_counts_as_nothing_found(error: Exception, where: str) -> None:
    killed: list[tuple[int, int]] = []
    answers: list[dict[str, object]] = [{"nice": 0}]

    def failing() -> Any:
        raise error

    def standing() -> dict[str, object]:
        if not answers:
            raise error
        return answers.pop()

    bound = ProcessBound(
        100, failing if where == "count" else lambda: 1, kill=lambda *call: killed.append(call), pid=lambda: 1,
        standing=standing, regain=lambda: None,
    )  # fmt: skip
    assert bound.check()
    assert bound.tampered
    assert killed == [(-1, signal.SIGKILL)]


@pytest.mark.parametrize("name", ["RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_NPROC", "nice", "scheduler"])
def test_what_is_taken_from_the_agent_ends_the_engine_by_name(name: str) -> None:
    killed: list[tuple[int, int]] = []
    now = own_standing()
    assert name in now
    bound = ProcessBound(
        100, lambda: 1, kill=lambda *call: killed.append(call), pid=lambda: 1, standing=lambda: dict(now),
        regain=lambda: None,
    )  # fmt: skip
    assert not bound.check()
    now[name] = "other"
    assert bound.check()
    assert (bound.tampered, killed) == (True, [(-1, signal.SIGKILL)])
    assert f"changed {name} of its agent" in bound.exceeded


async def test_a_preload_that_hangs_is_given_up_at_the_start_timeout() -> None:
    async def preload(_: str) -> str:
        await asyncio.Event().wait()
        return ""

    executor: Any = SimpleNamespace(preload=preload)
    words = "preload of_pool: it was not imported within 8 s, the startTimeout"
    with pytest.raises(kernel_start.StartFailedError, match=words) as error:
        await kernel_start.Preload(["of_pool"], 8.0).run(executor)
    assert error.value.reason == kernel_start.PRELOAD_FAILED
    assert asyncio.get_running_loop().time() == pytest.approx(8.0)


async def test_the_first_empty_execution_is_no_background_work(tmp_path: Path) -> None:
    run, used = Run(tmp_path), 0.0
    run.engine.background = Background(run.now, lambda _: used)
    run.kernel.warm.clear()
    living = asyncio.create_task(run.engine.run())
    try:
        await turns(lambda: run.engine.state == "Idle")
        assert run.engine.report()["background"] == ""
        used = 3.0
        await asyncio.sleep(LOOK_SECONDS)
        # Somebody looks while it runs.
        assert (run.engine.report()["background"], run.engine.background.printed()) == ("", False)
        run.kernel.warm.set()
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert run.engine.report()["background"] == ""
    finally:
        living.cancel()
        await asyncio.wait((living,))
