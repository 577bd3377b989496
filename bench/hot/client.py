"""Calls of the gateway's methods for these benchmarks: what is not an answer of status 0 ends the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from bench.processes.loopback import HEADERS, engine_id
from linkis_ecm.api.paths import BASE


class Caller:
    """One user's session with a gateway. To be used as an asynchronous context manager."""

    def __init__(self, port: int) -> None:
        # Limits are the gateway's; each call may have a connection of its own.
        self.session = aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", headers=HEADERS, connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None), read_bufsize=1 << 20,
        )  # fmt: skip

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def execute(self, engine: int, code: str = "1+1", *, wait: bool = True) -> dict[str, Any]:
        """The `data` of executeCode."""
        body = {"engineId": engine_id(engine), "code": code, "runType": "python", "wait": wait}
        async with self.session.post(f"{BASE}/executeCode", json=body) as answer:
            return _data(await answer.json())

    async def get(self, method: str, engine: int, **query: str | int) -> dict[str, Any]:
        """The `data` of a method about an engine."""
        async with self.get_raw(method, engine, query) as answer:
            return _data(await answer.json())

    def get_raw(self, method: str, engine: int, query: Mapping[str, str | int]) -> Any:
        """The answer of a method about an engine, to be read within the block."""
        return self.session.get(f"{BASE}/{method}", params={"engineId": engine_id(engine), **query})


def _data(told: dict[str, Any]) -> dict[str, Any]:
    if told["status"] != 0:
        raise SystemExit(f"a call failed: {str(told)[:500]}")
    data: dict[str, Any] = told["data"]
    return data
