"""What an agent asks a kernel that waits for its engine, over a pipe of its own: a length, a line end, so much JSON.

A pipe and not the kernel's channels: those pass each message through two threads, which a claim would wait for. The
answer is a line of JSON by another pipe: the error in words, "" for none.
"""

from __future__ import annotations

import json
import os
from typing import Any


def member_request(request: dict[str, Any]) -> bytes:
    """The bytes of one request."""
    data = json.dumps(request).encode()
    return b"%d\n%b" % (len(data), data)


def read_member_request(descriptor: int) -> dict[str, Any] | None:
    """The next request, once its first byte is there; None where the agent has closed the pipe."""
    head = b""
    while not head.endswith(b"\n"):
        if not (byte := os.read(descriptor, 1)):
            return None
        head += byte
    data, length = bytearray(), int(head)
    while len(data) < length:
        if not (piece := os.read(descriptor, length - len(data))):
            return None
        data += piece
    request: dict[str, Any] = json.loads(data)
    return request
