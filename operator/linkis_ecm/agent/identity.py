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
KEY = re.compile(r"[A-Za-z0-9_-]{43}")


class Identity:
    """`key` is empty until the operator has answered; `enrolled` is set from then on."""

    def __init__(self, *, key: str, pod_uid: str, nonce: str, token_file: str) -> None:
        self.key = key
        self.pod_uid = pod_uid
        self.nonce = nonce
        self._token_file = token_file
        # The key that this agent had as a member of a warm pool, before an engine has claimed it.
        self._member_key = ""
        self.enrolled = asyncio.Event()
        if key:
            self.enrolled.set()

    def enrolment(self) -> dict[str, str]:
        """The part of a report that says which process of which pod sends it."""
        return {"podUid": self.pod_uid, "enrolment": self.nonce}

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
        if not isinstance(key, str) or not KEY.fullmatch(key):
            return False
        self.key = key
        self.enrolled.set()
        return True

    def adopt(self, key: str) -> None:
        """From now on this is the agent of the engine with this key. The former one is good for a repeated claim
        alone."""
        self._member_key, self.key = self.key, key

    def accepts(self, authorization: bytes) -> bool:
        """Whether a caller has the key."""
        return _has(authorization, self.key)

    def accepts_claim(self, authorization: bytes) -> bool:
        """Whether a caller may claim this agent for an engine, or ask again for what it has claimed."""
        return self.accepts(authorization) or _has(authorization, self._member_key)

    def proofs(self, challenge: str) -> dict[str, str]:
        """Show a caller that this agent has the key, and the one that it had as a member; empty while it has none.

        Who claims once more does not know whether the claim before has arrived.
        """
        keys = {"proof": self.key, "memberProof": self._member_key}
        return {name: proof(key, challenge) for name, key in keys.items() if key}


def _has(authorization: bytes, key: str) -> bool:
    return bool(key) and hmac.compare_digest(authorization, f"Bearer {key}".encode())
