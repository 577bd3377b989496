"""Calling home: at once, in order, again after a failure, and never in the way of executions."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from linkis_ecm.agent.reporter import Reporter
from tests.agent.harness import AgentProcess, Pending, until


class Operator:
    """Takes reports as the operator's service does; `answers` are given first, then 204."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.reports: list[dict[str, Any]] = []
        self.authorizations: set[str] = set()
        self.times: list[float] = []
        self.connections = 0
        self.keep_alive = True
        self.port = 0

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._peer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                assert head.startswith("POST /v1/report HTTP/1.1\r\n")
                self.times.append(time.monotonic())
                self.authorizations.add(headers["authorization"])
                self.reports.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
                status = self.answers.pop(0) if self.answers else 204
                writer.write(
                    b"HTTP/1.1 %d Done\r\n" % status + (b"" if status == 204 else b"Content-Length: 0\r\n") + b"\r\n"
                )
                if not self.keep_alive:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def reporting(operator: Operator, **options: Any) -> AsyncIterator[tuple[Reporter, dict[str, Any], list[str]]]:
    state: dict[str, Any] = {"state": "Starting", "sequence": 0}
    log: list[str] = []

    def snapshot() -> dict[str, Any]:
        state["sequence"] += 1
        return dict(state)

    settings: dict[str, Any] = {"host": "127.0.0.1", "port": operator.port, "token": "Secret", "period": 60.0}
    reporter = Reporter(snapshot=snapshot, log=lambda level, text: log.append(f"{level} {text}"), **settings | options)
    task = asyncio.create_task(reporter.run())
    yield reporter, state, log
    task.cancel()
    await asyncio.wait((task,))


async def eventually(ready: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not ready():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.005)


async def test_each_change_is_told_at_once_over_one_connection() -> None:
    operator = Operator()
    async with await operator.serve(), reporting(operator) as (reporter, state, log):
        for number, name in enumerate(("Starting", "Idle", "Busy"), 1):
            state["state"] = name
            reporter.changed()
            await eventually(lambda number=number: len(operator.reports) == number)
        assert [report["state"] for report in operator.reports] == ["Starting", "Idle", "Busy"]
        assert [report["sequence"] for report in operator.reports] == [1, 2, 3]
        assert operator.authorizations == {"bearer secret"}
        assert operator.connections == 1
        assert log == []


async def test_changes_in_a_row_are_told_once_a_gap_and_the_last_is_always_told() -> None:
    operator = Operator()
    async with await operator.serve(), reporting(operator, gap=0.2) as (reporter, state, _):
        for number in range(100):
            state["state"] = f"state {number}"
            reporter.changed()
            await asyncio.sleep(0.001)
        await eventually(lambda: operator.reports and operator.reports[-1]["state"] == "state 99")
        assert operator.reports[0]["state"] == "state 0", "the first is told at once"
        assert len(operator.reports) <= 4
        begun = time.monotonic()
        assert await reporter.flush(5)
        assert time.monotonic() - begun < 0.15, "the last word waits for no gap"


async def test_without_a_change_it_reports_each_period() -> None:
    operator = Operator()
    async with await operator.serve(), reporting(operator, period=0.05):
        await eventually(lambda: len(operator.reports) >= 4)


async def test_a_refused_report_comes_again_after_longer_and_longer_waits() -> None:
    operator = Operator(502, 401, 404, 409, 500)
    waits: list[float] = []

    def jitter(low: float, high: float) -> float:
        waits.append(high)
        assert low == high / 2
        return 0.0

    async with await operator.serve(), reporting(operator, uniform=jitter) as (reporter, _, log):
        reporter.changed()
        assert await reporter.flush(10)
        assert waits == [0.1, 0.2, 0.4, 0.8, 1.6]
        assert [report["sequence"] for report in operator.reports] == [1, 2, 3, 4, 5, 6]
        assert log[0] == "WARN the report was not taken and is sent again: the operator answered 502"
        await eventually(lambda: log[1:] == ["INFO reports are taken again"])


async def test_a_standby_is_left_for_another_connection_at_once() -> None:
    """Behind one address two replicas answer: over a kept connection the leader would never be reached."""
    operator = Operator(*[503] * 6)
    async with await operator.serve(), reporting(operator) as (reporter, _, _):
        reporter.changed()
        await eventually(lambda: len(operator.reports) == 7)
        assert operator.connections == 7
        assert operator.times[-1] - operator.times[0] < 2
        reporter.changed()
        await eventually(lambda: len(operator.reports) == 8)
        assert operator.connections == 7, "the leader's connection is kept"


async def test_waits_do_not_grow_beyond_5_seconds() -> None:
    operator = Operator(*[500] * 9)
    waits: list[float] = []

    def jitter(_low: float, high: float) -> float:
        waits.append(high)
        return 0.0

    async with await operator.serve(), reporting(operator, uniform=jitter) as (reporter, _, _log):
        reporter.changed()
        await eventually(lambda: len(waits) == 9)
        assert waits[-3:] == [5.0, 5.0, 5.0]


