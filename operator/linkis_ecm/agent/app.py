"""Puts the agent together around a kernel that boots already, and ends it in order.

The order at the end: the running task, the kernel, the answers that are owed, the last report, the log streams. Each
of these waits has a bound, so that the pod is gone within its grace.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

from linkis_ecm.agent.engine import STOPPED_BY_SIGNAL, Engine
from linkis_ecm.agent.executors.registry import connect
from linkis_ecm.agent.executors.spawn import SpawnedKernel
from linkis_ecm.agent.failures import failed
from linkis_ecm.agent.formats.names import JOB_RESULT, JOB_TASK
from linkis_ecm.agent.host.process_bound import ProcessBound
from linkis_ecm.agent.host.usage import Usage
from linkis_ecm.agent.http.routes import Api
from linkis_ecm.agent.http.server import Server
from linkis_ecm.agent.identity import Identity
from linkis_ecm.agent.logs.files import LogFiles
from linkis_ecm.agent.member.claims import Claims
from linkis_ecm.agent.operator_client.reporter import Reporter
from linkis_ecm.agent.operator_client.results import Results
from linkis_ecm.agent.settings import Settings, SettingsError, read_settings
from linkis_ecm.agent.states import FAILED, IDLE

ANSWERS_TIMEOUT = 2.0
REPORT_TIMEOUT = 3.0
RESULT_TIMEOUT = 1.0
STREAMS_TIMEOUT = 1.0
# For the log files on their way to the archive: with the 5 s that a kernel may take to end, within the 15 s that the
# pod's grace has over the engine's (launch.AFTER_GRACE).
UPLOAD_TIMEOUT = 8.0


def run(*, kernel: SpawnedKernel, process_started: float, early_signals: list[int]) -> int:
    """Run the agent; the process's exit code. 2: its environment cannot be used."""
    try:
        settings = read_settings(os.environ)
        logs = LogFiles(settings.log_dir, file_bytes=settings.log_file_bytes, total_bytes=settings.log_total_bytes)
    except (SettingsError, OSError) as error:
        sentence = str(error)
        if isinstance(error, OSError):
            sentence = f"ECM_LOG_DIR cannot be written: {error}"
        sys.stderr.write(f"the agent cannot start: {sentence}\n")
        kernel.discard()
        shutil.rmtree(kernel.directory, ignore_errors=True)
        return 2
    timings = {
        "processStarted": process_started,
        "kernelStarted": kernel.started,
        "kernelReady": 0.0,
        "listening": 0.0,
    }
    try:
        return asyncio.run(_Agent(settings, logs, timings).run(kernel, early_signals))
    finally:
        logs.close(STREAMS_TIMEOUT)
        shutil.rmtree(kernel.directory, ignore_errors=True)


