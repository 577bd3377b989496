"""Sends spilled results to the archive after the task that made them, so that they outlive the pod however it ends.

In the background, one at a time. A list beside them tells which task had which as which output. Must not hold up a task
or the engine's end: what is not sent by then is tried once more within the time that is left (`archive.upload_logs`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import h11

from linkis_ecm.agent.formats.names import RESULTS_LIST
from linkis_ecm.agent.formats.result_files import file_name, is_id, open_result
from linkis_ecm.agent.identity import Identity
from linkis_ecm.agent.logs.bounded_file import write_all
from linkis_ecm.agent.logs.files import OpenLog
from linkis_ecm.agent.operator_client.client import exchange, identity_query
from linkis_ecm.agent.settings import Settings
from linkis_ecm.agent.tasks import Task

# Results that wait to be sent, and tasks that the list names: as many as an engine keeps results (spill.MAX_RESULTS).
WAITING_MAX = 64
LISTED_MAX = 64
# For one file of 256 MiB, and how often it is tried: an operator that restarts is back within a minute.
SEND_SECONDS = 300.0
RETRIES, RETRY_PAUSE = 6, 1.0
# Nothing heard, or not now: it is sent again. Whatever else is refused would be refused again.
_RETRY_STATUSES = (0, 503, 507)


class Results:
    """The results of one engine on their way."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        log: Callable[[str, str], None],
        *,
        rng: random.Random,
        pause: float = RETRY_PAUSE,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._log = log
        self._rng = rng
        self._pause = pause
        self._waiting: deque[tuple[str, int, dict[str, Any]]] = deque(maxlen=WAITING_MAX)
        self._tasks: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._task_ended = asyncio.Event()

    def adopt(self, settings: Settings) -> None:
        """These are the results of another engine: the one that has claimed this agent."""
        self._settings = settings

    def task_over(self, task: Task) -> None:
        """What the ended task has spilled is to be sent."""
        outputs = task.outputs.result() if task.outputs is not None else []
        for index, output in enumerate(outputs):
            if is_id(output.get("resultId")):
                told = {name: value for name, value in output.items() if name != "rows"}
                self._waiting.append((task.id, index, {"status": task.status, "count": len(outputs), "output": told}))
                self._task_ended.set()

    async def run(self) -> None:
        """Sends what comes, until cancelled."""
        while self._settings.report_host:
            await self._task_ended.wait()
            self._task_ended.clear()
            while self._waiting:
                # It stays in the queue until it is done with: cancelled in the middle, it is sent on the way out.
                waiting = self._waiting[0]
                for attempt in range(RETRIES):
                    if attempt:
                        await asyncio.sleep(self._pause * 2**attempt * self._rng.uniform(0.5, 1.5))
                    if await self._send(*waiting):
                        break
                if self._waiting and self._waiting[0] is waiting:
                    self._waiting.popleft()

    async def flush(self) -> None:
        """One try for each that waits."""
        while self._waiting:
            await self._send(*self._waiting[0])
            self._waiting.popleft()

    async def _send(self, task_id: str, index: int, told: dict[str, Any]) -> bool:
        """The file, then the list. True where there is nothing left to do for it."""
        result_id = told["output"]["resultId"]
        descriptor = open_result(self._settings.log_dir, result_id)
        if descriptor is None:
            return True  # dropped for later ones
        answer = await self._put(file_name(result_id), descriptor)
        if answer != 200:
            return answer not in _RETRY_STATUSES
        task = self._tasks.setdefault(task_id, {"status": told["status"], "count": told["count"], "outputs": {}})
        task["outputs"][str(index)] = told["output"]
        while len(self._tasks) > LISTED_MAX:
            self._tasks.popitem(last=False)
        descriptor = os.memfd_create(RESULTS_LIST)
        write_all(descriptor, json.dumps({"tasks": self._tasks}, ensure_ascii=True).encode())
        return await self._put(RESULTS_LIST, descriptor) not in _RETRY_STATUSES

    async def _put(self, name: str, descriptor: int) -> int:
        """The operator's answer to the file, which is closed then; 0 where there was none."""
        target = f"/v1/archive/{name}?{identity_query(self._settings, self._identity)}"
        file = OpenLog(descriptor, None)
        try:
            async with asyncio.timeout(SEND_SECONDS):
                status, body = await exchange(self._settings, self._identity, b"PUT", target, file)
        except (OSError, TimeoutError, EOFError, h11.ProtocolError) as error:
            self._log("WARN", f"{name} was not archived: {type(error).__name__}: {error}")
            return 0
        finally:
            file.close()
        if status != 200:
            self._log("WARN", f"{name} was not archived: {status} {body[:200].decode(errors='replace')}")
        return status