async def test_a_newer_state_replaces_one_that_could_not_be_told() -> None:
    operator = Operator(503)
    async with await operator.serve(), reporting(operator, uniform=lambda _low, _high: 0.2) as (reporter, state, _):
        state["state"] = "Idle"
        reporter.changed()
        await eventually(lambda: len(operator.reports) == 1)
        for name in ("Busy", "Idle", "ShuttingDown"):
            state["state"] = name
            reporter.changed()
        await eventually(lambda: len(operator.reports) == 2)
        await asyncio.sleep(0.05)
        assert [report["state"] for report in operator.reports[:2]] == ["Idle", "ShuttingDown"]


async def test_a_connection_that_was_closed_meanwhile_costs_no_retry() -> None:
    operator = Operator()
    operator.keep_alive = False
    async with await operator.serve(), reporting(operator) as (reporter, _, log):
        for number in range(1, 4):
            reporter.changed()
            await eventually(lambda number=number: len(operator.reports) == number)
            await asyncio.sleep(0.02)  # the close arrives
        assert operator.connections == 3
        assert log == []


async def test_the_last_report_does_not_wait_for_a_retrys_turn() -> None:
    operator = Operator(503)
    async with await operator.serve(), reporting(operator, uniform=lambda _low, _high: 30.0) as (reporter, state, _):
        reporter.changed()
        await eventually(lambda: len(operator.reports) == 1)
        state["state"] = "Failed"
        assert await reporter.flush(5)
        assert operator.reports[-1]["state"] == "Failed"


async def test_the_last_report_is_given_up_in_time() -> None:
    operator = Operator()
    server = await operator.serve()
    server.close()
    await server.wait_closed()
    async with reporting(operator) as (reporter, _, log):
        started = time.monotonic()
        assert not await reporter.flush(0.3)
        assert time.monotonic() - started < 2
        assert log[0].startswith("WARN the report was not taken and is sent again: ConnectionRefusedError")


async def test_without_an_address_nothing_is_sent() -> None:
    async with reporting(Operator(), host="", port=0) as (reporter, state, _):
        assert await reporter.flush(1)
        assert state["sequence"] == 0


# -- a real agent ----------------------------------------------------------------------------------------------------


async def test_an_engine_tells_its_life_from_start_to_end(start: Callable[..., AgentProcess]) -> None:
    operator = Operator(503)
    async with await operator.serve():
        agent = await asyncio.to_thread(
            start, ECM_REPORT_URL=f"http://127.0.0.1:{operator.port}", ECM_REPORT_PERIOD="0.5"
        )
        await eventually(lambda: states(operator)[-1:] == ["Idle"])
        await asyncio.to_thread(agent.execute, "import time; time.sleep(0.2)")
        await eventually(lambda: states(operator)[-2:] == ["Busy", "Idle"])
        await asyncio.to_thread(agent.call, "POST", "/v1/stop", {"graceSeconds": 0, "reason": "idle for too long"})
        assert await asyncio.to_thread(agent.exit_code) == 0
    assert states(operator) == ["Starting", "Idle", "Busy", "Idle", "ShuttingDown"]
    assert operator.authorizations == {"bearer token-of-this-engine"}
    last = operator.reports[-1]
    assert (last["reason"], last["message"], last["tasksSucceeded"]) == ("Stopped", "idle for too long", 1)
    assert last["metrics"]["totalBusyTimeMills"] >= 200
    sequences = [report["sequence"] for report in operator.reports]
    assert sequences == sorted(set(sequences))


async def test_a_dead_kernel_is_the_last_that_is_told(start: Callable[..., AgentProcess]) -> None:
    operator = Operator()
    async with await operator.serve():
        agent = await asyncio.to_thread(start, ECM_REPORT_URL=f"http://127.0.0.1:{operator.port}")
        await asyncio.to_thread(agent.execute, "import os; os._exit(7)")
        assert await asyncio.to_thread(agent.exit_code) == 7
    last = operator.reports[-1]
    assert (last["state"], last["reason"]) == ("Failed", "KernelDied")
    assert last["message"] == "the kernel exited with code 7"
    assert last["tasksFailed"] == 1


def test_an_operator_that_does_not_answer_slows_no_execution(start: Callable[..., AgentProcess]) -> None:
    async def silent() -> None:
        hole = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(60), "127.0.0.1", 0)
        ports.append(hole.sockets[0].getsockname()[1])
        async with asyncio.timeout(30):
            while not done:  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.02)

    def call() -> tuple[int, Any]:
        asyncio.run(silent())
        return 0, None

    ports: list[int] = []
    done: list[bool] = []
    pending = Pending(call)
    until(lambda: ports)
    agent = start(ECM_REPORT_URL=f"http://127.0.0.1:{ports[0]}")
    started = time.monotonic()
    for _ in range(20):
        assert agent.execute("1")["status"] == "Succeed"
    assert time.monotonic() - started < 2
    agent.process.kill()  # its last report would wait for its bound
    done.append(True)
    pending.answer()


def states(operator: Operator) -> list[str]:
    """The states told, repetitions left out."""
    told = [report["state"] for report in operator.reports]
    return [name for before, name in zip(["", *told], told, strict=False) if name != before]
