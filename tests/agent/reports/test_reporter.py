"""Calling home: at once, in order, again after a failure, and never in the way of executions."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.agent.identity import Identity
from linkis_ecm.agent.operator_client.reporter import AFTER_ANSWER, Reporter
from tools.testkit.agents.process import PATIENCE, AgentProcess, Pending, until


class Operator:
    """Takes reports as the operator's service does; `answers` are given first, then 204."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.reports: list[dict[str, Any]] = []
        self.authorizations: set[str] = set()
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


class Told(Reporter):
    """Without a connection, for time that only sleeping moves: what is posted, and what comes of it."""

    def __init__(self, *, answer: Callable[[int], str | None] = lambda _: None, **options: Any) -> None:
        super().__init__(**options)
        self.answer = answer
        self.posted: list[tuple[float, str]] = []

    async def _post(self) -> str | None:
        self.posted.append((asyncio.get_running_loop().time(), self._snapshot()["state"]))
        return self.answer(len(self.posted))


@asynccontextmanager
async def reporting(
    operator: Operator, kind: type[Reporter] = Reporter, **options: Any
) -> AsyncIterator[tuple[Any, dict[str, Any], list[str]]]:
    state: dict[str, Any] = {"state": "Starting", "sequence": 0}
    log: list[str] = []

    def snapshot() -> dict[str, Any]:
        state["sequence"] += 1
        return dict(state)

    identity = Identity(key="Secret", pod_uid="pod", nonce="0" * 32, token_file="/nonexistent")
    settings: dict[str, Any] = {"host": "127.0.0.1", "port": operator.port, "identity": identity, "period": 60.0}
    reporter = kind(
        snapshot=snapshot,
        on_refused=log.append,
        log=lambda level, text: log.append(f"{level} {text}"),
        **settings | options,
    )
    task = asyncio.create_task(reporter.run())
    try:
        yield reporter, state, log
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def eventually(ready: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
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


@pytest.mark.looptime
async def test_changes_in_a_row_are_told_once_a_gap_and_the_last_is_always_told() -> None:
    async with reporting(Operator(), Told, host="operator", gap=0.2) as (reporter, state, _):
        begun = asyncio.get_running_loop().time()
        for number in range(100):
            state["state"] = f"state {number}"
            reporter.changed()
            await asyncio.sleep(0.001)
        await asyncio.sleep(10)
        # The first at once, and what there was when the gap was over.
        assert [told for _, told in reporter.posted] == ["state 0", "state 99"]
        assert [at - begun for at, _ in reporter.posted] == pytest.approx([0, 0.2])
        reporter.changed()
        await asyncio.sleep(0.01)
        before = asyncio.get_running_loop().time()
        assert await reporter.flush(5)
        assert asyncio.get_running_loop().time() == before, "the last word waits for no gap"


@pytest.mark.looptime
async def test_what_an_answer_has_told_already_is_reported_later_and_the_last_word_at_once() -> None:
    async with reporting(Operator(), Told, period=100, host="operator") as (reporter, state, _):
        await asyncio.sleep(10)
        reporter.answered()
        begun = asyncio.get_running_loop().time()
        for name in ("Idle", "Busy", "Idle"):
            state["state"] = name
            reporter.changed()
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        told = [(round(at - begun, 3), name) for at, name in reporter.posted if at >= begun]
        assert told == [(AFTER_ANSWER, "Idle")]
        reporter.answered()
        before = asyncio.get_running_loop().time()
        assert await reporter.flush(5)
        assert asyncio.get_running_loop().time() == before


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
    waits: list[float] = []

    def jitter(_low: float, high: float) -> float:
        waits.append(high)
        return 0.0

    async with await operator.serve(), reporting(operator, uniform=jitter) as (reporter, _, _log):
        reporter.changed()
        await eventually(lambda: len(operator.reports) == 7)
        assert operator.connections == 7
        assert waits == [0.1] * 6, "they do not grow"
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


@pytest.mark.looptime
async def test_a_newer_state_replaces_one_that_could_not_be_told() -> None:
    options: dict[str, Any] = {"answer": lambda number: "refused" if number == 1 else None, "host": "operator"}
    async with reporting(Operator(), Told, uniform=lambda _low, high: high, **options) as (reporter, state, _):
        state["state"] = "Idle"
        reporter.changed()
        for name in ("Busy", "Idle", "ShuttingDown"):
            await asyncio.sleep(0.03)
            state["state"] = name
            reporter.changed()
        await asyncio.sleep(1)
        assert [told for _, told in reporter.posted][:2] == ["Idle", "ShuttingDown"]


async def test_a_connection_that_was_closed_meanwhile_costs_no_retry() -> None:
    operator = Operator()
    operator.keep_alive = False
    async with await operator.serve(), reporting(operator) as (reporter, _, log):
        for number in range(1, 4):
            reporter.changed()
            await eventually(lambda number=number: len(operator.reports) == number)
            # The answer and the close have arrived.
            await eventually(lambda: reporter._connection is None or reporter._connection[0].at_eof())
        assert operator.connections == 3
        assert log == []


async def test_the_last_report_does_not_wait_for_a_retrys_turn() -> None:
    operator = Operator(503)
    async with await operator.serve(), reporting(operator, uniform=lambda _low, _high: 600.0) as (reporter, state, _):
        reporter.changed()
        await eventually(lambda: len(operator.reports) == 1)
        state["state"] = "Failed"
        assert await reporter.flush(PATIENCE)
        assert operator.reports[-1]["state"] == "Failed"


async def test_an_operator_that_is_not_there_is_told_in_the_log() -> None:
    operator = Operator()
    with socket.socket() as taken:  # nobody else gets the port, and nobody listens on it
        taken.bind(("127.0.0.1", 0))
        operator.port = taken.getsockname()[1]
        async with reporting(operator) as (reporter, _, log):
            assert not await reporter.flush(0.3)
            await eventually(lambda: log)
            assert log[0].startswith("WARN the report was not taken and is sent again: ConnectionRefusedError")


@pytest.mark.looptime
async def test_the_last_report_is_given_up_in_time() -> None:
    async with reporting(Operator(), Told, answer=lambda _: "refused", host="operator") as (reporter, _, _log):
        begun = asyncio.get_running_loop().time()
        assert not await reporter.flush(0.3)
        assert asyncio.get_running_loop().time() - begun == pytest.approx(0.3)


async def test_without_an_address_nothing_is_sent() -> None:
    async with reporting(Operator(), host="", port=0) as (reporter, state, _):
        assert await reporter.flush(1)
        assert state["sequence"] == 0


# -- a real agent ----------------------------------------------------------------------------------------------------


async def test_an_engine_tells_its_life_from_start_to_end(start: Callable[..., AgentProcess], tmp_path: Path) -> None:
    operator = Operator(503)
    # It is Busy until that was told: a state that is over within 50 ms may never be.
    go = tmp_path / "go"
    code = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\ntime.sleep(0.2)"
    async with await operator.serve():
        agent = await asyncio.to_thread(
            start, ECM_REPORT_URL=f"http://127.0.0.1:{operator.port}", ECM_REPORT_PERIOD="0.5"
        )
        await eventually(lambda: states(operator)[-1:] == ["Idle"])
        running = agent.start_execute(code)
        await eventually(lambda: states(operator)[-1:] == ["Busy"])
        go.touch()
        await eventually(lambda: states(operator)[-2:] == ["Busy", "Idle"])
        assert (await asyncio.to_thread(running.answer))[1]["status"] == "Succeed"
        await asyncio.to_thread(agent.call, "POST", "/v1/stop", {"graceSeconds": 0, "reason": "idle for too long"})
        assert await asyncio.to_thread(agent.exit_code) == 0
    assert states(operator) == ["Starting", "Idle", "Busy", "Idle", "ShuttingDown"]
    assert operator.authorizations == {"bearer token-of-this-engine"}
    last = operator.reports[-1]
    assert (last["reason"], last["message"], last["tasksSucceeded"]) == ("Stopped", "idle for too long", 1)
    assert last["metrics"]["totalBusyTimeMills"] >= 200
    sequences = [report["sequence"] for report in operator.reports]
    assert sequences == sorted(set(sequences))


async def test_the_report_of_a_dead_kernel_is_the_last_one(start: Callable[..., AgentProcess]) -> None:
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
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken.append(reader)
            await asyncio.sleep(600)

        hole = await asyncio.start_server(take, "127.0.0.1", 0)
        ports.append(hole.sockets[0].getsockname()[1])
        async with asyncio.timeout(2 * PATIENCE):
            while not done:  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.02)

    def call() -> tuple[int, Any]:
        asyncio.run(silent())
        return 0, None

    ports: list[int] = []
    taken: list[asyncio.StreamReader] = []
    done: list[bool] = []
    pending = Pending(call)
    try:
        until(lambda: ports)
        agent = start(ECM_REPORT_URL=f"http://127.0.0.1:{ports[0]}")
        until(lambda: taken)
        for _ in range(20):
            assert agent.execute("1")["status"] == "Succeed"
        # A report is given up after 5 s and tried on another connection. An execution has two changes of state: had
        # it waited for one of them to be told, there were 20 connections by now.
        assert len(taken) < 15
        agent.process.kill()  # its last report would wait for its bound
    finally:
        done.append(True)
        pending.answer()


def states(operator: Operator) -> list[str]:
    """The states told, repetitions left out."""
    told = [report["state"] for report in operator.reports]
    return [name for before, name in zip(["", *told], told, strict=False) if name != before]
