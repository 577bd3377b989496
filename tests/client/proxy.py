"""A TCP proxy on loopback that cuts connections: after so many bytes of an answer, or when it is told to."""

from __future__ import annotations

import asyncio


class CuttingProxy:
    """In front of a port. `cuts`: after how many bytes the first, second … connection is cut; later ones are not."""

    def __init__(self, port: int, *cuts: int) -> None:
        self._port = port
        self.cuts = list(cuts)
        self.connections = 0
        self._open: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        self.cut()
        async with asyncio.timeout(60):
            await asyncio.gather(*self._tasks)

    def cut(self) -> int:
        """Cut what is open; how many connections that were."""
        cut = list(self._open)
        for client, gateway in cut:
            client.transport.abort()
            gateway.transport.abort()
        self._open.clear()
        return len(cut)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        limit = self.cuts.pop(0) if self.cuts else None
        there, away = await asyncio.open_connection("127.0.0.1", self._port)
        self._open.add((writer, away))
        try:
            up = asyncio.create_task(_pass_on(reader, away, None))
            await _pass_on(there, writer, limit)
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
        finally:
            self._open.discard((writer, away))
            self._tasks.discard(task)
            writer.transport.abort()
            away.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
    """Until either side ends, or `limit` bytes are through."""
    try:
        while data := await reader.read(1 << 16):
            if limit is not None:
                data, limit = data[:limit], limit - len(data)
            writer.write(data)
            await writer.drain()
            if limit is not None and limit <= 0:
                return
    except OSError:
        return
