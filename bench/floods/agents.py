"""Attacks by agents: what an engine's pod, which is its user's, answers to gateway and operator. Must not measure."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import cache

from bench.floods.attack import Context, Flood, call, deaf, engine_id, repeat
from tools.loopback.hostile_agent import Asked, Behaviour, hostile_agent, json_answer

MIB = 1 << 20
# The operator asks agents that have been silent each 5 s. No more than four: where most agents are silent, it takes its
# own network for the cause and asks nobody (controller/report_path.py).
FIRST_QUESTION_SECONDS = 20.0
_CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"


async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """A JSON object that never ends, with all headers that an agent sends (S5)."""
    writer.write(_CHUNKED + b'X-Log-Size: 9007199254740991\r\nX-Log-File: 1\r\nX-Log-Offset: 0\r\n\r\n7\r\n{"a":[0\r\n')
    piece = b"%x\r\n" % MIB + b",0" * (MIB // 2) + b"\r\n"
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)


async def packed(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """64 MiB of JSON in some 300 KB."""
    writer.write(json_answer(_packed_body(), headers="Content-Encoding: gzip\r\n"))
    await writer.drain()


@cache
def _packed_body() -> bytes:
    return gzip.compress(b'{"a":"' + b"x" * (64 * MIB) + b'"}', 1)


async def long_lines(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """An event of 38 MB in one line, again and again."""
    writer.write(_CHUNKED + b"\r\n")
    piece = b"%x\r\n" % MIB + b"x" * MIB + b"\r\n"
    while True:
        writer.write(b'a\r\n{"event":"\r\n')
        for _ in range(38):
            writer.write(piece)
            await writer.drain()
        writer.write(b'3\r\n"}\n\r\n')


async def headers(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Headers without end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    line = b"".join(b"X-%d: y\r\n" % n for n in range(1000))
    while True:
        writer.write(line)
        await writer.drain()
        await asyncio.sleep(0)


async def drip(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """A byte a second, of a body that is said to be long."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{")
    while True:
        await asyncio.sleep(1)
        writer.write(b" ")
        await writer.drain()


def calls_of(context: Context) -> list[bytes]:
    """One call of each method that asks the agent, for each hostile engine."""
    found = []
    for engine in context.hostile:
        which = engine_id(engine)
        query = f"?engineId={which}&taskId=t"
        found += [
            call("executeCode", {"engineId": which, "code": "1", "runType": "python"}),
            call("taskEvents", query=query),
            call("getTaskResult", query=query),
            call("getResultSet", query=query),
            call("listTasks", query=f"?engineId={which}"),
            call("getEngineLogs", query=f"?engineId={which}&logType=stdout"),
            call("followEngineLog", query=f"?engineId={which}&logType=stdout"),
            call("getEngineMetrics", query=f"?engineId={which}"),
            call("getResourceUsage", query=f"?engineId={which}"),
            call("sendEngineCommand", {"engineId": which, "command": "status", "parameters": {}}),
        ]
    return found


def at_gateway(behaviour: Behaviour) -> Callable[[Context], Awaitable[None]]:
    """80 calls at a time whose agents answer so."""

    async def attack(context: Context) -> None:
        async with AsyncExitStack() as stack:
            for engine in context.hostile:
                await stack.enter_async_context(hostile_agent(engine, behaviour))
            calls = calls_of(context)
            await repeat(context, context.at_gateway, 80, lambda n: calls[n % len(calls)])

    return attack


def at_operator(behaviour: Behaviour) -> Callable[[Context], Awaitable[None]]:
    """Agents that have been silent and answer so when the operator asks them."""

    async def attack(context: Context) -> None:
        async def counted(asked: Asked, writer: asyncio.StreamWriter) -> None:
            if not context.came:
                context.begins()
            context.count(f"asked for {asked.path}")
            await behaviour(asked, writer)

        context.since += FIRST_QUESTION_SECONDS
        async with AsyncExitStack() as stack:
            for engine in context.hostile:
                await stack.enter_async_context(hostile_agent(engine, counted))
            await asyncio.sleep(FIRST_QUESTION_SECONDS + context.seconds)

    return attack


async def followers_of_long_lines(context: Context) -> None:
    """45 followers, who do not read, of a line of 38 MB (S6)."""
    async with AsyncExitStack() as stack:
        for engine in context.hostile:
            await stack.enter_async_context(hostile_agent(engine, long_lines))
        async with asyncio.TaskGroup() as group:
            for engine in context.hostile:
                head = call("taskEvents", query=f"?engineId={engine_id(engine)}&taskId=t")
                group.create_task(deaf(context, context.at_gateway, head, 45 // len(context.hostile)))


FLOODS = (
    Flood("agent-endless", "agents that answer the gateway without end", "gateway", at_gateway(endless), hostile=2),
    Flood("agent-packed", "agents that answer the gateway packed", "gateway", at_gateway(packed), hostile=2),
    Flood("agent-headers", "agents that send headers without end", "gateway", at_gateway(headers), hostile=2),
    Flood("agent-drip", "agents that send a byte a second", "gateway", at_gateway(drip), hostile=2),
    Flood("agent-lines", "45 followers of events of 38 MB (S6)", "gateway", followers_of_long_lines, hostile=3),
    Flood("status-endless", "statuses without end (S5)", "operator", at_operator(endless), hostile=4, asked=True),
    Flood("status-packed", "packed statuses (S5)", "operator", at_operator(packed), hostile=4, asked=True),
    Flood("status-headers", "statuses of headers alone", "operator", at_operator(headers), hostile=4, asked=True),
)
