"""followEngineLog: a log as it grows, of a real agent; where it begins, how it ends, who is one too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from linkis_ecm.gateway.logs import live as live_logs
from linkis_ecm.gateway.logs.live import FOLLOWERS_PER_ENGINE
from tests.gateway.raw import connect, head_of
from tools.testkit.agents.process import AgentProcess, until
from tools.testkit.big_files import write_zeros
from tools.testkit.clocks import LoopClock
from tools.testkit.gateway.harness import BASE, PATIENCE, TOKEN, Harness
from tools.testkit.gateway.real_agents import engine_at, start_agent

Make = Callable[..., Awaitable[Harness]]


class Follower:
    """What comes, as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.got = b""

    @property
    def offset(self) -> int:
        return int(self.answer.headers["X-Log-Offset"])

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            while text not in self.got:
                data = await self.answer.content.readany()
                assert data, self.got[-500:]
                self.got += data

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            self.got += await self.answer.content.read()
        return self.got


@asynccontextmanager
async def following(
    gw: Harness, engine: dict[str, Any], log_type: str = "stdout", **asked: str
) -> AsyncIterator[Follower]:
    headers = {"Token-Code": TOKEN, "Token-User": "alice"}
    query = {"engineId": engine["metadata"]["uid"], "logType": log_type} | asked
    async with gw.session.get(f"{gw.url}{BASE}/followEngineLog", params=query, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        yield Follower(answer)


async def active(agent: AgentProcess, what: str) -> None:
    await asyncio.to_thread(until, lambda: agent.status()["active"] == what)


async def test_new_lines_come_while_the_log_grows(gw: Harness, agent: AgentProcess) -> None:
    engine = engine_at(gw, agent)
    await gw.execute(engine, "print('before')")
    async with following(gw, engine) as follower:
        assert follower.answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        await follower.until(b"before\n")
        for n in range(3):
            await gw.execute(engine, f"print('later', {n})")
            await follower.until(f"later {n}\n".encode())
        assert agent.log("stdout").encode()[follower.offset :].startswith(follower.got)
        await active(agent, "1 follower under way")
    await active(agent, "")


async def test_a_followed_log_begins_at_its_tail_or_at_the_given_offset(gw: Harness, agent: AgentProcess) -> None:
    engine = engine_at(gw, agent)
    agent.write("gc", b"".join(b"%04d\n" % n for n in range(1000)))
    for asked, begins in (
        ({}, 5000 - 4096), ({"tailBytes": "10"}, 4990), ({"tailBytes": "0"}, 5000), ({"tailBytes": "99999"}, 0),
        ({"fromByte": "0"}, 0), ({"fromByte": "4995"}, 4995), ({"fromByte": "4990", "tailBytes": "5"}, 4990),
    ):  # fmt: skip
        async with following(gw, engine, "gc", **asked) as follower:
            assert follower.offset == begins, asked
            if begins < 5000:
                await follower.until(b"0999\n")
                assert len(follower.got) == 5000 - begins, asked
    agent.write("gc", b"end\n")
    # A place that this log never had is one of another log, which code has cut or replaced.
    async with following(gw, engine, "gc", fromByte="5005") as follower:
        await follower.until(b"end\n")
        assert follower.offset == 0
        assert len(follower.got) == 5004
    (agent.log_dir / "gc").unlink()


async def test_a_follower_that_was_cut_off_continues_at_its_offset(gw: Harness, agent: AgentProcess) -> None:
    engine = engine_at(gw, agent)
    code = "import time\nfor n in range(200): print('piece', n); time.sleep(0.002)"
    running = asyncio.create_task(gw.execute(engine, code))
    got, at = b"", len(agent.log("stdout").encode())
    begin = at
    while b"piece 199\n" not in got:
        async with following(gw, engine, fromByte=str(at)) as follower:
            assert follower.offset == at
            data = await follower.answer.content.readany()
            got, at = got + data, at + len(data)
    await running
    assert agent.log("stdout").encode()[begin:].startswith(got)


async def test_a_followed_log_ends_with_the_engine(gw: Harness, tmp_path: Any) -> None:
    agent = start_agent(tmp_path)
    try:
        engine = engine_at(gw, agent)
        async with following(gw, engine, fromByte="0") as follower:
            await asyncio.to_thread(agent.call, "POST", "/v1/stop", {"graceSeconds": 0})
            text = await follower.rest()
        assert text.rstrip().endswith(b"the engine has stopped")
    finally:
        agent.close()


async def test_an_engine_that_is_killed_breaks_it_off_and_nobody_takes_that_for_an_end(
    gw: Harness, tmp_path: Any
) -> None:
    agent = start_agent(tmp_path)
    try:
        engine = engine_at(gw, agent)
        async with following(gw, engine, fromByte="0") as follower:
            await follower.until(b"listens on port")
            agent.process.kill()
            with pytest.raises(aiohttp.ClientError):
                await follower.rest()
    finally:
        agent.close()


async def test_one_follower_too_many_is_told_so_and_a_place_is_free_when_one_has_left(
    gw: Harness, agent: AgentProcess
) -> None:
    engine = engine_at(gw, agent)
    query = {"engineId": engine["metadata"]["uid"]}
    opened = []
    try:
        for _ in range(FOLLOWERS_PER_ENGINE):
            opened.append(following(gw, engine))
            await opened[-1].__aenter__()
        refused = await gw.get("followEngineLog", query)
        assert refused.http == 429
        assert f"{FOLLOWERS_PER_ENGINE} followers of " in refused.message
        assert refused.headers["Retry-After"] == "1"
        await active(agent, f"{FOLLOWERS_PER_ENGINE} follower under way")
        # Pages and downloads have places of their own.
        assert (await gw.get("getEngineLogs", query)).http == 200
        assert (await gw.get("downloadEngineLog", gw.download_query(engine))).http == 200
    finally:
        for context in opened:
            await context.__aexit__(None, None, None)
    await active(agent, "")
    async with following(gw, engine) as follower:
        assert follower.answer.status == 200


async def test_a_client_that_vanishes_while_nothing_is_written_is_noticed(gw: Harness, agent: AgentProcess) -> None:
    engine = engine_at(gw, agent)
    async with connect(gw) as raw:
        await raw.send(head_of("GET", "followEngineLog", {"engineId": engine["metadata"]["uid"]}))
        assert (await raw.head())[0] == 200
        await active(agent, "1 follower under way")
        raw.vanish()
    await active(agent, "")


async def test_a_client_that_takes_nothing_is_cut(make: Make, agent: AgentProcess) -> None:
    gw = await make(client_seconds=0.3)
    engine = engine_at(gw, agent)
    write_zeros(agent.log_dir / "gc", 64 << 20)
    async with connect(gw) as raw:
        asked = {"engineId": engine["metadata"]["uid"], "logType": "gc", "fromByte": "0"}
        await raw.send(head_of("GET", "followEngineLog", asked))
        assert (await raw.head())[0] == 200
        await active(agent, "")
    (agent.log_dir / "gc").unlink()


# -- scripted agents -------------------------------------------------------------------------------------------------


async def at_once() -> None:
    """The next part follows at once."""


def frames(
    *parts: bytes, offset: str = "0", between: Callable[[], Awaitable[object]] = at_once
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Log-Offset": offset})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await between()
        return response

    return send


class Heard:
    """An agent's answer, and an event for each line of it that the gateway has read."""

    def __init__(self, content: aiohttp.StreamReader, lines: asyncio.Semaphore) -> None:
        self._lines = lines
        self._content = content
        self.read = content.read

    async def readline(self) -> bytes:
        line = await self._content.readline()
        self._lines.release()
        return line


async def test_an_agents_heartbeat_keeps_a_quiet_follower_and_is_no_text(
    gw: Harness, clock: LoopClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, unframed = asyncio.Semaphore(0), live_logs._unframed
    monkeypatch.setattr(live_logs, "_unframed", lambda content: unframed(Heard(content, lines)))  # type: ignore[arg-type]

    async def quiet() -> None:
        await asyncio.wait_for(lines.acquire(), PATIENCE)
        clock.forward(0.6 * gw.settings.agent_seconds)

    _, engine = await gw.served(frames(b"4\nold\n", *[b"0\n"] * 8, b"4\nnew\n", between=quiet))
    answer = await gw.get("followEngineLog", {"engineId": engine["metadata"]["uid"]})
    assert (answer.http, answer.raw) == (200, b"old\nnew\n")


async def test_an_agent_that_is_silent_for_too_long_is_given_up(gw: Harness, clock: LoopClock) -> None:
    _, engine = await gw.served(frames(b"4\nold\n", b"4\nnew\n", between=asyncio.Event().wait))
    async with following(gw, engine) as follower:
        await follower.until(b"old\n")
        rest = asyncio.create_task(follower.rest())
        await clock.until_over(rest, gw.settings.agent_seconds)
        with pytest.raises(aiohttp.ClientError):
            await rest


@pytest.mark.parametrize("bad", [b"x\n", b"-1\n", b"9999999999\n", b"5\nabc", b"\n", b"5", b"4\nabc\nabcd"])
async def test_a_malformed_frame_ends_the_followed_log(gw: Harness, bad: bytes) -> None:
    _, engine = await gw.served(frames(b"4\nold\n", bad))
    with pytest.raises(aiohttp.ClientError):
        await gw.get("followEngineLog", {"engineId": engine["metadata"]["uid"]})


async def test_a_frame_without_an_end_is_no_bug_of_the_gateway(gw: Harness) -> None:
    _, engine = await gw.served(frames(b"4\nold\n", b"1" * (2 << 20)))
    with pytest.raises(aiohttp.ClientError):
        await gw.get("followEngineLog", {"engineId": engine["metadata"]["uid"]})
    assert b"ecm_gateway_unexpected_errors_total 0.0" in gw.gateway.metrics.registry.text()
    assert b'ecm_gateway_responses_aborted_total{side="engine"} 1.0' in gw.gateway.metrics.registry.text()


@pytest.mark.parametrize("offset", ["", "x", "-1", "9" * 19])
async def test_an_agent_that_does_not_say_where_its_bytes_begin_is_refused(gw: Harness, offset: str) -> None:
    _, engine = await gw.served(frames(b"4\nold\n", offset=offset))
    answer = await gw.get("followEngineLog", {"engineId": engine["metadata"]["uid"]})
    assert answer.http == 502
    assert "without the place of its first byte" in answer.message


async def test_a_log_of_an_ended_engine_is_given_whole_and_ends(gw: Harness) -> None:
    engine = gw.engine(status={"engineState": "Success", "finishedTime": "2026-11-24T04:10:00Z"})
    uid = engine["metadata"]["uid"]
    await gw.archive.put(uid, 0, "stdout", b"one\ntwo\n")
    for asked, text, begins in (
        ({}, b"one\ntwo\n", "0"), ({"fromByte": "4"}, b"two\n", "4"), ({"tailBytes": "3"}, b"wo\n", "5"),
        ({"fromByte": "99"}, b"", "99"),
    ):  # fmt: skip
        answer = await gw.get("followEngineLog", {"engineId": uid} | asked)
        assert (answer.http, answer.raw, answer.headers["X-Log-Offset"]) == (200, text, begins), asked
    missing = await gw.get("followEngineLog", {"engineId": uid, "logType": "gc"})
    assert missing.http == 400
    assert "does not exist or is not a file" in missing.message
