"""Attacks from engines' pods on the operator's port and on another engine's agent. Must not measure."""

from __future__ import annotations

import asyncio
import gzip
import json
import os

from bench.floods.attack import SOURCES, Context, Flood, hold, repeat, together
from bench.floods.strangers import made_up_token
from linkis_ecm.agent_client import paths
from tools.loopback.installation import Engine
from tools.loopback.sockets import Target, connection, request

MIB = 1 << 20


def login(engine: Engine) -> dict[str, str]:
    """As the engine's agent; a user's code may have its key."""
    return {"Authorization": f"Bearer {engine.key}", "Content-Type": "application/json"}


def report(engine: Engine, state: str, **more: object) -> bytes:
    return request("POST", "/v1/report", headers=login(engine), body=json.dumps(engine.report(state, **more)).encode())


async def silent(context: Context) -> None:
    """As many pods as fit, each with as many connections as are let in and more (S16)."""
    half = request("POST", "/v1/report", headers={"Authorization": "Bearer x"}, length=60_000)[:-2]
    async with asyncio.TaskGroup() as group:
        for number, source in enumerate(SOURCES[:12]):
            target = context.target(context.operator, source)
            group.create_task(hold(context, target, 300, (b"", half, half + b"\r\n{")[number % 3]))


async def silent_health(context: Context) -> None:
    """The port of /healthz and /metrics, by pods that do not read."""
    data = request("GET", "/metrics") * 50
    async with asyncio.TaskGroup() as group:
        for number, source in enumerate(SOURCES[:12]):
            group.create_task(hold(context, context.target(context.health, source), 200, (b"", data)[number % 2]))


async def reports(context: Context) -> None:
    """Idle and Busy in turns, as fast as it goes (S15)."""
    engine = context.hostile[0]
    states = ("Idle", "Busy")
    await repeat(context, context.at_operator, 32, lambda n: report(engine, states[n % 2]))


async def kept_reports(context: Context) -> None:
    """The same on connections that are kept, without waiting for answers."""
    engine = context.hostile[0]

    async def worker() -> None:
        while True:
            try:
                async with connection(context.at_operator) as (reader, writer):
                    while True:
                        writer.write(b"".join(report(engine, state) for state in ("Idle", "Busy") * 50))
                        await writer.drain()
                        async with asyncio.timeout(5):
                            piece = await reader.read(1 << 20)
                        if not piece:
                            break
                        context.came["answers"] += piece.count(b"HTTP/1.1 ")
            except (OSError, TimeoutError):
                context.count("cut")
                await asyncio.sleep(0.05)

    await together(8, worker)


async def huge_numbers(context: Context) -> None:
    """Sequences and figures out of all bounds (S17)."""
    engine = context.hostile[0]
    numbers = (10**12, 2**63, 2**70, -1, 10**400, 0.5, None)
    figures = {f"n{n}": 1e300 for n in range(3000)}

    def make(number: int) -> bytes:
        body = engine.report("Busy") | {"sequence": numbers[number % len(numbers)]}
        if number % 2:
            body |= {"usage": figures, "timings": figures, "metrics": figures, "message": "\U0001f600" * 3000}
        raw = json.dumps(body).encode()
        return request("POST", "/v1/report", headers=login(engine), body=raw[: 64 * 1024])

    await repeat(context, context.at_operator, 32, make)


async def long_reports(context: Context) -> None:
    """64 KiB each, by strangers and with a key; some never end, some are packed."""
    engine = context.hostile[0]
    nested = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
    bodies = (
        request("POST", "/v1/report", headers={"Authorization": "Bearer x"}, body=b"x" * 65_536),
        request("POST", "/v1/report", headers=login(engine), body=b"[" * 65_000),
        request("POST", "/v1/report", headers=login(engine), body=nested[:65_000]),
        request("POST", "/v1/report", headers=login(engine), body=b"x" * (2 * MIB)),
        request(
            "POST", "/v1/report", headers=login(engine) | {"Content-Encoding": "gzip"},
            body=gzip.compress(b" " * (8 * MIB)),
        ),
        request("POST", "/v1/report", headers=login(engine) | {"Transfer-Encoding": "chunked"}, body=b"FFFFFFFF\r\nx"),
    )  # fmt: skip
    await repeat(context, context.at_operator, 48, lambda n: bodies[n % len(bodies)], seconds=4)


