"""How an agent shows that it has its key, before the key is sent to it: an answer to a challenge. Pure."""

from __future__ import annotations

import hmac
import re

# The challenge of a caller: as many hexadecimal digits as 128 bits have.
CHALLENGE = re.compile(r"[0-9a-f]{32}")


def proof(key: str, challenge: str) -> str:
    """64 hexadecimal digits: HMAC-SHA256 over the challenge. Its first line keeps it apart from other uses of a key."""
    return hmac.new(key.encode(), f"linkis-ecm agent\n{challenge}".encode(), "sha256").hexdigest()
