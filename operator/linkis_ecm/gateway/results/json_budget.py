"""JSON that was written on the user's ground, made into objects once all that they may take is held.

A few bytes of it are an object of many, so it is weighed before it is read. Must not know what it says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import orjson

from linkis_ecm.gateway.http.budget import SMALL, ByteBudget

# What CPython's objects take at most for each of these characters outside of text.
WEIGHTS = ((b",", 64), (b"[", 104), (b"{", 240))
# Of one byte: a brace's.
WEIGHT_MAX = 240
# Of one output; a table that is shown has 2.5 million cells at most.
MAX_OBJECT_BYTES = 256 << 20
# Held for them before anything is known; most outputs are less.
FIRST_GUESS = 8 << 20
_WINDOW = 1 << 20

# Reads the bytes once it has called what it is given with their number.
Read = Callable[[Callable[[int], Awaitable[None]]], Awaitable[bytes]]
# Runs a blocking call in a thread.
Work = Callable[..., Awaitable[Any]]


async def objects(read: Read, *, budget: ByteBudget, work: Work, held: AsyncExitStack) -> Any:
    """What `read` reads, as objects; `held` holds what they take. Where that is more than was guessed, the bytes are
    dropped and read again, once so much is free. Raises ValueError for what is no JSON or over the limit."""
    guess = FIRST_GUESS
    for _ in range(2):
        async with AsyncExitStack() as holding:
            content = await read(partial(_hold, budget, holding, guess))
            small = _room(len(content), guess) <= SMALL
            needed = 0 if small else await work(weight, content)
            if needed <= guess:
                found = orjson.loads(content) if small else await work(orjson.loads, content)
                held.push_async_exit(holding.pop_all())
                return found
            del content  # nobody waits for bytes with bytes in the hand
        if needed > MAX_OBJECT_BYTES:
            raise ValueError("too many objects")
        guess = needed
    raise ValueError("it grows while it is read")


async def _hold(budget: ByteBudget, holding: AsyncExitStack, guess: int, size: int) -> None:
    await holding.enter_async_context(budget.hold(_room(size, guess)))


def _room(size: int, guess: int) -> int:
    """What is to be held for JSON of `size` bytes: as bytes, as text in objects, and as the answer's; and `guess` for
    the objects, of which there cannot be more than the bytes say."""
    return 3 * size + min(guess, WEIGHT_MAX * size)


def weight(content: bytes) -> int:
    """Blocking. What its objects are at most, besides their text."""
    whole = _weigh(content)
    if whole <= len(content):
        return whole
    # A text may well be full of commas and brackets.
    plain = content.replace(rb"\\", b"").replace(rb"\"", b"")
    total, inside = 0, False
    for start in range(0, len(plain), _WINDOW):
        parts = plain[start : start + _WINDOW].split(b'"')
        total += _weigh(b"".join(parts[inside::2]))
        inside ^= len(parts) % 2 == 0
    return total


def _weigh(plain: bytes) -> int:
    return sum(plain.count(mark) * each for mark, each in WEIGHTS)