async def enrolments(context: Context) -> None:
    """First reports with tokens of Kubernetes that nobody made."""
    engine = context.hostile[0]

    def make(number: int) -> bytes:
        made_up = made_up_token("https://kubernetes.default.svc", f"k{number}")
        token = made_up if number % 2 else "a." + "b" * 15_000 + ".c"
        headers = {"Authorization": f"Bearer {token}"}
        return request("POST", "/v1/report", headers=headers, body=json.dumps(engine.report()).encode())

    await repeat(context, context.at_operator, 32, make)


async def uploads(context: Context) -> None:
    """Files of 1 GiB, half files and packed ones into the archive (S12)."""
    engine = context.hostile[0]
    piece = os.urandom(MIB)

    async def one(name: str, length: int, slow: bool, headers: dict[str, str]) -> None:
        head = request("PUT", f"/v1/archive/{name}?{engine.query}", headers=login(engine) | headers, length=length)
        while True:
            try:
                async with connection(context.at_operator) as (reader, writer):
                    writer.write(head)
                    sent = 0
                    while sent < length and not reader.at_eof() and not reader._buffer:  # type: ignore[attr-defined]
                        writer.write(piece[: min(MIB, length - sent)] if not slow else b"x")
                        sent += MIB if not slow else 1
                        await writer.drain()
                        context.came["MiB"] += not slow
                        await asyncio.sleep(1.0 if slow else 0.02)
                    async with asyncio.timeout(5):
                        answer = await reader.readline()
                    context.count(answer[9:12].decode() or "cut")
            except (OSError, TimeoutError):
                context.count("cut")
            await asyncio.sleep(0.05)

    plan: tuple[tuple[str, int, bool, dict[str, str]], ...] = (
        ("stdout", 1024 * MIB, False, {}), ("stderr", 1024 * MIB, False, {}), ("gc", 1 << 40, False, {}),
        ("yarnApp", 1 << 20, True, {}), ("results.json", 32 * MIB, False, {}), ("../x", MIB, False, {}),
        ("stdout", MIB, False, {"Content-Encoding": "gzip"}),
    )  # fmt: skip
    async with asyncio.TaskGroup() as group:
        for name, length, slow, headers in plan * 4:
            group.create_task(one(name, length, slow, headers))


async def idle_at_agent(context: Context) -> None:
    """300 silent connections from another engine's pod (S10)."""
    await hold(context, context.agent(context.victim), 300, b"")


async def half_heads_at_agent(context: Context) -> None:
    await hold(
        context, context.agent(context.victim), 300, b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 15_000
    )


async def calls_at_agent(context: Context) -> None:
    """Calls without the key, and challenges, as fast as they go."""
    big = request("POST", paths.EXECUTE, headers={"Authorization": "Bearer x"}, body=b"x" * (2 * MIB))
    samples = (
        request("GET", paths.STATUS, headers={"Authorization": "Bearer x"}),
        request("GET", f"{paths.IDENTITY}?challenge={'0' * 32}"),
        request("GET", "/healthz"),
        big,
        os.urandom(4096) + b"\r\n\r\n",
    )
    target = context.agent(context.victim)
    await repeat(context, target, 32, lambda n: samples[n % len(samples)], seconds=5)


def every_source(target: Target, network: str) -> list[Target]:
    """The same port, from each of the attacker's addresses."""
    return [Target(target.host, target.port, f"{network}.{source}") for source in SOURCES]


FLOODS = (
    Flood("operator-silent", "3600 silent connections of 12 pods (S16)", "operator", silent),
    Flood("operator-health", "2400 who ask for metrics and do not read", "operator", silent_health),
    Flood("reports", "reports as fast as they go (S15)", "operator", reports, hostile=1),
    Flood("kept-reports", "the same without waiting for answers", "operator", kept_reports, hostile=1),
    Flood("huge-numbers", "sequences and figures out of all bounds (S17)", "operator", huge_numbers, hostile=1),
    Flood("long-reports", "reports of 64 KiB to 8 MiB, deep, packed", "operator", long_reports, hostile=1),
    Flood("enrolments", "tokens of pods that nobody made", "operator", enrolments, hostile=1),
    Flood("uploads", "28 uploads of up to 1 TiB at a time (S12)", "operator", uploads, hostile=1),
    Flood("agent-idle", "300 silent connections to a user's agent (S10)", "agent", idle_at_agent),
    Flood("agent-half-heads", "300 half heads to a user's agent", "agent", half_heads_at_agent),
    Flood("agent-calls", "calls without the key to a user's agent", "agent", calls_at_agent),
)
