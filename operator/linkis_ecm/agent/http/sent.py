"""Tells h11 of body bytes that went out by sendfile, past it. For the server and for the client."""

from __future__ import annotations

import h11


class _SentBytes:
    """Stands for bytes that sendfile has sent."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def count_sent(http: h11.Connection, size: int) -> None:
    """h11 counts what passes through it: tells it of bytes that sendfile has sent, without the bytes."""
    http.send_with_data_passthrough(h11.Data(data=_SentBytes(size)))  # type: ignore[arg-type]
