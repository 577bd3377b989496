"""Opens TLS connections that say nothing, from several loopback addresses, and holds them until its input ends. A
process of its own, so that the gateway's memory can be measured.

    python -m tests.gateway.auth.silent_clients PORT COUNT

Half of them stop within the handshake. Writes how many there were once all have been opened.
"""

from __future__ import annotations

import asyncio
import ssl
import sys

ADDRESSES = 6
AT_ONCE = 20


async def main(port: int, count: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    turns = asyncio.Semaphore(AT_ONCE)
    kept: list[asyncio.StreamWriter] = []

    async def connect(number: int) -> None:
        async with turns:
            local = (f"127.0.0.{2 + number % ADDRESSES}", 0)
            secure = context if number % 2 else None
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=secure, local_addr=local)
            except OSError:
                return
        kept.append(writer)

    await asyncio.gather(*(connect(number) for number in range(count)))
    sys.stdout.write(f"{len(kept)}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
