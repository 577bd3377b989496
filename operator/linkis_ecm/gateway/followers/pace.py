"""How fast lines of agents are taken: so many a second of all agents of one user. Those that send more are read more
slowly, and so have to wait. Must not know what a line says.
"""

from __future__ import annotations

import asyncio

# A line costs the gateway 3 µs: the agents of one user get 6% of it. A task that prints without a pause is told of in
# some tens of lines a second, since its agent joins what is printed within 50 ms.
LINES_PER_SECOND = 20_000
# What comes at once after a pause: a task's whole past, for a new follower.
BURST_SECONDS = 0.25
# A piece that is read from a connection costs as much as so many lines, whatever is in it.
PIECE_LINES = 10
# So many blank lines cost as much as one with content: they are merged as bytes.
BLANKS_PER_LINE = 20
# Users that are remembered before those are forgotten who have sent nothing for a while.
_USERS = 1000


class LinePace:
    """The lines of each user's agents."""

    def __init__(self) -> None:
        # When what was taken has been worked off at that pace.
        self._done_at: dict[str, float] = {}

    async def take(self, user: str, lines: float) -> None:
        """So many lines come from the user's agents; waits while they are too fast."""
        now = asyncio.get_running_loop().time()
        if len(self._done_at) > _USERS:
            self._done_at = {user: at for user, at in self._done_at.items() if at > now}
        done_at = max(self._done_at.get(user, now), now) + lines / LINES_PER_SECOND
        self._done_at[user] = done_at
        if done_at - now > BURST_SECONDS:
            await asyncio.sleep(done_at - now - BURST_SECONDS)
