"""Fuzzes the ports over raw sockets: mutated requests of the corpus, sent fast, in pieces or one byte at a time.

Must not judge the answers.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tools.fuzz import mutate
from tools.fuzz.corpus import Seed
from tools.fuzz.oracle import Oracle
from tools.loopback.sockets import Target, send

# Of requests that end or make engines, one in so many that are drawn is sent.
RARE = 150
# Some requests are sent as they are, so that what mutations lead to has something to be about.
UNCHANGED = 0.1
# Seconds for an answer: half a request gets none, and who follows a log or a task is cut then.
ANSWER_SECONDS = 1.5


@dataclass
class Port:
    """One port under test; `seeds` gives the corpus, which changes with the engines."""

    side: str
    targets: list[Target]
    seeds: Callable[[], list[Seed]]
    login: bool
    workers: int = 4
    # Seconds between two requests of one worker: bounds the rate.
    pause: float = 0.01
    answers: Counter[int] = field(default_factory=Counter)


async def fuzz(port: Port, oracle: Oracle, rng: random.Random) -> None:
    """Until cancelled."""
    async with asyncio.TaskGroup() as group:
        for number in range(port.workers):
            group.create_task(_work(port, oracle, random.Random(rng.getrandbits(64)), number))


async def _work(port: Port, oracle: Oracle, rng: random.Random, number: int) -> None:
    while True:
        try:
            await _one(port, oracle, rng, number)
        except Exception as error:  # the fuzzer's own: it goes on with the next
            oracle.findings.add("the fuzzer", f"{port.side}: {error!r}"[:300])
            await asyncio.sleep(0.1)


async def _one(port: Port, oracle: Oracle, rng: random.Random, number: int) -> None:
    """One request, if the drawn one is to be sent."""
    seed = rng.choice(port.seeds())
    if seed.rare and rng.randrange(RARE):
        return
    data = seed.data if rng.random() < UNCHANGED else mutate.request(rng, seed.data)
    if not data:
        return
    oracle.findings.sent(seed.route, data)
    pieces = rng.choice((1, 1, 1, 1, 2, 5, 30))
    target = port.targets[(number + rng.randrange(2)) % len(port.targets)]
    try:
        got = await send(
            target, data, seconds=ANSWER_SECONDS, pieces=pieces, pause=0.0 if pieces == 1 else rng.uniform(0, 0.05)
        )
    except (OSError, TimeoutError):
        port.answers[-1] += 1
        await asyncio.sleep(0.1)
        return
    port.answers[got.status] += 1
    oracle.answer(port.side, seed.route, data, got, login=port.login)
    await asyncio.sleep(port.pause)
