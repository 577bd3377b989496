"""The slow way for lookups of a peer whose logins fail often: few at a time, and paced.

A proxy's users share its address, so a flood of wrong tokens must not refuse the right ones behind it. They wait for
each other, and other peers' calls do not wait for them. Must not know tokens or what a lookup is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

# Lookups at a time: of one peer, and of all such peers. Others have more than half of the calls at a time that
# kubernetes.py makes.
OF_A_PEER, OF_ALL = 2, 6
# Calls of one peer, and of all, that have a place or wait for one.
PEER_CALLS, ALL_CALLS = 100, 1000
# A lookup that failed keeps its place for so long: a peer's wrong tokens are then 40 a second at most, all peers' 120.
PAUSE = 0.05


@dataclass(slots=True)
class _Peer:
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OF_A_PEER))
    calls: int = 0


class FullError(Exception):
    """Too many calls wait already."""


class Suspects:
    """Places for lookups of suspicious peers."""

    def __init__(self) -> None:
        self._peers: dict[str, _Peer] = {}
        self._turns = asyncio.Semaphore(OF_ALL)
        self._calls = 0

    async def enter(self, name: str) -> Callable[[bool], None]:
        """Wait for a place, and return what leaves it: to be called once, with whether the lookup has failed. Raises
        FullError."""
        peer = self._peers.setdefault(name, _Peer())
        if peer.calls >= PEER_CALLS or self._calls >= ALL_CALLS:
            if not peer.calls:
                del self._peers[name]
            raise FullError
        peer.calls += 1
        self._calls += 1
        try:
            await peer.turns.acquire()
            try:
                await self._turns.acquire()
            except BaseException:
                peer.turns.release()
                raise
        except BaseException:
            self._forget(name, peer)
            raise

        def leave() -> None:
            self._turns.release()
            peer.turns.release()
            self._forget(name, peer)

        def left(failed: bool) -> None:
            if failed:
                asyncio.get_running_loop().call_later(PAUSE, leave)
            else:
                leave()

        return left

    def _forget(self, name: str, peer: _Peer) -> None:
        peer.calls -= 1
        self._calls -= 1
        if not peer.calls:
            del self._peers[name]
