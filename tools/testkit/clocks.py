"""Clocks of loops. For tests of time limits: it runs as ever and can be put forward, so no limit has to be a short one.

A short limit is met by mistake where a busy machine stands still for that long; here it is over when the test says so.
"""

from __future__ import annotations

import asyncio
from typing import Any

# Of looptime, for a loop that neither a socket nor a thread reaches: before virtual time moves on, it looks so often
# whether anything has come from outside. By default 42 times, which was most of what long virtual times cost.
NOOP_CYCLES = 1


class LoopClock:
    """The running loop's clock, from now on."""

    def __init__(self) -> None:
        self._ahead = 0.0
        loop: Any = asyncio.get_running_loop()
        real = loop.time
        loop.time = lambda: real() + self._ahead

    def forward(self, seconds: float) -> None:
        """So much later: what waits for that long is over at the loop's next turn."""
        self._ahead += seconds

    async def until_over(self, call: asyncio.Task[Any], limit: float) -> None:
        """Forward by `limit`, again and again, until the call is over: of a call that stands still, or is about to."""
        while not call.done():
            self.forward(limit)
            await asyncio.wait((call,), timeout=0.02)
