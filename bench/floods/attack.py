"""What attacks share: where everything listens, connections that are held, calls that are repeated, what came back.

The attacks are in strangers, users, agents and pods. Must not measure the victims.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from linkis_ecm.api.paths import BASE, PREFIX
from tools.loopback.installation import Engine, Installation
from tools.loopback.sockets import Target, connection, request, send
from tools.testkit.gateway.harness import TOKEN

# Who attacks with a login: not the legitimate user.
ATTACKER = "mallory"
LOGIN = {"Token-Code": TOKEN, "Token-User": ATTACKER}
JSON = {"Content-Type": "application/json"}
# Host numbers of the attackers' own addresses, as pods have them.
SOURCES = tuple(range(200, 230))


@dataclass
class Context:
    """What an attack knows: where everything listens, and the attacker's own engines."""

    network: str
    gateway: int
    tls: int
    operator: int
    health: int
    issuer: int
    seconds: float
    ca: str
    victim: Engine
    own: Engine
    hostile: list[Engine]
    came: Counter[str] = field(default_factory=Counter)
    # When the time of the attack began, by the monotonic clock: later, where it has to prepare something.
    since: float = field(default_factory=time.monotonic)

    def prepares(self) -> None:
        """Something has to be prepared first, within a minute."""
        self.since = time.monotonic() + 60

    def begins(self) -> None:
        """What had to be prepared is there."""
        self.since = time.monotonic()

    def target(self, port: int, source: int = SOURCES[0], *, trust: ssl.SSLContext | None = None) -> Target:
        """That port, from one of the attacker's addresses."""
        return Target("127.0.0.1", port, f"{self.network}.{source}", trust)

    @property
    def at_gateway(self) -> Target:
        return self.target(self.gateway)

    @property
    def at_operator(self) -> Target:
        return self.target(self.operator)

    def agent(self, engine: Engine, source: int = SOURCES[0]) -> Target:
        """The port of an engine's agent."""
        host, _, port = engine.address.rpartition(":")
        return Target(host, int(port), f"{self.network}.{source}")

    def count(self, what: object) -> None:
        self.came[str(what)] += 1


Attack = Callable[[Context], Awaitable[None]]


@dataclass(frozen=True)
class Flood:
    """One attack: its name, what it is about, and whom it is aimed at (gateway, tls, operator or agent)."""

    name: str
    about: str
    aim: str
    attack: Attack
    # So many hostile engines, and whether they have been silent for so long that the operator asks them.
    hostile: int = 0
    asked: bool = False


async def hold(context: Context, target: Target, count: int, data: bytes, *, at_once: int = 200) -> None:
    """Keep `count` connections open that have sent `data` and nothing more; who is cut comes again."""
    opening = asyncio.Semaphore(at_once)

    async def one() -> None:
        while True:
            try:
                async with opening, asyncio.timeout(5):
                    reader, writer = await _open(target)
            except (OSError, TimeoutError):
                context.count("no connection")
                await asyncio.sleep(0.2)
                continue
            context.count("connections")
            try:
                writer.write(data)
                await writer.drain()
                while await reader.read(64 << 10):
                    context.count("answers")
            except OSError:
                pass
            finally:
                writer.transport.abort()
            context.count("cut")
            await asyncio.sleep(0.2)

    await together(count, one)


async def deaf(context: Context, target: Target, data: bytes, count: int) -> None:
    """`count` connections that send `data`, read the answer's first line, and then nothing more."""

    async def one() -> None:
        while True:
            try:
                async with connection(target) as (reader, writer):
                    writer.write(data)
                    context.count("asked")
                    context.count((await reader.read(12))[9:].decode("latin-1") or "cut")
                    await asyncio.sleep(context.seconds)
            except (OSError, TimeoutError):
                context.count("no connection")
                await asyncio.sleep(0.2)

    await together(count, one)


async def together(count: int, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """`count` of one task at a time, until they end or are cancelled."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(task())


async def _open(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        target.host, target.port, ssl=target.trust, local_addr=(target.source, 0) if target.source else None
    )


async def repeat(
    context: Context, target: Target, at_once: int, make: Callable[[int], bytes], *, seconds: float = 20.0
) -> None:
    """Send `make(n)` for n = 0, 1, … on a connection of its own, `at_once` at a time, and count the answers."""
    numbers = iter(range(1 << 62))

    async def worker() -> None:
        for number in numbers:
            try:
                answer = await send(target, make(number), seconds=seconds)
                context.count(answer.status or "no answer")
            except (OSError, TimeoutError):
                context.count("no connection")
                await asyncio.sleep(0.05)

    await together(at_once, worker)


async def pipeline(context: Context, target: Target, at_once: int, data: bytes) -> None:
    """Send `data` without end on connections that are kept, and read what comes without looking."""

    async def worker() -> None:
        while True:
            try:
                async with connection(target) as (reader, writer):
                    reading = asyncio.create_task(_drain(context, reader))
                    try:
                        while not reading.done():
                            writer.write(data)
                            await writer.drain()
                            context.count("sent")
                            await asyncio.sleep(0)
                    finally:
                        reading.cancel()
            except (OSError, TimeoutError):
                context.count("cut")
                await asyncio.sleep(0.05)

    await together(at_once, worker)


async def _drain(context: Context, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 20):
            context.came["answers"] += piece.count(b"HTTP/1.1 ")


def call(method: str, body: Any = None, *, query: str = "", login: dict[str, str] | None = None) -> bytes:
    """A request to the gateway: POST where there is a body, else GET. `method`: a name, or a path of Linkis's."""
    path = f"{PREFIX}/{method}" if "/" in method else f"{BASE}/{method}"
    headers = LOGIN if login is None else login
    if body is None:
        return request("GET", path + query, headers=headers)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request("POST", path + query, headers=headers | JSON, body=raw)


def engine_id(engine: Engine) -> str:
    """As calls name it."""
    return f"engines/{engine.name}"


def settings_of(made: Installation, *, seconds: float, victim: Engine, own: Engine, hostile: list[Engine]) -> str:
    """What `context_of` reads again, in the attacker's process."""
    return json.dumps(
        {
            "network": made.network, "gateway": made.gateway.port, "operator": made.operator.port,
            "tls": made.parts["tls"].port if "tls" in made.parts else 0, "health": made.health_port,
            "issuer": made.issuer_port, "seconds": seconds, "ca": str(made.folder / "pki" / "ca.crt"),
            "victim": dataclasses.asdict(victim), "own": dataclasses.asdict(own),
            "hostile": [dataclasses.asdict(one) for one in hostile],
        }
    )  # fmt: skip


def context_of(text: str) -> Context:
    """The settings of an attacker's process."""
    told = json.loads(text)
    victim, own = Engine(**told.pop("victim")), Engine(**told.pop("own"))
    hostile = [Engine(**one) for one in told.pop("hostile")]
    return Context(hostile=hostile, victim=victim, own=own, **told)


async def run(attack: Attack, context: Context) -> None:
    """The attack, for its time. Raises what it raises; what it has open stays open."""
    task = asyncio.create_task(_forever(attack, context))
    while (left := context.since + context.seconds - time.monotonic()) > 0 and not task.done():
        await asyncio.wait({task}, timeout=left)
    if task.done():
        task.result()


async def _forever(attack: Attack, context: Context) -> None:
    await attack(context)
    await asyncio.sleep(context.seconds)
