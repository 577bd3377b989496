"""Says which engine a token belongs to, from the token alone, so that a body is read only after it. Must not read
requests.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from linkis_ecm.gateway.inventory.cache import EngineCache
from linkis_ecm.gateway.inventory.view import Key, KnownEngine
from linkis_ecm.model.token import engine_token


@dataclass(frozen=True, slots=True)
class _Known:
    uid: str
    attempt: int
    digest: bytes


class EngineTokens:
    """The tokens of the engines in the cache, by their hash; follows the cache's changes."""

    def __init__(self, key: bytes, engines: EngineCache) -> None:
        self._key = key
        self._known: dict[Key, _Known] = {}
        self._uids: dict[bytes, str] = {}
        for engine in engines:
            self._on_change(engine.key, engine)
        engines.observe(self._on_change)

    def owner(self, token: str) -> str | None:
        """The uid of the engine whose current pod has this token, or None."""
        return self._uids.get(_digest(token))

    def _on_change(self, key: Key, engine: KnownEngine | None) -> None:
        known = self._known.get(key)
        if engine is not None and known is not None and (known.uid, known.attempt) == (engine.uid, engine.attempt):
            return
        if known is not None:
            del self._known[key]
            self._uids.pop(known.digest, None)
        if engine is not None:
            digest = _digest(engine_token(self._key, engine.uid, engine.attempt))
            self._known[key] = _Known(engine.uid, engine.attempt, digest)
            self._uids[digest] = engine.uid


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
