"""The engine: its state, its queue of tasks, and how both end.

One task runs at a time, in the order in which they came. Must not know of HTTP: the API calls it, and `on_change` is
told of each change of state.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from linkis_ecm.agent.activity import Activity
from linkis_ecm.agent.background import AFTER_TASK_SECONDS, Background
from linkis_ecm.agent.executors.base import Capabilities, Executor, ExecutorGoneError, Exit, exit_of
from linkis_ecm.agent.executors.messages import asks_to_end, exit_code
from linkis_ecm.agent.executors.registry import ExecutorError
from linkis_ecm.agent.failures import FailureSink, in_one_line, of_a_job
from linkis_ecm.agent.formats.names import JOB_TASK
from linkis_ecm.agent.host.process_bound import ProcessBound
from linkis_ecm.agent.host.usage import Usage
from linkis_ecm.agent.kernel_end import BEFORE_ANY_CODE, MAX_STDERR_LINES, REPORTED_LINES, how_it_ended, with_last_lines
from linkis_ecm.agent.kernel_start import Preload, StartFailedError, wait_until_answered, warm_up
from linkis_ecm.agent.logs.files import LogFiles
from linkis_ecm.agent.states import BUSY, FAILED, IDLE, RUNNING, SHUTTING_DOWN, STARTING, SUCCESS, refusal, time_metrics
from linkis_ecm.agent.tasks import (
    CANCELLED,
    TIMEOUT,
    NotReadyError,
    QueueFullError,
    Task,
    TaskBook,
    add_error,
)
from linkis_ecm.agent.tasks import FAILED as TASK_FAILED
from linkis_ecm.agent.tasks import SUCCEED as TASK_SUCCEED

MAX_WAITING = 16  # tasks behind the running one
# How long an interrupted task may take to end before its caller is answered without it.
INTERRUPT_TIMEOUT = 3.0
# How long a stopping kernel may run its exit handlers; longer where the grace is not over, which a busy node may need.
KERNEL_EXIT_TIMEOUT, KERNEL_EXIT_LONGEST = 2.0, 10.0
# Of an engine that a signal ended, or before its `once` job succeeded: 0 is a success even of a pod that is evicted.
STOPPED_BY_SIGNAL = 128 + signal.SIGTERM


class Engine(Activity):
    """Runs tasks in `executor` until it is stopped or its executor dies; then `ended` is the process's exit code.

    With `preload`, which may be empty, it is a member of a warm pool: it imports that, and has no task until `adopted`.
    """

    def __init__(
        self,
        *,
        executor: Executor,
        logs: LogFiles,
        usage: Usage,
        bound: ProcessBound,
        timings: dict[str, float],
        on_change: Callable[[], None],
        on_task_over: Callable[[Task], None] = lambda _: None,
        once: bool = False,
        preload: Sequence[str] | None = None,
        start_timeout: float = 120.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._executor = executor
        self._restarting: asyncio.Future[None] | None = None
        self._replaced: Executor | None = None  # the one that a restart has ended
        self._logs = logs
        self.tasks = TaskBook(logs.directory, clock, on_task_over)
        self._usage = usage
        self._bound = bound
        self.background = Background(clock)
        self._once = once
        self._start_timeout = start_timeout
        self._preload = Preload(preload, start_timeout) if preload is not None else None
        super().__init__(clock, on_change)
        self._loop = asyncio.get_running_loop()
        self.state = STARTING
        self.reason = self.message = ""
        self.since = clock()
        self.timings = timings
        self.counters = {"tasksStarted": 0, "tasksSucceeded": 0, "tasksFailed": 0}
        self.last_task_ended = 0.0
        self._last_task: Task | None = None
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._seconds_in_state = {IDLE: 0.0, BUSY: 0.0}
        self._waiting: deque[Task] = deque()
        self._arrived = asyncio.Event()
        self._running: Task | None = None
        self._stderr_before = 0  # bytes of stderr before the running task, or since the last one
        self._no_task_running = asyncio.Event()
        self._no_task_running.set()
        self._job_is_over = not executor.capabilities.ends_as_a_script  # also what its last line left behind
        self._stop_code = 0
        self._stop_deadline = float("inf")  # on the loop's clock
        self._stop_deadline_changed = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._exiting: asyncio.Task[None] | None = None

    # -- what the API calls ------------------------------------------------------------------------------------------

    def submit(self, *, task_id: str, code: str, timeout: float | None) -> Task:
        """Queue `code`, or give the task that was sent with this id before. For `kernel_user` alone, which knows whose
        the kernel is. Raises NotReadyError, QueueFullError, OtherTaskError."""
        if (known := self.tasks.find_same(task_id, code)) is not None:
            return known
        if self.state not in (IDLE, BUSY):
            raise NotReadyError(refusal(self.state))
        if len(self._waiting) >= MAX_WAITING:
            raise QueueFullError(f"{MAX_WAITING} tasks wait already: send this one again when one of them has ended")
        task = Task(id=task_id, code=code, timeout=timeout, accepted=self._clock(), done=self._loop.create_future())
        self.tasks.add(task)
        if self._running is not None:
            self._logs.event("INFO", f"task {task_id} waits behind {len(self._waiting)} others and the running one")
        self._waiting.append(task)
        self._arrived.set()
        return task

    def cancel(self, task: Task) -> None:
        """End a waiting task at once, interrupt a running one; nothing where it has ended."""
        if task in self._waiting:
            self._waiting.remove(task)
            self._cancel_one(task, "the task was cancelled before it could start")
        elif task is self._running:
            self.interrupt()

    async def restart_kernel(self) -> None:
        """A new kernel in the place of the old one, with nothing of its memory; no task that came before runs in it,
        also where a restart is under way, which this one joins. Raises NotReadyError."""
        if self.state not in (IDLE, BUSY):
            raise NotReadyError(refusal(self.state, "and its kernel stays"))
        self._cancel_waiting("the kernel was restarted before this task could start")
        if self._restarting is None:
            self._logs.event("INFO", "the kernel is restarted on request")
            self._restarting = self._loop.create_future()
            if self.state == IDLE:
                self._enter(BUSY)
            self._replaced = self._executor
            if self._running is None:
                self._executor.stop()  # its open files are written, its exit handlers run
                self._loop.call_later(KERNEL_EXIT_TIMEOUT, self._executor.kill)
            else:
                self._running.interrupted = True
                self._executor.kill()
        await asyncio.shield(self._restarting)

    def interrupt(self) -> None:
        """Interrupt the running task, if there is one; it ends as Cancelled."""
        if self._running is not None:
            self._logs.event("INFO", f"task {self._running.id} is interrupted on request")
            if not self._running.interrupted:
                self._loop.call_later(INTERRUPT_TIMEOUT, self._warn_of_unheeded, self._running)
            self._running.interrupted = True
            self._executor.interrupt()

    def _warn_of_unheeded(self, task: Task) -> None:
        if task is self._running:
            said = f"catches its interrupt or does not see it, and goes on after {INTERRUPT_TIMEOUT:g} s"
            task.message = f"the code {said}: restartKernel ends it, with the kernel's memory"
            self._logs.event("WARN", f"task {task.id}: {task.message}")

    @property
    def has_tasks(self) -> bool:
        """Whether a task waits or runs, also one that was answered and goes on; not one that a restart ends."""
        return bool(self._waiting) or (self._running is not None and self._restarting is None)

    @property
    def capabilities(self) -> Capabilities:
        """What the executor can do."""
        return self._executor.capabilities

    @property
    def is_member(self) -> bool:
        """Whether it waits in a warm pool for its engine."""
        return self._preload is not None

    async def adopt(self, environment: Mapping[str, str]) -> str:
        """The kernel takes the engine's environment; why it did not, "" where it did. Raises ExecutorGoneError."""
        return await self._executor.adopt(environment)

    def adopted(self, start_timeout: float) -> None:
        """The member is an engine from now on: what is counted begins here."""
        self._preload = None
        self._start_timeout = start_timeout
        self.background = Background(self._clock)
        self.last_activity = 0.0
        self._enter(IDLE)
        self.timings["claimed"] = self.since
        self._seconds_in_state = dict.fromkeys(self._seconds_in_state, 0.0)

    def close(self) -> None:
        """After its end: free what the executor had."""
        self._executor.close()

    def stop(self, *, grace: float, reason: str, code: int = 0) -> None:
        """End the engine: no new tasks, the running one may take `grace` seconds more. The soonest of several wins.

        `code` is the process's exit code after the first stop, where nobody asked for it but the code or a signal."""
        deadline = self._loop.time() + grace
        if deadline < self._stop_deadline:
            self._stop_deadline = deadline
            self._stop_deadline_changed.set()
        if self._stopping is None and self.state != FAILED:
            self._stop_code = code
            self._logs.event("INFO", f"stopping within {grace:g} s: {reason or 'no reason given'}")
            if does := self._look_at_background()[0]:
                self._logs.event("WARN", f"{does}: the stop ends it")
            self._enter(SHUTTING_DOWN, "Stopped", reason)
            self._stopping = self._loop.create_task(self._stop())

    def report(self) -> dict[str, Any]:
        """The engine's part of the report: all but who it is."""
        spent = dict(self._seconds_in_state)
        if self.state in spent:
            spent[self.state] += self._clock() - self.since
        background, last_background = self._look_at_background()
        return {
            "state": self.state,
            "since": self.since,
            "reason": self.reason,
            "message": self.message,
            "timings": self.timings,
            "lastTaskEnded": self.last_task_ended,
            "active": self.active,
            "lastActivity": self.last_activity,
            "background": background,
            "lastBackground": last_background,
            "task": self._reported_task(),
            **self.counters,
            "usage": self._usage.read(),
            "metrics": time_metrics(idle=spent[IDLE], busy=spent[BUSY]),
        }

    def _look_at_background(self) -> tuple[str, float]:
        return self.background.look(self._executor.process_id if self.state == IDLE else None)

    def _reported_task(self) -> dict[str, Any] | None:
        """The running task, or the one that the kernel died in: what a post-mortem wants to know."""
        task = self._running or self._last_task
        return None if task is None else {"id": task.id, "started": task.started, "code": task.code[:1000]}

    # -- its life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Wait for the kernel, then run tasks as they come. Ends by being cancelled or with the kernel."""
        ready = IDLE
        while True:
            try:
                if not await self._ready(ready):
                    return
                if not self.is_member:
                    await warm_up(self._executor, self._logs.event, self.background)
                # One that was asked for meanwhile is still to come: this executor is on its way out.
                if self._replaced is not self._executor:
                    self._end_restart()
                while True:
                    while not self._waiting or self._restarting is not None:
                        if self._restarting is not None and self._executor.is_closed:
                            raise ExecutorGoneError
                        self._arrived.clear()
                        await self._arrived.wait()
                    await self._run_task(self._waiting.popleft())
            except ExecutorGoneError:
                if self._restarting is None or self.state != BUSY:
                    return  # child_exited() says the rest
            try:
                self._executor = self._executor.restart()
            except (ExecutorError, OSError) as error:
                self.fail("KernelDied", f"the kernel could not be started again: {error}", 1)
                return
            ready = ""

    def _end_restart(self) -> None:
        restarting, self._restarting = self._restarting, None
        if restarting is not None:
            self._logs.event("INFO", "the new kernel has answered")
            restarting.set_result(None)
            if self.state == BUSY and not self._waiting:
                self._enter(IDLE)

    async def run_job(self, code: str) -> dict[str, Any] | None:
        """Wait for the kernel and run the one job; its result, or None where the engine ended otherwise."""
        try:
            if not await self._ready(RUNNING):
                return None
            task = Task(id=JOB_TASK, code=code, timeout=None, accepted=self._clock(), done=self._loop.create_future())
            self.tasks.add(task)
            await self._run_task(task)
            await task.done
            await self._finish_as_a_script()
            return task.result()
        except ExecutorGoneError:
            # child_exited() says the rest, unless the job ended its own process as a success.
            job = self.tasks.find(JOB_TASK)
            return job.result() if job is not None and job.status == TASK_SUCCEED else None

    async def _finish_as_a_script(self) -> None:
        """Python waits for threads, runs exit handlers and writes open files, if need be for ever; a stop ends it."""
        if self._job_is_over:
            return
        self._executor.stop()
        if not await self._executor.gone(KERNEL_EXIT_TIMEOUT):
            self._logs.event("INFO", "the job's last line has run, and its threads and exit handlers go on")
            await self._executor.gone(None)
        self._job_is_over |= self._stopping is None

    def end_job(self, result: dict[str, Any]) -> None:
        """The job's result is kept: the engine ends as the job did."""
        if self.state != RUNNING:
            return
        if result["status"] == "Succeed":
            self._logs.event("INFO", "the job has ended")
            self._enter(SUCCESS, "Completed")
            self.ended.set_result(0)
            return
        job = self.tasks.find(JOB_TASK)
        code = job.failure_code if job is not None else None
        self.fail("JobFailed", of_a_job(result, code), code or 1)

    async def _ready(self, state: str) -> bool:
        """Wait for the kernel's answer and enter `state`, if one is given; False where it did not come in time."""
        try:
            await wait_until_answered(self._executor, self._start_timeout)
            if state:
                self.timings["kernelReady"] = self._clock()
            if state and self._preload is not None:
                await self._preload.run(self._executor)
                # Behind it, what the modules have printed has come.
                await warm_up(self._executor, self._logs.event, self.background)
        except StartFailedError as error:
            self.fail(error.reason, str(error), 1)
            return False
        if state and self.state == STARTING:
            self._logs.event("INFO", "the kernel has answered, the engine is ready")
            self._enter(state)
        return True

    def child_exited(self, pid: int, status: int) -> None:
        """A child of the agent was reaped, with waitpid's status: the executor's process, or an orphan of its."""
        if self._executor.child_exited(pid, status):
            self._exiting = self._loop.create_task(self._executor_exited(self._executor, exit_of(status)))

    async def _executor_exited(self, executor: Executor, end: Exit) -> None:
        await executor.drain()
        # A task that was answered before the end has its own end first, and an exit() its stop.
        await asyncio.sleep(0)
        running = self._running
        executor.abandon()
        if self._stopping is not None or self.state in (FAILED, SUCCESS):
            return
        if self._restarting is not None and self._replaced is self._executor:
            self._arrived.set()  # run() goes on with another kernel
            return
        self._last_task = running
        if self._once and end == (0, 0) and self.counters["tasksStarted"]:
            # As of a script: os._exit(0) is a success. end_job() comes, or has come where the task has ended.
            if running is not None:
                self._end_task(running, TASK_SUCCEED)
            return
        if end == (0, 0) and running is None and self.counters["tasksStarted"]:
            # What a task left behind ended it, such as a thread: the code's own exit() is told by its reply.
            self.stop(grace=0.0, reason="the kernel ended by itself with exit code 0, after its last task")
            return
        reason, how, code = how_it_ended(end, self._usage, self._bound)
        if self._preload is not None:
            reason, how, code = self._preload.how_it_ended(reason, how, code)
        before = self._stderr_before
        if end == (0, 0) and running is None:
            how += BEFORE_ANY_CODE
        if running is not None:
            add_error(running, reason, how, self._logs.last_stderr_lines(MAX_STDERR_LINES, before))
            self._end_task(running, TASK_FAILED)
        self.fail(reason, with_last_lines(how, self._logs.last_stderr_lines(REPORTED_LINES, before)), code)

    def fail(self, reason: str, message: str, code: int) -> None:
        """The engine has failed; `code` is the process's exit code."""
        self._logs.event("ERROR", f"the engine failed, {reason}: {message}")
        self._enter(FAILED, reason, message)
        self._cancel_waiting()
        if not self.ended.done():
            self.ended.set_result(code)

    async def _run_task(self, task: Task) -> None:
        self._running = task
        self._stderr_before = self._logs.stderr_bytes
        self._no_task_running.clear()
        task.begin(self._clock())
        self.tasks.write_journal(task, "started")
        self.counters["tasksStarted"] += 1
        self._logs.event("INFO", f"task {task.id} starts, {len(task.code)} characters of {self.capabilities.language}")
        if self.state == IDLE:
            self._enter(BUSY)
        timers = []
        if task.timeout is not None:
            timers.append(self._loop.call_later(task.timeout, self._time_out, task))
            timers.append(self._loop.call_later(task.timeout + INTERRUPT_TIMEOUT, self._abandon_task, task))
        try:
            reply = await self._executor.execute(task.code, sink := FailureSink(task, self.tasks, self._logs))
        except ExecutorGoneError:
            if self._restarting is not None:
                add_error(task, CANCELLED, "the kernel was restarted on request")
            meant = self._stopping is not None or self._restarting is not None
            self._end_task(task, CANCELLED if meant else TASK_FAILED)
            raise
        finally:
            for timer in timers:
                timer.cancel()
        task.execution_count, task.exit_code = reply.get("execution_count"), exit_code(reply)
        sink.end(reply)
        self._end_task(task, task.status_of_reply(reply))
        if asks_to_end(reply):
            said = f"the code called exit({task.exit_code or ''})"
            if not self._once:
                self.stop(grace=0.0, reason=said, code=task.exit_code or 0)
            else:
                self._logs.event("INFO", said)  # run_job() and end_job() do the rest

    def _time_out(self, task: Task) -> None:
        task.timed_out = True
        self._logs.event("WARN", f"task {task.id} ran for {task.timeout:g} s, its timeout, and is interrupted")
        self._executor.interrupt()

    def _abandon_task(self, task: Task) -> None:
        """The code ignores the interrupt. Its caller has waited long enough; the engine stays Busy until it ends."""
        add_error(task, TIMEOUT, f"the code went on for {INTERRUPT_TIMEOUT:g} s after its interrupt")
        self._finish_task(task, TIMEOUT)

    def _end_task(self, task: Task, status: str) -> None:
        if self._running is not task:
            return
        now = self._clock()
        self._running = None
        self._stderr_before = self._logs.stderr_bytes
        self._no_task_running.set()
        self.last_task_ended = now
        self.background.task_ended()
        self._loop.call_later(AFTER_TASK_SECONDS, self._look_at_background)
        self.counters["tasksSucceeded" if status == TASK_SUCCEED else "tasksFailed"] += 1
        self._finish_task(task, status)
        self._logs.event("INFO", f"task {task.id} ended, {status} after {now - task.started:.3f} s{in_one_line(task)}")
        if self.state == BUSY and not self._waiting and self._restarting is None:
            self._enter(IDLE)

    def _cancel_waiting(self, why: str = "the engine ended before this task could start") -> None:
        while self._waiting:
            self._cancel_one(self._waiting.popleft(), why)

    def _cancel_one(self, task: Task, why: str) -> None:
        add_error(task, CANCELLED, why)
        self._finish_task(task, CANCELLED)

    def _finish_task(self, task: Task, status: str) -> None:
        if task.finish(status, self._clock()):
            self.tasks.task_ended(task)

    async def _stop(self) -> None:
        self._cancel_waiting()
        while not self._no_task_running.is_set() and (left := self._stop_deadline - self._loop.time()) > 0:
            self._stop_deadline_changed.clear()
            events = (self._no_task_running, self._stop_deadline_changed)
            waits = [self._loop.create_task(event.wait()) for event in events]
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if self._running is not None:
            self._logs.event("WARN", f"task {self._running.id} is interrupted: the grace is over")
            self._running.interrupted = True
            self._executor.interrupt()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._no_task_running.wait(), KERNEL_EXIT_TIMEOUT)
        self._executor.stop()
        patience = max(KERNEL_EXIT_TIMEOUT, min(KERNEL_EXIT_LONGEST, self._stop_deadline - self._loop.time()))
        ended = await self._executor.gone(patience if self._running is None else 0.0)
        self._job_is_over |= ended
        if not ended:
            self._executor.kill()
            await self._executor.gone(KERNEL_EXIT_TIMEOUT)
        self._logs.event("INFO", "the engine has stopped")
        if not self.ended.done():
            # 0 says of a `once` engine that its job succeeded (engine.ends), which a stop may have kept it from.
            done = self.counters["tasksSucceeded"] > 0 and self._job_is_over
            self.ended.set_result((0 if done else STOPPED_BY_SIGNAL) if self._once else self._stop_code)

    def _enter(self, state: str, reason: str = "", message: str = "") -> None:
        now = self._clock()
        if self.state in self._seconds_in_state:
            self._seconds_in_state[self.state] += now - self.since
        self.state, self.since, self.reason, self.message = state, now, reason, message
        if self._restarting is not None and state != BUSY:
            restarting, self._restarting = self._restarting, None
            restarting.set_exception(NotReadyError(f"the engine is {state}: its kernel was not restarted"))
            restarting.exception()  # whoever asked may have gone
        self._on_change()
