"""The bearer token between an engine's agent and us (docs/design/interfaces.md): computed, never stored.

Pure. The operator puts it into the pod; gateway and operator compute it again from the same master key.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode

# The size of SHA-256's output: a shorter key is easier to guess than the hash.
KEY_MIN_BYTES = 32


def master_key(content: bytes) -> bytes:
    """The key in a key file: its bytes without the blanks and line breaks around them. Raises ValueError."""
    key = content.strip()
    if len(key) < KEY_MIN_BYTES:
        raise ValueError(f"the key has {len(key)} bytes: write {KEY_MIN_BYTES} random bytes or more into it")
    return key


def engine_token(key: bytes, uid: str, attempt: int) -> str:
    """The token of one pod of one engine: base64url(HMAC-SHA256(key, "<uid>/<attempt>")) without padding."""
    digest = hmac.digest(key, f"{uid}/{attempt}".encode(), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
