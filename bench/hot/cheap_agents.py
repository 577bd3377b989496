"""`python -m bench.hot.cheap_agents COUNT`: agents that answer each task at once, so that a gateway is measured alone.

Each has a port of its own and proves the key of its engine (`bench.processes.loopback`). Must not run code.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen
from urllib.parse import parse_qs

import orjson

from bench import arguments
from bench.processes.loopback import name_of
from linkis_ecm.agent.formats.proof import proof
from tools.testkit.agents.keys import agent_key_of
from tools.testkit.gateway.harness import KEY, engine_item

_RESULT = {
    "taskId": "", "status": "Succeed", "reason": "", "message": "", "executionCount": 1, "acceptedAt": 1.0,
    "startedAt": 1.0, "endedAt": 1.0, "progress": 1.0, "progressMessage": "", "firstLine": "1+1",
    "outputs": [{"type": "text", "stream": "result", "text": "2"}],
}  # fmt: skip


class _Connection(asyncio.Protocol):
    def __init__(self, key: str) -> None:
        self._key = key
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, rest = self._data.partition(b"\r\n\r\n")
            lower = head.lower()
            length = int(lower.partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
            if len(rest) < length:
                return
            self._data = rest[length:]
            self._answer(head.split(b" ", 2)[1].decode(), rest[:length])

    def _answer(self, target: str, body: bytes) -> None:
        path, _, query = target.partition("?")
        if path == "/v1/identity":
            answer = orjson.dumps({"proof": proof(self._key, parse_qs(query)["challenge"][0])})
        else:
            answer = orjson.dumps(_RESULT | {"taskId": orjson.loads(body)["taskId"]})
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
        assert self._transport is not None
        self._transport.write(head + answer)


async def serve(count: int) -> None:
    """The process: says its ports, serves until its stdin ends."""
    loop = asyncio.get_running_loop()
    ports = []
    for number in range(count):
        uid = engine_item(name=name_of(number))["metadata"]["uid"]
        key = agent_key_of(KEY, uid, 0)
        server = await loop.create_server(lambda key=key: _Connection(key), "127.0.0.1", 0)  # type: ignore[misc]
        ports.append(str(server.sockets[0].getsockname()[1]))
    print(" ".join(ports), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def cheap_agents(count: int) -> Iterator[list[str]]:
    """So many in a process of their own: their addresses."""
    with Popen(
        [sys.executable, "-m", "bench.hot.cheap_agents", str(count)], stdin=PIPE, stdout=PIPE, text=True
    ) as made:
        assert made.stdout is not None
        assert made.stdin is not None
        try:
            yield [f"127.0.0.1:{port}" for port in made.stdout.readline().split()]
        finally:
            made.stdin.close()


if __name__ == "__main__":
    parser = arguments.internal("bench.hot.cheap_agents", __doc__)
    parser.add_argument("count", metavar="COUNT", type=arguments.count, help="how many agents")
    asyncio.run(serve(parser.parse_args().count))
