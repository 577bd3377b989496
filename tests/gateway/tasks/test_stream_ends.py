"""How a task's events end where their source breaks off: never with a second answer within the first one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from linkis_ecm.gateway.http.errors import unavailable
from linkis_ecm.gateway.methods import task_events
from linkis_ecm.model.record import ExecutionRecord
from tests.gateway.raw import Raw, connect, head_of
from tests.gateway.tasks.test_followers import Reader, unchunked, until_true
from tools.testkit.gateway.harness import PATIENCE, Harness
from tools.testkit.gateway.real_agents import NAME
from tools.testkit.gateway.stores import store_in

Make = Callable[..., Awaitable[Harness]]
BEGUN = b'{"event": "status", "status": "Running", "id": "0.1.0.0"}\n'
NO_DATABASE = "The database does not answer: try again in a moment"


class Breaking:
    """An agent whose events break off when they are told to, and which answers nothing from then on."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if self.over.is_set():
            request.transport.abort()
            await asyncio.Event().wait()
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(BEGUN)
        await self.over.wait()
        request.transport.abort()
        return answer


@asynccontextmanager
async def followed(gw: Harness, agent: Breaking) -> AsyncIterator[tuple[Raw, dict[str, Any]]]:
    """Somebody follows a task of the agent's, and has its first event."""
    _, engine = await gw.served(agent, name=NAME)
    async with connect(gw) as raw:
        await raw.send(head_of("GET", "taskEvents", {"engineId": engine["metadata"]["uid"], "taskId": "t"}))
        assert (await raw.head())[0] == 200
        await until_true(lambda: gw.gateway.followers.own() == 1)
        yield raw, engine


async def told(raw: Raw) -> Reader:
    """The rest of the stream, which ends as HTTP has it."""
    got = await raw.reader.readuntil(b"\r\n0\r\n\r\n")
    reader = Reader()
    reader.feed(unchunked(got))
    return reader


@pytest.mark.parametrize("ends", ["final", "deleted"])
async def test_the_end_of_an_engine_while_the_database_is_silent_is_told_as_unknown(
    gw: Harness, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    async def refuse(_: str) -> ExecutionRecord | None:
        raise unavailable(NO_DATABASE)

    monkeypatch.setattr(gw.gateway.executions, "find", refuse)
    agent = Breaking()
    async with followed(gw, agent) as (raw, engine), asyncio.timeout(PATIENCE):
        end_engine(gw, engine, ends)
        agent.over.set()
        end = (await told(raw)).end
    assert (end["status"], end["message"]) == ("Unknown", f"{NO_DATABASE}.")


@pytest.mark.parametrize(("ends", "word"), [("final", "has ended"), ("deleted", "was deleted")])
async def test_the_end_of_an_engine_whose_task_nobody_knows_is_told_with_the_remedy(
    gw: Harness, ends: str, word: str
) -> None:
    """A deleted engine's agent was asked, does not answer, and the refusal stood in the middle of the stream."""
    agent = Breaking()
    async with followed(gw, agent) as (raw, engine), asyncio.timeout(PATIENCE):
        end_engine(gw, engine, ends)
        agent.over.set()
        end = (await told(raw)).end
    assert end["status"] == "Unknown"
    assert end["message"] == f"engine linkis/{NAME} {word}: ask getTask how its tasks ended."


async def test_a_task_that_the_journal_has_ended_is_told_after_its_engine_was_deleted(
    make: Make, tmp_path: Path
) -> None:
    with store_in(tmp_path) as store:
        gw = await make(database=store.parts)
        agent = Breaking()
        async with followed(gw, agent) as (raw, engine), asyncio.timeout(PATIENCE):
            uid = engine["metadata"]["uid"]
            gw.gateway.executions.write(
                ExecutionRecord(
                    task_id="t", ticket_id=uid, uid=uid, attempt=0, caller="alice", run_type="python",
                    code_sha256="", code_chars=0, status="Failed", reason="OOM", accepted=1.0, ended=2.0,
                )
            )  # fmt: skip
            end_engine(gw, engine, "deleted")
            agent.over.set()
            end = (await told(raw)).end
    assert (end["status"], end["reason"], end["final"]) == ("Failed", "OOM", True)


def end_engine(gw: Harness, engine: dict[str, Any], how: str) -> None:
    if how == "deleted":
        gw.cluster.drop(engine)
    else:
        gw.engine(name=NAME, status={"engineState": "Failed", "reason": "OOMKilled", "address": ""})


@pytest.mark.parametrize(
    "error", [unavailable(NO_DATABASE), web.HTTPNotFound(), RuntimeError("nobody foresaw this")], ids=repr
)
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_whatever_a_stream_raises_its_answer_breaks_off_and_has_no_second_head(
    gw: Harness, monkeypatch: pytest.MonkeyPatch, error: Exception, version: bytes
) -> None:
    async def failing(*_: object) -> AsyncIterator[bytes]:
        yield b": begun\n\n"
        raise error

    monkeypatch.setattr(task_events, "_until_end", failing)
    _, engine = await gw.served(Breaking())
    query = {"engineId": engine["metadata"]["uid"], "taskId": "t"}
    async with connect(gw) as raw:
        await raw.send(head_of("GET", "taskEvents", query).replace(b"HTTP/1.1", version))
        assert (await raw.head())[0] == 200
        got = await raw.rest()
    assert b": begun\n\n" in got
    assert b"HTTP/1" not in got
    assert not got.endswith(b"0\r\n\r\n")
    assert gw.gateway.metrics.answers_cut.labels("gateway")._value.get() == 1
