"""Says which engine a token belongs to, from the token alone, so that a body is read only after it. Must not read
requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from linkis_ecm.gateway.inventory.cache import EngineCache
from linkis_ecm.gateway.inventory.view import Key, KnownEngine
from linkis_ecm.model.agent_key import AgentKeyRef, key_of


@dataclass(frozen=True, slots=True)
class _Known:
    uid: str
    attempt: int
    enrolment: AgentKeyRef | None
    digest: bytes | None


class EngineTokens:
    """The tokens of the engines in the cache, by their hash; follows the cache's changes."""

    def __init__(self, master_keys: Sequence[bytes], engines: EngineCache) -> None:
        self._master_keys = master_keys
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
        current = None
        if engine is not None and not engine.is_final:
            current = (engine.uid, engine.attempt, engine.agent_key)
        if known is not None and current == (known.uid, known.attempt, known.enrolment):
            return
        if known is not None:
            del self._known[key]
            if known.digest is not None:
                self._uids.pop(known.digest, None)
        if current is not None:
            uid, attempt, enrolment = current
            token = key_of(self._master_keys, enrolment, uid, attempt)
            digest = None if token is None else _digest(token)
            self._known[key] = _Known(uid, attempt, enrolment, digest)
            if digest is not None:
                self._uids[digest] = uid


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
