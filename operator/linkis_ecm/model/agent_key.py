"""The key between an engine's agent and us (docs/design/identity.md): computed, never stored. Pure.

An agent enrols once per pod: it proves its pod by a token of Kubernetes and names a random number. The operator answers
with the key, which it computes from a master key and that enrolment. What is kept, in the engine's status, is the
enrolment and which master key it was; neither is secret, and whoever has the master key can compute the key again.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

# The size of SHA-256's output: a shorter key is easier to guess than the hash.
KEY_MIN_BYTES = 32
# The random number of an enrolment: 128 bits, so that no two agents choose the same.
NONCE = re.compile(r"[0-9a-f]{32}")
_UID_MAX = 64


@dataclass(frozen=True, slots=True)
class Enrolment:
    """One agent in one pod: the pod's uid, the engine's uid and attempt, and the agent's random number."""

    pod_uid: str
    uid: str
    attempt: int
    nonce: str

    @property
    def usable(self) -> bool:
        """Each part has its form; what comes from outside may not."""
        uids = all(0 < len(uid) <= _UID_MAX and "/" not in uid for uid in (self.pod_uid, self.uid))
        return uids and 0 <= self.attempt <= 1_000_000 and NONCE.fullmatch(self.nonce) is not None


@dataclass(frozen=True, slots=True)
class AgentKeyRef:
    """What `status.agentKey` keeps: which enrolment counts, and which master key made its key."""

    pod_uid: str
    nonce: str
    key_id: str

    @classmethod
    def read(cls, written: Any) -> Self | None:
        """None where there is none, or what is there was edited by hand."""
        if not isinstance(written, Mapping):
            return None
        parts = [written.get(name) for name in ("podUid", "enrolment", "keyId")]
        return cls(*parts) if all(isinstance(part, str) and part for part in parts) else None  # type: ignore[arg-type]

    def written(self) -> dict[str, str]:
        return {"podUid": self.pod_uid, "enrolment": self.nonce, "keyId": self.key_id}

    def enrolment(self, uid: str, attempt: int) -> Enrolment:
        return Enrolment(self.pod_uid, uid, attempt, self.nonce)


def master_key(content: bytes) -> bytes:
    """The key in a key file: its bytes without the blanks and line breaks around them. Raises ValueError."""
    key = content.strip()
    if len(key) < KEY_MIN_BYTES:
        raise ValueError(f"the key has {len(key)} bytes: write {KEY_MIN_BYTES} random bytes or more into it")
    return key


def key_id(master: bytes) -> str:
    """Names a master key without telling anything of it: 8 hexadecimal digits."""
    return sha256(b"linkis-ecm key id\n" + master).hexdigest()[:8]


def agent_key(master: bytes, enrolment: Enrolment) -> str:
    """base64url(HMAC-SHA256(master, "<pod uid>/<uid>/<attempt>/<nonce>")) without padding. Has no dot, unlike a JWT."""
    text = f"{enrolment.pod_uid}/{enrolment.uid}/{enrolment.attempt}/{enrolment.nonce}"
    return urlsafe_b64encode(hmac.digest(master, text.encode(), "sha256")).rstrip(b"=").decode()


def master_of(masters: Iterable[bytes], enrolment: Enrolment, given: str) -> bytes | None:
    """The master key of which `given` is that enrolment's key; None where there is none."""
    for master in masters:
        if hmac.compare_digest(agent_key(master, enrolment).encode(), given.encode(errors="replace")):
            return master
    return None


def key_of(masters: Iterable[bytes], ref: AgentKeyRef | None, uid: str, attempt: int) -> str | None:
    """The key of an engine's agent by its status; None where none has enrolled, or by a master key that is not here."""
    if ref is None:
        return None
    enrolment = ref.enrolment(uid, attempt)
    if not enrolment.usable:
        return None
    return next((agent_key(master, enrolment) for master in masters if key_id(master) == ref.key_id), None)