class _Agent:
    def __init__(self, settings: Settings, logs: LogFiles, timings: dict[str, float]) -> None:
        self._settings = settings
        self._logs = logs
        self._timings = timings
        self._sequence = 0
        self._engine: Engine | None = None
        self._claims: Claims | None = None
        self._report_change: Callable[[], None] = lambda: None

    async def run(self, spawned: SpawnedKernel, early_signals: list[int]) -> int:
        settings, logs = self._settings, self._logs
        loop = asyncio.get_running_loop()
        executor = connect(os.environ, spawned, self._printed)
        identity = Identity(
            key=settings.key,
            pod_uid=settings.pod_uid,
            nonce=settings.nonce or os.urandom(16).hex(),
            token_file=settings.identity_file,
        )
        reporter = Reporter(
            host=settings.report_host,
            port=settings.report_port,
            identity=identity,
            on_refused=self._refused,
            period=settings.report_period,
            snapshot=self._report,
            log=logs.event,
        )
        usage = Usage()
        bound = ProcessBound(settings.max_processes, usage.processes)
        results = Results(settings, identity, logs.event, rng=random.Random())  # noqa: S311 - jitter
        engine = Engine(
            executor=executor,
            logs=logs,
            usage=usage,
            bound=bound,
            timings=self._timings,
            on_change=reporter.changed,
            on_task_over=results.task_over,
            once=settings.mode == "once",
            preload=settings.preload if settings.member else None,
            start_timeout=settings.start_timeout,
        )
        self._claims = self._claims_of(engine, identity, results, reporter)
        self._engine, self._report_change = engine, reporter.changed

        def reap() -> None:
            """Every child that ended: the executor's process, or an orphan of its that was handed to us."""
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if pid == 0:
                    return
                engine.child_exited(pid, status)

        def terminate(name: str) -> None:
            engine.stop(grace=self._settings.stop_grace, reason=f"the agent got {name}", code=STOPPED_BY_SIGNAL)

        loop.add_signal_handler(signal.SIGCHLD, reap)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, terminate, number.name)
        api = Api(engine, identity=identity, logs=logs, status=self._report, claims=self._claims)
        server = Server(api.handle, on_error=lambda text: logs.event("ERROR", text))
        try:
            port = await server.start(settings.host, settings.port)
        except OSError as error:
            sys.stderr.write(f"the agent cannot start: ECM_AGENT_PORT {settings.port} cannot be listened on: {error}\n")
            engine.close()
            return 2
        self._timings["listening"] = time.time()
        who = f"engine {settings.namespace}/{settings.name}, attempt {settings.attempt}, ticket {settings.ticket_id}"
        if settings.member:
            who = f"member of a warm pool in {settings.namespace}"
        logs.event("INFO", f"{who}: the agent listens on port {port}")
        reporting = loop.create_task(reporter.run())
        sending = loop.create_task(results.run())
        reporter.changed()
        watching = loop.create_task(bound.watch())
        living = loop.create_task(engine.run() if settings.mode != "once" else self._run_job(engine, identity))
        reap()  # a kernel that died before the handler was there
        if early_signals:
            terminate("SIGTERM")

        code = await engine.ended
        await self._keep_failed_result(engine, living)
        # The tasks' callers first, then the operator: both want what only this process knows.
        await asyncio.gather(
            server.stop(ANSWERS_TIMEOUT), reporter.flush(REPORT_TIMEOUT), self._upload_logs(identity, results, sending)
        )  # fmt: skip
        for task in (living, reporting, watching):
            task.cancel()
        await asyncio.wait((living, reporting, watching), timeout=1.0)
        engine.close()
        return code

    def _claims_of(self, engine: Engine, identity: Identity, results: Results, reporter: Reporter) -> Claims | None:
        """What makes this agent an engine's, where it is a member of a warm pool."""
        if not self._settings.member:
            return None
        self._timings["claimed"] = 0.0

        def adopt(settings: Settings) -> None:
            self._settings = settings
            results.adopt(settings)
            reporter.answered()

        return Claims(engine, identity, dict(os.environ), adopt=adopt, log=self._logs.event)

    async def _keep_failed_result(self, engine: Engine, living: asyncio.Task[None]) -> None:
        """Of a job whose engine has failed."""
        if self._settings.mode == "once" and engine.state == FAILED:
            # It may be on its way to keep what the job's last line left: the engine's end has the last word.
            await asyncio.wait((living,), timeout=RESULT_TIMEOUT)
            if (job := engine.tasks.find(JOB_TASK)) is not None and job.is_ended:
                await self._keep_result(failed(job.result(), engine.reason, engine.message))

    def _printed(self, name: str, data: bytes) -> None:
        self._logs.write(name, data)
        engine = self._engine
        if engine is not None and engine.state == IDLE and engine.background.printed():
            self._report_change()

    async def _upload_logs(self, identity: Identity, results: Results, sending: asyncio.Task[None]) -> None:
        from linkis_ecm.agent.operator_client.archive import upload_logs  # noqa: PLC0415 - no start waits for it

        sending.cancel()
        await asyncio.wait((sending,), timeout=1.0)
        if self._settings.member:
            return  # nobody's files
        await upload_logs(self._settings, identity, self._logs, seconds=UPLOAD_TIMEOUT, results=results)

    async def _run_job(self, engine: Engine, identity: Identity) -> None:
        """A `once` engine: its code is fetched while the kernel boots, run, and its result kept beside the logs."""
        from linkis_ecm.agent.operator_client.archive import UploadError, fetch_job  # noqa: PLC0415 - see above

        try:
            job = await fetch_job(self._settings, identity)
        except UploadError as error:
            engine.fail("JobFailed", f"the code could not be fetched: {error}", 1)
            return
        result = await engine.run_job(str(job.get("code") or ""))
        if result is None:
            return
        await self._keep_result(result)
        engine.end_job(result)

    async def _keep_result(self, result: dict[str, Any]) -> None:
        try:
            text = json.dumps(result, ensure_ascii=False)
            await asyncio.to_thread(_write, f"{self._settings.log_dir}/{JOB_RESULT}", text)
        except Exception as error:  # whatever keeps it from being kept, the job is over
            self._logs.event("WARN", f"the job's result could not be kept: {type(error).__name__}: {error}")

    def _refused(self, sentence: str) -> None:
        """Somebody else is this engine's agent to the operator: code of the engine was quicker. It must not go on."""
        sys.stderr.write(f"the operator refuses this agent: {sentence}\n")
        if self._engine is not None:
            self._engine.fail("IdentityTaken", f"the operator refuses this agent: {sentence}", 1)

    def _report(self) -> dict[str, Any]:
        settings = self._settings
        self._sequence += 1
        who = {
            "namespace": settings.namespace,
            "name": settings.name,
            "uid": settings.uid,
            "attempt": settings.attempt,
            "sequence": self._sequence,
        }
        member = self._claims.reported() if self._claims is not None else {}
        return who | (self._engine.report() if self._engine is not None else {}) | member


def _write(path: str, text: str) -> None:
    """The folder is the user's code's to write in: what it put there under that name is neither followed nor waited
    for."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags, 0o640), "wb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no file")
        file.write(text.encode(errors="replace"))
