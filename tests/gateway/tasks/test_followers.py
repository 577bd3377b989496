"""Many followers of one task: each is told everything once, whoever else is slow, late or gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from linkis_ecm.gateway.followers import follow, places
from linkis_ecm.gateway.followers.hub import BATCH_BYTES
from tests.gateway.process.test_tls import Secret
from tests.gateway.raw import connect, head_of
from tools.testkit.agents.process import AgentProcess, until
from tools.testkit.gateway.harness import BASE, BOB_TOKEN, PATIENCE, TOKEN, Harness
from tools.testkit.gateway.real_agents import engine_at

Make = Callable[..., Awaitable[Harness]]


class Reader:
    """A follower that reads at once: what it was told, and what it shows of it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.shown: dict[int, str] = {}
        self.last_id = ""
        self.end: dict[str, Any] = {}
        self._part = b""

    @property
    def text(self) -> str:
        return "".join(self.shown[index] for index in sorted(self.shown))

    def feed(self, data: bytes) -> None:
        """Some bytes of the stream."""
        *events, self._part = (self._part + data).split(b"\n\n")
        for event in events:
            if event.startswith(b": "):
                continue
            fields = dict(line.split(": ", 1) for line in event.decode().split("\n"))
            self._take(fields["event"], json.loads(fields["data"]))
            self.last_id = fields.get("id", self.last_id)

    def _take(self, name: str, data: dict[str, Any]) -> None:
        self.names.append(name)
        match name:
            case "output":
                before = "" if data.get("replaces") else self.shown.get(data["index"], "")
                self.shown[data["index"]] = before + data["output"]["text"]
            case "reset":
                self.shown.clear()
            case "end":
                self.end = data


