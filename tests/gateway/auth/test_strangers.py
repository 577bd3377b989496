"""Thousands of connections that say nothing: bounded in number and memory, and in nobody's way."""

from __future__ import annotations

import asyncio
import ssl
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.process.ports import listener
from linkis_ecm.process.ports.listener import HEAD_SECONDS
from tests.gateway.process.test_tls import Secret
from tests.gateway.raw import Raw, head_of
from tools.testkit.agents.process import until
from tools.testkit.clocks import LoopClock
from tools.testkit.gateway.harness import BASE, PATIENCE, TOKEN, Harness

Make = Callable[..., Awaitable[Harness]]
MIB = 1 << 20
SILENT = 3000


def memory() -> int:
    """This process's resident bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def metric(gw: Harness, name: str) -> float:
    text = (await gw.call("GET", "/metrics", token=None, user=None)).raw.decode()
    return float(next(line for line in text.splitlines() if line.startswith(name)).rsplit(" ", 1)[1])


async def test_3000_silent_tls_connections_take_little_memory_and_nobodys_place(make: Make, tmp_path: Path) -> None:
    gw = await make(**Secret(tmp_path).settings())
    engine = gw.engine()
    query = {"engineId": engine["metadata"]["uid"]}
    assert (await gw.get("getEngineStatus", query)).http == 200
    before = memory()
    flood = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.gateway.auth.silent_clients", str(gw.port), str(SILENT),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert flood.stdout is not None
    assert flood.stdin is not None
    try:
        opened = asyncio.create_task(flood.stdout.readline())
        took: dict[str, list[float]] = {"health": [], "user": []}
        most = 0
        while not opened.done():
            for name, path, login in (("health", "/healthz", None), ("user", f"{BASE}/getEngineStatus", TOKEN)):
                # Of gateway and caller, which are this process: others on the machine do not count.
                begun = time.process_time()
                # A connection of its own each: the kubelet has no other, a new user neither.
                headers = {"Connection": "close"}
                answer = await gw.call("GET", path, token=login, user=login and "alice", headers=headers, params=query)
                took[name].append(time.process_time() - begun)
                assert answer.http == 200, answer.raw
            most = max(most, gw.site.connections.strangers)
            await asyncio.sleep(0.05)
        assert int(await opened) > SILENT * 0.9
        assert most <= gw.settings.max_strangers
        assert gw.site.connections.strangers <= gw.settings.max_strangers
        grown = memory() - before
        assert grown < gw.settings.max_strangers * 100 * 1024 + 32 * MIB, f"{grown / MIB:.0f} MiB"
        assert len(took["user"]) > 5
        for name, seconds in took.items():
            assert statistics.median(seconds) < 5.0, (name, seconds)
    finally:
        flood.terminate()
        await flood.wait()


async def test_who_is_silent_after_the_handshake_is_cut_in_ten_seconds(
    make: Make, tmp_path: Path, clock: LoopClock
) -> None:
    secret = Secret(tmp_path)
    gw = await make(**secret.settings())
    raw = Raw(*await asyncio.open_connection("127.0.0.1", gw.port, ssl=secret.trust()))
    await asyncio.to_thread(until, lambda: gw.runner.server.connections)
    clock.forward(HEAD_SECONDS - 1)
    await asyncio.sleep(0)
    assert gw.site.connections.strangers == 1
    clock.forward(2)
    assert await raw.rest() == b""
    assert await metric(gw, 'ecm_connections_cut_total{kind="silent",port="api"}') == 1
    raw.vanish()


@pytest.mark.parametrize("secure", [True, False])
async def test_a_login_keeps_its_connection_while_strangers_push(make: Make, tmp_path: Path, secure: bool) -> None:
    secret = Secret(tmp_path)
    bounds: dict[str, Any] = {"max_connections": 16, "max_strangers": 4}
    gw = await make(**bounds, **(secret.settings() if secure else {}))
    engine = gw.engine()
    trust = secret.trust() if secure else None

    async def connect(last: int) -> Raw:
        local = (f"127.0.0.{last}", 0)
        return Raw(*await asyncio.open_connection("127.0.0.1", gw.port, ssl=trust, local_addr=local))

    ask = head_of("GET", "getEngineStatus", {"engineId": engine["metadata"]["uid"]})
    mine = await connect(9)
    for _ in range(2):
        await mine.send(ask)
        status, headers = await mine.head()
        assert status == 200
        await mine.reader.readexactly(int(headers["content-length"]))
        others = [await connect(2) for _ in range(20)]
        # The port has counted them all once a later one is answered: the oldest were cut for the newer.
        assert (await gw.call("GET", "/healthz", token=None, user=None)).http == 200
        for raw in others[:16]:
            assert await raw.rest() == b""
        assert gw.site.connections.known == 1
        assert gw.site.connections.strangers <= 4
        for raw in others:
            raw.vanish()
    mine.vanish()


async def test_all_are_let_go(make: Make) -> None:
    gw = await make()
    strangers = [Raw(*await asyncio.open_connection("127.0.0.1", gw.port)) for _ in range(10)]
    await asyncio.to_thread(until, lambda: gw.site.connections.strangers == 10)
    for raw in strangers:
        raw.vanish()
    await asyncio.to_thread(until, lambda: gw.site.connections.strangers == 0)
    assert not gw.site.connections._peers


async def test_handshakes_of_one_address_begin_in_turn_and_anothers_at_once(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: LoopClock
) -> None:
    """Each costs the gateway a millisecond before any login; here one in ten seconds, so that the order shows."""
    monkeypatch.setattr(listener, "HANDSHAKES_PER_SECOND", 0.1)
    monkeypatch.setattr(listener, "HANDSHAKES_AT_ONCE", 3)
    gw = await make(**Secret(tmp_path).settings())
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    loop = asyncio.get_running_loop()

    async def shake(address: str) -> float:
        _, writer = await asyncio.open_connection("127.0.0.1", gw.port, ssl=context, local_addr=(address, 0))
        writer.transport.abort()
        return loop.time() - begun

    begun = loop.time()
    flood = [asyncio.create_task(shake("127.0.0.7")) for _ in range(6)]
    # Before the flood's fourth, whose turn is ten seconds later, has its own.
    await shake("127.0.0.8")
    assert sum(task.done() for task in flood) <= 3
    ending = asyncio.gather(*flood)
    await clock.until_over(ending, 1.0)
    took = sorted(await ending)
    assert all(later >= 10 * number for number, later in enumerate(took[3:], start=1))
    assert (await gw.call("GET", "/healthz", token=None, user=None)).http == 200


async def test_who_hangs_up_before_its_turn_leaves_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKES_PER_SECOND", 20.0)
    monkeypatch.setattr(listener, "HANDSHAKES_AT_ONCE", 1)
    gw = await make(max_strangers=8, **Secret(tmp_path).settings())
    for _ in range(100):
        _, writer = await asyncio.open_connection("127.0.0.1", gw.port, local_addr=("127.0.0.7", 0))
        writer.transport.abort()
    # Eight places of strangers: the others were cut, and gave their turns back.
    async with asyncio.timeout(PATIENCE):
        while gw.site.connections.strangers:  # noqa: ASYNC110 - of the server's own timers
            await asyncio.sleep(0.01)
    assert not gw.site._handshakes
