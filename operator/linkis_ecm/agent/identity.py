"""Who this agent is to the operator: how it enrols, and the key that it gets for that (docs/design/identity.md).

The pod's own token proves the pod, once: user code runs under the same user id and can read that file, but only the
first to enrol gets a key, and the key is kept in this process's memory. Must not send anything.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from pathlib import Path

from linkis_ecm.agent.formats.proof import proof

# A token of Kubernetes has about 1 KiB.
_TOKEN_MAX = 16 << 10
# base64url of 32 bytes.
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")


class Identity:
    """`key` is empty until the operator has answered; `enrolled` is set from then on."""

    def __init__(self, *, key: str, pod_uid: str, nonce: str, token_file: str) -> None:
        self.key = key
        self.pod_uid = pod_uid
        self.nonce = nonce
        self._token_file = token_file
        self.enrolled = asyncio.Event()
        if key:
            self.enrolled.set()

    def authorization(self) -> bytes:
        """The header's value: the key, or until there is one the pod's token. Raises OSError without a token."""
        if self.key:
            return f"Bearer {self.key}".encode()
        with Path(self._token_file).open("rb") as file:
            token = file.read(_TOKEN_MAX + 1).strip()
        if not token or len(token) > _TOKEN_MAX or not token.isascii() or any(byte < 33 for byte in token):
            raise OSError(f"{self._token_file} holds no token")
        return b"Bearer " + token

    def take(self, answer: bytes) -> bool:
        """The operator's answer to an enrolment; False where it holds no key."""
        try:
            key = json.loads(answer)["key"]
        except (ValueError, TypeError, KeyError):
            return False
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            return False
        self.key = key
        self.enrolled.set()
        return True

    def accepts(self, authorization: bytes) -> bool:
        """Whether a caller has the key."""
        return bool(self.key) and hmac.compare_digest(authorization, f"Bearer {self.key}".encode())

    def proof(self, challenge: str) -> str:
        """Shows a caller that this agent has the key; empty while it has none."""
        return proof(self.key, challenge) if self.key else ""
