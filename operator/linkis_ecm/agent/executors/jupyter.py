"""A running Jupyter kernel: its channels, its raw output, its signals and its end. What all kernels have in common.

Speaks the Jupyter protocol with jupyter_client's Session over two ZeroMQ sockets that wake the event loop themselves:
nothing here polls. Must not know of HTTP, of tasks' queues or of the operator.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import zmq as _zmq

from linkis_ecm.agent.executors.base import Capabilities, ExecutorGoneError, OutputSink
from linkis_ecm.agent.executors.messages import BadMessageError, read_message, read_reply, read_streams, session
from linkis_ecm.agent.executors.pipes import RawPipes
from linkis_ecm.agent.executors.processes import interrupt_outside
from linkis_ecm.agent.executors.spawn import SpawnedKernel
from linkis_ecm.agent.formats.marks import MARK_MESSAGE, STREAMS_MESSAGE

# pyproject.toml tells mypy to skip the modules that its names come from.
zmq: Any = _zmq

# One message's part at most, where the kernel's own bounds (kernel/output/bounds.py) were got around: ZeroMQ refuses a
# longer one before it is read into memory, and its connection with it.
MAX_MESSAGE_BYTES = 64 << 20
# Reply and "idle" of an execution come on two sockets: the second is as good as there when the first is. Where one was
# lost (the kernel sends no reply when an interrupt hits it between its own lines; a message over the limit takes its
# channel along), the task ends without it. "Idle" stands behind all that was printed: while that comes, it is not lost.
SECOND_HALF_TIMEOUT, SECOND_HALF_LONGEST = 2.0, 60.0
# Some kernels never say "idle", or not whose execution it ends. Theirs is over when nothing came for so long after the
# reply: both sockets are local, and what was published before the reply is read before it.
QUIET = 0.1
# A kernel that has not answered is asked again, at first soon and then ever later: it may have dropped what came before
# it listened. One that has, and whose iopub channel is still silent, is asked much sooner: its answer may have been
# published before our subscription reached it. A kernel that publishes nothing for so long never does.
ASK_AGAIN, ASK_AGAIN_LONGEST = 1.0, 30.0
SEEN_WITHIN, SEEN_WITHIN_LONGEST, SILENT_AFTER = 0.1, 1.0, 10.0
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)
# Messages handled before other work of the loop has its turn.
_BATCH = 64
# What tells that a connection's end was reached, or that there is none any more; and how long a dead kernel's is waited
# for: a process that it forked may hold it open.
_DISCONNECT_EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED
_DISCONNECT_TIMEOUT = 1.0


class _Execution:
    def __init__(
        self, message_id: str, sink: OutputSink, done: asyncio.Future[dict[str, Any]], *, silent: bool
    ) -> None:
        self.message_id = message_id
        self.sink = sink
        self.done = done
        self.silent = silent
        self.reply: dict[str, Any] | None = None
        self.idle = False
        self.unnamed_idle = False  # the kernel was idle, and did not say after what
        self.asked_input = False
        self.replied = 0.0  # on the loop's clock
        self.idle_timer: asyncio.TimerHandle | None = None
        # IPython ignores SIGINT until it runs the code: an interrupt that comes sooner waits for that.
        self.busy_since = 0.0  # on the loop's clock
        self.interrupt_when_busy = False
        self.interrupted = False


class JupyterKernel:
    """One kernel process, as an Executor. `on_output` gets every byte that it prints, inside an execution or not."""

    # A kernel tells that it begins with the code itself by this message, or by any output; an interrupt that comes
    # sooner waits for it, and `begins_within` seconds at most where not every kernel of the kind sends it.
    begins_with = "execute_input"
    begins_within: float | None = None
    # Seconds after an interrupt at which it is repeated while the code runs on: the first one may have been swallowed,
    # and what the code started in a session of its own has not had it.
    repeats: tuple[float, ...] = (1.0,)
    # How long after its reply and its "idle" a kernel may still publish what belongs to a task.
    settles = 0.0

    def __init__(
        self, spawned: SpawnedKernel, capabilities: Capabilities, on_output: Callable[[str, bytes], None]
    ) -> None:
        self.capabilities = capabilities
        self._pid = spawned.pid
        self.exit_status: int | None = None
        self._spawned = spawned
        self._on_output = on_output
        # The container's, as the next process gets it.
        self._environment: MutableMapping[str, str] = os.environ
        self._loop = asyncio.get_running_loop()
        self._session = session(spawned.key)
        self._context = zmq.Context()
        self._shell = self._connect(zmq.DEALER, "shell")
        self._iopub = self._connect(zmq.SUB, "iopub")
        self._execution: _Execution | None = None
        self._iopub_seen = asyncio.Event()
        self._iopub_received = 0  # messages
        self._resubscribed = False
        self._idle_seen = False
        self._never_idle = False  # an execution waited for it to no purpose
        # Whether a status, or another message, said what it belongs to.
        self._parent_seen = {True: False, False: False}
        self._bad_messages = 0
        self._monitors: dict[Any, asyncio.Future[None]] = {}
        self._info: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        for socket in (self._shell, self._iopub):
            self._loop.add_reader(socket.FD, self._read_sockets)
        self._pipes = self._raw_pipes({"stdout": spawned.stdout_fd, "stderr": spawned.stderr_fd}, spawned.key)

    def _connect(self, kind: int, channel: str) -> Any:
        socket = self._context.socket(kind)
        socket.linger = 0
        if kind == zmq.DEALER:
            # The same on all channels: a kernel asks for input whoever sent the code.
            socket.setsockopt(zmq.ROUTING_ID, self._session.bsession)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        # Never wait for a kernel that does not read.
        socket.setsockopt(zmq.SNDTIMEO, 0)
        # The kernel binds some 0.3 s after we connect: 5 ms late at most, then.
        socket.setsockopt(zmq.RECONNECT_IVL, 5)
        socket.setsockopt(zmq.RCVHWM, 0 if channel == "iopub" else 1000)
        if channel == "iopub":
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(self._spawned.url(channel))
        return socket

    @property
    def process_id(self) -> int:
        return self._pid

    async def ready(self) -> None:
        """Return when the kernel has answered on both channels, or on its shell alone for SILENT_AFTER seconds.

        Raises ExecutorGoneError where it ends first.
        """
        again, within, silent_at = ASK_AGAIN, SEEN_WITHIN, 0.0
        while not (self._info.done() and self._iopub_seen.is_set()):
            self._send("kernel_info_request", {})
            await asyncio.wait((self._info, self._gone), timeout=again, return_when=asyncio.FIRST_COMPLETED)
            again = min(2 * again, ASK_AGAIN_LONGEST)
            if self._info.done() and not self._iopub_seen.is_set():
                silent_at = silent_at or self._loop.time() + SILENT_AFTER
                seen = self._loop.create_task(self._iopub_seen.wait())
                await asyncio.wait((seen, self._gone), timeout=within, return_when=asyncio.FIRST_COMPLETED)
                seen.cancel()
                within = min(2 * within, SEEN_WITHIN_LONGEST)
                if self._loop.time() >= silent_at and not self._iopub_seen.is_set():
                    self._say("the kernel answers and publishes nothing: the outputs of its tasks will be missing")
                    break
            if self._gone.done():
                raise ExecutorGoneError

    async def execute(self, code: str, sink: OutputSink, *, silent: bool = False) -> dict[str, Any]:
        """Run `code` and return the content of the kernel's reply. One at a time.

        Raises ExecutorGoneError where the kernel ends first.
        """
        if self._gone.done():
            raise ExecutorGoneError
        done: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        content = {
            # As an editor may leave it at the start of a file; no language has it in its code.
            "code": code.removeprefix("\ufeff"),
            "silent": silent,
            "store_history": not silent,
            "user_expressions": {},
            "allow_stdin": False,
            # True would make the kernel refuse the next task, too, for a moment after an error.
            "stop_on_error": False,
        }
        self._pipes.drain()  # what was printed before is not of this task
        execution = self._execution = _Execution("", sink, done, silent=silent)
        try:
            if self._resubscribed:
                # The kernel knows of the new subscription when something has come by it.
                self._resubscribed = False
                await self.ready()
            execution.message_id = self._send("execute_request", content)
            return await done
        finally:
            self._execution = None

    async def preload(self, module: str) -> str:
        """No kernel that is not Python's own can."""
        return f"this kernel imports no Python module, so leave {module} out"

    async def adopt(self, environment: Mapping[str, str]) -> str:
        """The process stays as it is: whoever calls gives it nothing that it would notice (`Capabilities.takes`)."""
        self._environment = dict(environment)
        return ""

    def interrupt(self) -> None:
        """What Ctrl-C does, for the kernel and what its code started; nothing where no code runs."""
        execution = self._execution
        if execution is None:
            return
        if execution.busy_since:
            self._interrupt(execution)
        elif not execution.interrupt_when_busy:
            execution.interrupt_when_busy = True
            if self.begins_within is not None:
                self._loop.call_later(self.begins_within, self._interrupt_unbegun, execution)

    def _interrupt_unbegun(self, execution: _Execution) -> None:
        """An interrupt that was accepted is sent, though the kernel does not say that it has begun."""
        if not execution.busy_since and self._execution is execution:
            self._begin(execution)

    def _interrupt(self, execution: _Execution) -> None:
        """One interrupt, and those that follow while the code runs on."""
        self._send_interrupt(1)
        if not execution.interrupted:
            execution.interrupted = True
            for stage, delay in enumerate(self.repeats, 2):
                self._loop.call_later(delay, self._interrupt_if_runs, execution, stage)

    def _interrupt_if_runs(self, execution: _Execution, stage: int) -> None:
        if self._execution is execution and not execution.done.done():
            self._send_interrupt(stage)

    def _send_interrupt(self, stage: int) -> None:
        """Interrupt the kernel's process group; from the second stage on, also what it started outside of the group."""
        self._signal(signal.SIGINT)
        if stage > 1 and self.exit_status is None:
            interrupt_outside(self._pid)

    def stop(self) -> None:
        """Ask the kernel to end by itself, so that its exit handlers run."""
        if not self._gone.done():
            self._send("shutdown_request", {"restart": False})

    def kill(self) -> None:
        """End the kernel and what its code started."""
        self._signal(signal.SIGKILL)

    async def gone(self, timeout: float | None) -> bool:
        """Whether the process has ended, within `timeout` seconds; None: as long as that takes."""
        await asyncio.wait((self._gone,), timeout=timeout)
        return self._gone.done()

    def child_exited(self, pid: int, status: int) -> bool:
        """Whether it was this kernel's process."""
        if pid != self._pid:
            return False
        self.exit_status = status
        return True

    async def drain(self) -> None:
        """Handle all that the ended process has sent: it may have answered before it ended.

        ZeroMQ reads the connections in a thread of its own, which finds their ends behind the last message.
        """
        for socket in () if self._shell.closed else (self._iopub, self._shell):
            monitor = socket.get_monitor_socket(_DISCONNECT_EVENTS)
            self._monitors[monitor] = self._loop.create_future()
            self._loop.add_reader(monitor.FD, self._on_monitor, monitor)
            self._on_monitor(monitor)
        if self._monitors:
            self._pipes.hold(_DISCONNECT_TIMEOUT)
            await asyncio.wait(self._monitors.values(), timeout=_DISCONNECT_TIMEOUT)
        self._close_monitors()
        while self._read_sockets():
            pass
        self._read_rest()
        if self._bad_messages > 1:
            self._say(f"{self._bad_messages} messages of the kernel were left out")
        # What it wrote last, in the pipes.
        self._pipes.drain()
        if self._execution is not None and self._execution.reply is not None:
            self._finish(self._execution)

    def abandon(self) -> None:
        """Nothing more is to be had from it: whoever waits for it is told."""
        if not self._gone.done():
            self._gone.set_result(None)
        if self._execution is not None and not self._execution.done.done():
            self._execution.done.set_exception(ExecutorGoneError())

    @property
    def is_closed(self) -> bool:
        return self._gone.done()

    def close(self) -> None:
        """End what is left of the process, and free the sockets and the pipes."""
        self.kill()
        self._close_monitors()
        for socket in (self._shell, self._iopub):
            self._loop.remove_reader(socket.FD)
            socket.close()
        self._pipes.close()
        self._context.term()
        shutil.rmtree(self._spawned.directory, ignore_errors=True)

    def _signal(self, number: int) -> None:
        # Not once it was reaped: its number may be another's by then.
        if self.exit_status is None:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, number)

    def _send(self, kind: str, content: dict[str, Any], socket: Any = None, parent: Any = None) -> str:
        """Send on the shell channel or another one; the message's id, "" where the kernel leaves a thousand unread."""
        try:
            message = self._session.send(socket or self._shell, kind, content, parent=parent)
        except zmq.Again:
            return ""
        # Sending may use up the socket's only wake-up for a message that came meanwhile.
        self._loop.call_soon(self._read_sockets)
        return str(message["msg_id"])

    def _on_monitor(self, monitor: Any) -> None:
        if monitor.poll(0) and not self._monitors[monitor].done():
            self._monitors[monitor].set_result(None)

    def _close_monitors(self) -> None:
        for monitor, told in self._monitors.items():
            self._loop.remove_reader(monitor.FD)
            monitor.close(0)
            if not told.done():
                told.set_result(None)
        self._monitors.clear()

    def _read_sockets(self) -> bool:
        """ZeroMQ's descriptor tells of a change once, so read until both sockets are empty; True where they may not be
        and are read on later."""
        for _ in range(_BATCH):
            idle = True
            for socket, handle in self._channels():
                try:
                    # An exception for each time that nothing is there would cost four times as much.
                    if not socket.get(_EVENTS) & _POLLIN:
                        continue
                    frames = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    continue
                except zmq.ZMQError:
                    return False  # closed
                idle = False
                self._handle(frames, handle)
            if idle:
                return False
        self._loop.call_soon(self._read_sockets)
        return True

    def _handle(self, frames: list[bytes], handle: Callable[[dict[str, Any]], None]) -> None:
        try:
            handle(read_message(self._session, frames))
        except BadMessageError as error:
            self._leave_out(str(error))
        except Exception as error:  # one message of a shape that nobody foresaw: the next ones count
            self._leave_out(f"{type(error).__name__}: {error}")

    def _read_rest(self) -> None:
        """Handle what the ended process had sent and its sockets did not bring."""

    def _channels(self) -> tuple[tuple[Any, Callable[[dict[str, Any]], None]], ...]:
        """What is read, in this order, and who handles it."""
        return (self._iopub, self._on_iopub), (self._shell, self._on_shell)

    def _leave_out(self, why: str) -> None:
        """Count a message that cannot be used; the first one is told, for there may be as many as of good ones."""
        self._bad_messages += 1
        if self._bad_messages == 1:
            shown = " ".join(why.split())[:200]
            self._say(f"a message of the kernel cannot be used and is left out, as are all that follow: {shown}")

    def _say(self, sentence: str) -> None:
        """A line in the engine's stderr that is not the kernel's."""
        self._on_output("stderr", f"[{sentence}]\n".encode(errors="replace"))

    def _on_shell(self, message: dict[str, Any]) -> None:
        kind = message["msg_type"]
        if kind == "kernel_info_reply" and not self._info.done():
            self._info.set_result(None)
        execution = self._execution
        if execution is None or kind != "execute_reply" or not _is_reply_to(message, execution):
            return
        execution.reply = read_reply(message["content"])
        execution.replied = self._loop.time()
        self._wait_for_idle(execution)

    def _wait_for_idle(self, execution: _Execution) -> None:
        """Whatever else may come after a reply, wait for it."""
        if execution.idle_timer is not None:
            execution.idle_timer.cancel()
        if execution.idle and not self.settles:
            self._finish(execution)
            return
        quiet = execution.idle or execution.unnamed_idle or self._never_idle
        wait = self.settles if execution.idle else QUIET if quiet else SECOND_HALF_TIMEOUT
        execution.idle_timer = self._loop.call_later(wait, self._check_idle, execution, self._iopub_received, quiet)

    def _check_idle(self, execution: _Execution, received: int, quiet: bool) -> None:
        if self._iopub_received != received and self._loop.time() < execution.replied + SECOND_HALF_LONGEST:
            self._wait_for_idle(execution)
            return
        self._never_idle = not self._idle_seen
        if quiet or execution.silent:
            self._finish(execution)
        else:
            self._finish_without_idle(execution)

    def _on_iopub(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        self._iopub_seen.set()
        self._iopub_received += 1
        status = kind == "status"
        state = content.get("execution_state") if status else None
        if state == "idle":
            self._idle_seen, self._never_idle = True, False
        execution = self._execution
        named = bool(message["parent_header"].get("msg_id"))
        self._parent_seen[status] |= named
        # A message that does not say what it belongs to is the running task's, where the kernel never says it.
        if execution is not None and not (_is_reply_to(message, execution) if named else not self._parent_seen[status]):
            execution = None
        if kind == MARK_MESSAGE:
            if isinstance(number := content.get("number"), int):
                self._pipes.marked(number)
        elif kind in ("stream", STREAMS_MESSAGE):
            for name, text in read_streams(content):
                self._on_output(name, text.encode(errors="replace"))
                if execution is not None:
                    self._begin(execution)
                    execution.sink.stream(name, text)
        elif execution is None:
            return
        elif state == "idle":
            self._on_idle(execution, named=named)
        elif status or kind == "execute_input":
            if self.begins_with in (kind, state):
                self._begin(execution)
        else:
            self._begin(execution)
            execution.sink.message(kind, content)

    def _on_idle(self, execution: _Execution, *, named: bool) -> None:
        if not named:
            # It may be the end of what came before, such as a kernel_info_request.
            execution.unnamed_idle = True
        else:
            execution.idle = True
        if execution.reply is not None:
            self._wait_for_idle(execution)
        elif named:
            execution.idle_timer = self._loop.call_later(SECOND_HALF_TIMEOUT, self._finish, execution)

    def _begin(self, execution: _Execution) -> None:
        if execution.busy_since:
            return
        execution.busy_since = self._loop.time()
        if execution.interrupt_when_busy:
            execution.interrupt_when_busy = False
            self._interrupt(execution)

    def _finish_without_idle(self, execution: _Execution) -> None:
        """The iopub channel may be lost: end this execution, and give the next one a channel again."""
        self._say(
            f"the kernel answered and did not say that it is idle: output was lost if it sent a message over "
            f"{MAX_MESSAGE_BYTES >> 20} MiB"
        )
        self._loop.remove_reader(self._iopub.FD)
        self._iopub.close()
        self._iopub = self._connect(zmq.SUB, "iopub")
        self._loop.add_reader(self._iopub.FD, self._read_sockets)
        self._iopub_seen.clear()
        self._resubscribed = True
        self._finish(execution)

    def _finish(self, execution: _Execution) -> None:
        if execution.idle_timer is not None:
            execution.idle_timer.cancel()
        # A child process's or a C library's output of this task is in the pipes already.
        self._pipes.drain()
        if not execution.done.done():
            execution.done.set_result(execution.reply or {"status": "aborted"})

    def _on_raw(self, name: str, data: bytes, text: str) -> None:
        """What came by one of the raw pipes."""
        self._on_output(name, data)
        if self._execution is not None and text:
            self._execution.sink.stream(name, text)

    def _raw_pipes(self, descriptors: dict[str, int], _key: str) -> RawPipes:
        """The kernel's raw pipes. It says nothing of their order against its messages."""
        return RawPipes(descriptors, self._on_raw)


def _is_reply_to(message: dict[str, Any], execution: _Execution) -> bool:
    return bool(message["parent_header"].get("msg_id") == execution.message_id)