@asynccontextmanager
async def opened(
    gw: Harness, engine: dict[str, Any], task_id: str, last_id: str = "", **more: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {"Token-Code": TOKEN, "Token-User": "alice"} | ({"Last-Event-ID": last_id} if last_id else {})
    query = {"engineId": engine["metadata"]["uid"], "taskId": task_id}
    async with gw.session.get(f"{gw.url}{BASE}/taskEvents", headers=headers, params=query, **more) as answer:
        yield answer


async def read(gw: Harness, engine: dict[str, Any], task_id: str, last_id: str = "", reader: Any = None) -> Reader:
    """Follow to the end."""
    reader = reader or Reader()
    async with opened(gw, engine, task_id, last_id) as answer:
        assert answer.status == 200, await answer.read()
        async for data in answer.content.iter_any():
            reader.feed(data)
    return reader


async def until_true(ready: Callable[[], object]) -> None:
    """The loop of these tests is the gateway's, so a thread waits."""
    await asyncio.to_thread(until, ready)


class Gate:
    """Code that prints step by step, each when it may."""

    def __init__(self, folder: Path, steps: int, prints: str) -> None:
        self._folder = folder
        self.code = (
            f"import os, time\nfor n in range({steps}):\n"
            f"    while not os.path.exists({str(folder)!r} + f'/go{{n}}'): time.sleep(0.005)\n    {prints}"
        )

    def open(self, *steps: int) -> None:
        for step in steps:
            (self._folder / f"go{step}").touch()


async def started(gw: Harness, engine: dict[str, Any], code: str) -> str:
    return str((await gw.execute(engine, code, wait=False)).data["taskId"])


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower waits for its crowd for as long as a busy machine takes to bring that together."""
    monkeypatch.setattr(follow, "JOIN_SECONDS", PATIENCE)


def shared(gw: Harness) -> int:
    return gw.gateway.followers.shared()


async def crowd(
    gw: Harness, engine: dict[str, Any], gate: Gate, count: int
) -> tuple[str, list[Reader], list[asyncio.Task[Reader]]]:
    """So many followers, of whom all are told by one reader after the first two steps."""
    task_id = await started(gw, engine, gate.code)
    readers = [Reader() for _ in range(count)]
    tasks = [asyncio.create_task(read(gw, engine, task_id, reader=reader)) for reader in readers[:1]]
    gate.open(0)
    await until_true(lambda: readers[0].text)
    tasks += [asyncio.create_task(read(gw, engine, task_id, reader=reader)) for reader in readers[1:]]
    await until_true(lambda: all(reader.text for reader in readers))
    gate.open(1)
    await until_true(lambda: shared(gw) == count)
    return task_id, readers, tasks


async def test_a_crowd_shares_one_reader_and_each_is_told_everything(
    make: Make, agent: AgentProcess, tmp_path: Path
) -> None:
    gw = await make(user_streams=100, user_at_once=0)
    engine = engine_at(gw, agent)
    gate = Gate(tmp_path, 6, "print('step', n, 'x' * 200)")
    _, readers, tasks = await crowd(gw, engine, gate, 40)
    assert gw.gateway.followers.own() == 0
    gate.open(2, 3, 4, 5)
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    expected = "".join(f"step {n} {'x' * 200}\n" for n in range(6))
    assert {reader.text for reader in readers} == {expected}
    assert {reader.end["status"] for reader in readers} == {"Succeed"}
    assert all(reader.names[0] == "status" and reader.names.count("end") == 1 for reader in readers)
    await until_true(lambda: gw.gateway.followers.own() == shared(gw) == gw.gateway.budget.held == 0)
    assert gw.gateway.metrics.followers_behind._value.get() == 0


async def test_who_comes_late_is_told_what_was_missed_and_then_shares(
    gw: Harness, engine: dict[str, Any], tmp_path: Path
) -> None:
    gate = Gate(tmp_path, 5, "print('step', n)")
    task_id, readers, tasks = await crowd(gw, engine, gate, 2)
    # Told by the shared reader, which may be before the client's own loop has it.
    await until_true(lambda: "step 1" in readers[0].text)
    seen = readers[0].last_id
    gate.open(2)
    await until_true(lambda: "step 2" in readers[1].text)
    anew, again = Reader(), Reader()
    tasks.append(asyncio.create_task(read(gw, engine, task_id, reader=anew)))
    tasks.append(asyncio.create_task(read(gw, engine, task_id, seen, reader=again)))
    # Without another print: each has been told what there is by the agent, up to the shared reader's place.
    await until_true(lambda: shared(gw) == 4)
    await until_true(lambda: anew.text == "step 0\nstep 1\nstep 2\n")
    await until_true(lambda: again.text == "step 2\n")
    gate.open(3, 4)
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert anew.text == readers[0].text == "".join(f"step {n}\n" for n in range(5))
    assert again.text == "".join(f"step {n}\n" for n in range(2, 5))


async def test_who_does_not_read_keeps_nobody_waiting_and_is_told_everything_later(
    gw: Harness, engine: dict[str, Any], tmp_path: Path
) -> None:
    gate = Gate(tmp_path, 400, "print(n, 'y' * 20_000); time.sleep(0.06 if n < 3 else 0)")
    task_id, _, tasks = await crowd(gw, engine, gate, 2)
    async with connect(gw, limit=1 << 12) as raw:
        query = {"engineId": engine["metadata"]["uid"], "taskId": task_id}
        await raw.send(head_of("GET", "taskEvents", query))
        await raw.head()
        await until_true(lambda: shared(gw) == 3)
        gate.open(*range(2, 400))
        whole = await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
        assert gw.gateway.followers.own() == 1
        body = unchunked(await rest_of(raw))
    late = Reader()
    late.feed(body)
    expected = "".join(f"{n} {'y' * 20_000}\n" for n in range(400))
    assert late.text == expected
    assert {reader.text for reader in whole} == {expected}
    assert late.end["status"] == "Succeed"


async def rest_of(raw: Any) -> bytes:
    """The body of an answer in chunks, to its last one."""
    got = bytearray()
    async with asyncio.timeout(PATIENCE):
        while not got.endswith(b"\r\n0\r\n\r\n"):
            got += await raw.reader.read(1 << 16)
    return bytes(got)


def unchunked(body: bytes) -> bytes:
    out, at = bytearray(), 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if not size:
            return bytes(out)
        out += body[end + 2 : end + 2 + size]
        assert body[end + 2 + size : end + 4 + size] == b"\r\n"
        at = end + 4 + size


async def test_who_leaves_in_the_middle_is_forgotten_and_others_go_on(
    gw: Harness, engine: dict[str, Any], tmp_path: Path
) -> None:
    gate = Gate(tmp_path, 4, "print('step', n)")
    _, readers, tasks = await crowd(gw, engine, gate, 4)
    for task in tasks[:2]:
        task.cancel()
    await until_true(lambda: shared(gw) == 2)
    gate.open(2)
    await until_true(lambda: "step 2" in readers[3].text)
    for task in tasks[2:]:
        task.cancel()
    await until_true(lambda: gw.gateway.followers.own() == shared(gw) == 0)
    await until_true(lambda: not gw.gateway.followers._tasks)
    gate.open(3)


async def test_others_may_not_follow_whoever_does_already(gw: Harness, engine: dict[str, Any], tmp_path: Path) -> None:
    gate = Gate(tmp_path, 3, "print('step', n)")
    task_id, _, tasks = await crowd(gw, engine, gate, 2)
    query = {"engineId": engine["metadata"]["uid"], "taskId": task_id}
    refused = await gw.get("taskEvents", query, user="bob", token=BOB_TOKEN)
    assert refused.http == 403
    assert shared(gw) == 2
    gate.open(2)
    await asyncio.gather(*tasks)


async def test_a_stop_of_the_gateway_ends_shared_streams_in_good_order(
    gw: Harness, engine: dict[str, Any], tmp_path: Path
) -> None:
    gate = Gate(tmp_path, 3, "print('step', n)")
    _, readers, tasks = await crowd(gw, engine, gate, 3)
    gw.gateway.streams.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert {reader.end["status"] for reader in readers} == {"Unknown"}
    assert gw.gateway.metrics.answers_cut.labels("client")._value.get() == 0
    gate.open(2)


async def test_a_batch_too_big_to_be_shared_is_read_by_each_for_itself(
    gw: Harness, engine: dict[str, Any], tmp_path: Path
) -> None:
    gate = Gate(tmp_path, 4, "print(n, 'z' * (2_000_000 if n == 2 else 1))")
    _, readers, tasks = await crowd(gw, engine, gate, 3)
    gate.open(2)
    await until_true(lambda: all(len(reader.text) > 2_000_000 for reader in readers))
    await until_true(lambda: shared(gw) == 3)
    gate.open(3)
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert {reader.text for reader in readers} == {
        "".join(f"{n} {'z' * (2_000_000 if n == 2 else 1)}\n" for n in range(4))
    }
    await until_true(lambda: not gw.gateway.budget.held)


async def test_old_clients_get_the_shared_bytes_without_chunks(
    gw: Harness, engine: dict[str, Any], tmp_path: Path
) -> None:
    gate = Gate(tmp_path, 4, "print('step', n)")
    task_id, _, tasks = await crowd(gw, engine, gate, 2)
    async with connect(gw) as raw:
        query = {"engineId": engine["metadata"]["uid"], "taskId": task_id}
        await raw.send(head_of("GET", "taskEvents", query).replace(b"HTTP/1.1", b"HTTP/1.0"))
        await raw.head()
        await until_true(lambda: shared(gw) == 3)
        gate.open(2, 3)
        old = Reader()
        old.feed(await raw.rest())
    assert old.text == "".join(f"step {n}\n" for n in range(4))
    await asyncio.gather(*tasks)


async def test_a_crowd_over_tls_is_told_the_same(make: Make, agent: AgentProcess, tmp_path: Path) -> None:
    secret = Secret(tmp_path)
    gw = await make(**secret.settings())
    gate = Gate(tmp_path, 4, "print('step', n)")
    _, readers, tasks = await crowd(gw, engine_at(gw, agent), gate, 3)
    gate.open(2, 3)
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert {reader.text for reader in readers} == {"".join(f"step {n}\n" for n in range(4))}


# -- agents that do otherwise ------------------------------------------------------------------------------------------


def line(name: str, index: int, text: str, cursor: str) -> bytes:
    event = {"event": name, "index": index, "output": {"type": "text", "stream": "stdout", "text": text}, "id": cursor}
    return json.dumps(event).encode() + b"\n"


class OldAgent:
    """An agent of a version that knows no `until`: it tells one output after the other, when it may."""

    def __init__(self) -> None:
        self.told = 1
        self.more = asyncio.Event()
        self.asked: list[dict[str, str]] = []
        self.open = 0
        self.broken = False

    def tell(self, told: int) -> None:
        self.told = told
        self.more.set()
        self.more = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.asked.append(query)
        answer = web.StreamResponse()
        await answer.prepare(request)
        at = int(query.get("from", "0.0.0.0").split(".")[1])
        self.open += 1
        try:
            while at < 9:
                more = self.more
                while at < self.told:
                    at += 1
                    await answer.write(line("output", at - 1, f"{at} ", f"0.{at}.0.0"))
                if at == 9:
                    break
                await more.wait()
                if self.broken:
                    assert request.transport is not None
                    request.transport.abort()
            await answer.write(b'{"event": "end", "id": "0.9.0.0", "taskId": "t", "status": "Succeed"}\n')
        finally:
            self.open -= 1
        return answer


async def test_an_agent_that_knows_no_places_tells_each_follower_everything_once(gw: Harness) -> None:
    old = OldAgent()
    _, engine = await gw.served(old)
    readers = [Reader() for _ in range(5)]
    tasks = []
    for number, reader in enumerate(readers, 1):
        tasks.append(asyncio.create_task(read(gw, engine, "t", reader=reader)))
        await until_true(lambda reader=reader, number=number: reader.text.endswith(f"{number} "))
        old.tell(number + 1)
        await until_true(lambda number=number: all(r.text.endswith(f"{number + 1} ") for r in readers[:number]))
    old.tell(9)
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert {reader.text for reader in readers} == {"".join(f"{n} " for n in range(1, 10))}


async def test_members_go_on_where_the_shared_connection_breaks(gw: Harness) -> None:
    old = OldAgent()
    _, engine = await gw.served(old)
    readers = [Reader() for _ in range(3)]
    tasks = [asyncio.create_task(read(gw, engine, "t", reader=reader)) for reader in readers]
    await until_true(lambda: all(reader.text for reader in readers))
    old.tell(2)
    await until_true(lambda: shared(gw) == 3 and old.open == 1)
    old.broken = True
    old.tell(2)
    await until_true(lambda: not old.open or len(old.asked) > 6)
    old.broken = False
    old.tell(9)
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert {reader.text for reader in readers} == {"".join(f"{n} " for n in range(1, 10))}
    assert {reader.end["status"] for reader in readers} == {"Succeed"}


@pytest.mark.parametrize(("size", "closes"), [(10, True), (BATCH_BYTES + 1, False)], ids=["closed", "big"])
async def test_an_agent_that_throws_members_out_is_asked_again_after_a_pause(
    gw: Harness, monkeypatch: pytest.MonkeyPatch, size: int, closes: bool
) -> None:
    """By closing the connection at once, or by batches that nobody shares: 430 connections a second."""
    monkeypatch.setattr(follow, "MEMBER_SECONDS", 0.3)
    asked: list[float] = []
    loop = asyncio.get_running_loop()

    async def hostile(request: web.Request) -> web.StreamResponse:
        asked.append(loop.time())
        answer = web.StreamResponse()
        await answer.prepare(request)
        at = int(request.query.get("from", "0.0.0.0").split(".")[1])
        while True:
            at += 1
            await answer.write(line("output", at, "x" * size, f"0.{at}.0.0"))
            await asyncio.sleep(0.02)
            if closes:
                return answer

    _, engine = await gw.served(hostile)
    readers = [Reader(), Reader()]
    began = loop.time()
    tasks = [asyncio.create_task(read(gw, engine, "t", reader=reader)) for reader in readers]
    # Each member asks once for itself, and both once together: three times in 0.3 s at most.
    await until_true(lambda: len(asked) >= 9)
    assert asked[8] - began >= 0.5
    assert not any(task.done() for task in tasks), "nobody is cut"
    for task in tasks:
        task.cancel()
    await until_true(lambda: not gw.gateway.followers._tasks)


async def test_more_followers_that_are_behind_than_an_agent_takes_are_refused_in_time(
    gw: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "TURN_SECONDS", 0.2)

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        # Without an id nobody can share it.
        await answer.write(b'{"event": "status", "status": "Running"}\n')
        await asyncio.Event().wait()
        return answer

    _, engine = await gw.served(endless)
    readers = [Reader() for _ in range(follow.OWN_CONNECTIONS)]
    tasks = [asyncio.create_task(read(gw, engine, "t", reader=reader)) for reader in readers]
    await until_true(lambda: all(reader.names for reader in readers))
    refused = await gw.get("taskEvents", {"engineId": engine["metadata"]["uid"], "taskId": "t"})
    assert refused.http == 429
    assert "15 followers of tasks of engine linkis/python-alice-abc123 are behind the others" in refused.message
    for task in tasks:
        task.cancel()
    await until_true(lambda: not gw.gateway.followers._tasks)
    assert gw.gateway.followers.own() == 0


def test_the_gauges_say_where_followers_read(gw_metrics: str) -> None:
    assert 'ecm_gateway_task_followers{source="own"} 0.0' in gw_metrics
    assert 'ecm_gateway_task_followers{source="shared"} 0.0' in gw_metrics
    assert "ecm_gateway_task_followers_behind_total 0.0" in gw_metrics


@pytest.fixture
async def gw_metrics(gw: Harness) -> str:
    async with gw.session.get(f"{gw.url}/metrics") as answer:
        return (await answer.read()).decode()


async def test_events_that_are_cut_have_no_end_and_go_on_behind_the_last_id(
    gw: Harness, engine: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here for lack of memory, which others hold: the task lives, and `end` would say that there is no more of it."""
    gate = Gate(tmp_path, 3, "print(n, 'z' * (200_000 if n == 1 else 1))")
    task_id = await started(gw, engine, gate.code)
    reader = Reader()
    gate.open(0)
    with monkeypatch.context() as patched:
        patched.setattr(gw.gateway.followers.budget._sent, "_total", 0)
        cut = asyncio.create_task(read(gw, engine, task_id, reader=reader))
        await until_true(lambda: reader.text)
        gate.open(1)
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(cut, PATIENCE)
    assert "end" not in reader.names
    gate.open(2)
    await asyncio.wait_for(read(gw, engine, task_id, reader.last_id, reader), PATIENCE)
    assert reader.text == f"0 z\n1 {'z' * 200_000}\n2 z\n"
    assert reader.end["status"] == "Succeed"


@pytest.mark.parametrize("last_id", ["0.0.1.0.0", "1.2", "0.0.1.", "....", "x"])
async def test_an_id_that_is_none_is_refused_in_the_words_of_the_caller(
    gw: Harness, engine: dict[str, Any], last_id: str
) -> None:
    task_id = await started(gw, engine, "1")
    async with opened(gw, engine, task_id, last_id) as answer:
        told = (await answer.json())["message"]
        assert answer.status == 400
    assert ("lastEventId" in told, "from:" in told) == (True, False), told
    assert "give the " in told
