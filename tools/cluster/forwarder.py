"""Leads a loopback port of the machine to the API server inside the node's network namespace.

A socket belongs to the namespace in which it was created, whatever namespace its process is in later: so one process
listens outside and creates each connection's other socket inside. Copies bytes, understands none of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import socket
from collections.abc import Callable

CLONE_NEWNET = 0x40000000
CHUNK = 256 * 1024
# Enough for every watch, port-forward and load test of one machine; beyond it a connection waits in the backlog.
CONNECTIONS = 2048
CONNECT_SECONDS = 5.0


def socket_maker(namespace: str) -> Callable[[], socket.socket]:
    """Creates TCP sockets that belong to the namespace; the process itself stays where it is.

    Only right in a process of one thread: the two switches stand with nothing between them but socket().
    """
    libc = ctypes.CDLL(None, use_errno=True)
    inside = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def switch(to: int) -> None:
        if libc.setns(to, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")

    def make() -> socket.socket:
        switch(inside)
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            switch(outside)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    return make


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end, which is passed on as an end of that direction alone."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def serve(*, listen: socket.socket, namespace: str, address: str, port: int) -> None:
    make = socket_maker(namespace)
    slots = asyncio.Semaphore(CONNECTIONS)
    loop = asyncio.get_running_loop()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with slots:
            try:
                inside = make()
                try:
                    await asyncio.wait_for(loop.sock_connect(inside, (address, port)), CONNECT_SECONDS)
                except BaseException:
                    inside.close()
                    raise
                far_reader, far_writer = await asyncio.open_connection(sock=inside, limit=CHUNK)
            except (OSError, TimeoutError):
                writer.close()
                return
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(copy(reader, far_writer))
                    both.create_task(copy(far_reader, writer))
            except* OSError:
                pass  # either side went away: both are closed below
            finally:
                far_writer.close()
                writer.close()

    server = await asyncio.start_server(handle, sock=listen, limit=CHUNK)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", type=int, required=True, help="the port on 127.0.0.1")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    listen = socket.create_server(("127.0.0.1", options.listen), backlog=512)
    asyncio.run(
        serve(listen=listen, namespace=options.namespace, address=options.address, port=options.port),
    )


if __name__ == "__main__":
    main()
