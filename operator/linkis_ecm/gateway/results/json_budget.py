"""Decodes JSON from engines after reserving the memory that its objects may need.

A few bytes of JSON can become an object of many bytes, so the need is estimated before decoding. Must not know what the
JSON means.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from linkis_ecm.gateway.http.budget import SMALL, ByteBudget
from linkis_ecm.process import exact_json

# Bytes that CPython's objects take at most for each of these characters outside of strings.
BYTES_PER_CHARACTER = ((b",", 64), (b"[", 104), (b"{", 240))
# The most for one byte of JSON: a brace.
WEIGHT_MAX = 240
# Limit for the objects of one output; a table within an output has 2.5 million cells at most.
MAX_OBJECT_BYTES = 256 << 20
# Bytes reserved for the objects before reading; most outputs need less.
FIRST_GUESS = 8 << 20
_WINDOW = 1 << 20

# Reads the bytes; calls its argument with their number before it reads them.
Read = Callable[[Callable[[int], Awaitable[None]]], Awaitable[bytes]]
# Runs a blocking call in a thread.
RunInThread = Callable[..., Awaitable[Any]]


async def objects(read: Read, *, budget: ByteBudget, run_in_thread: RunInThread, held: AsyncExitStack) -> Any:
    """The decoded JSON that `read` reads; `held` keeps its memory reserved. Where the objects need more than the first
    guess, the bytes are dropped, the full need is reserved, and they are read again. Raises ValueError for malformed
    JSON, or objects over the limit."""
    guess = FIRST_GUESS
    for _ in range(2):
        async with AsyncExitStack() as holding:
            content = await read(partial(_hold, budget, holding, guess))
            small = _room(len(content), guess) <= SMALL
            needed = 0 if small else await run_in_thread(parsed_size, content)
            if needed <= guess:
                found = exact_json.loads(content) if small else await run_in_thread(exact_json.loads, content)
                held.push_async_exit(holding.pop_all())
                return found
            del content  # never wait for budget while holding unreserved bytes
        if needed > MAX_OBJECT_BYTES:
            raise ValueError("too many objects")
        guess = needed
    raise ValueError("it grows while it is read")


async def _hold(budget: ByteBudget, holding: AsyncExitStack, guess: int, size: int) -> None:
    await holding.enter_async_context(budget.hold(_room(size, guess)))


def _room(size: int, guess: int) -> int:
    """Bytes to reserve for JSON of `size` bytes: for the JSON, the text in objects and the answer's text; and `guess`
    for the objects, limited by what so many bytes can become."""
    return 3 * size + min(guess, WEIGHT_MAX * size)


def parsed_size(content: bytes) -> int:
    """Blocking. The bytes that its objects take at most, without their text."""
    whole = _parsed_size_of_part(content)
    if whole <= len(content):
        return whole
    # Strings may contain commas and brackets, which are not counted.
    plain = content.replace(rb"\\", b"").replace(rb"\"", b"")
    total, inside = 0, False
    for start in range(0, len(plain), _WINDOW):
        parts = plain[start : start + _WINDOW].split(b'"')
        total += _parsed_size_of_part(b"".join(parts[inside::2]))
        inside ^= len(parts) % 2 == 0
    return total


def _parsed_size_of_part(plain: bytes) -> int:
    return sum(plain.count(mark) * each for mark, each in BYTES_PER_CHARACTER)
