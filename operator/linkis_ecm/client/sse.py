"""Parses server-sent events from pieces of bytes (HTML Living Standard, 9.2.6). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from linkis_ecm.client.errors import EcmError

# More than the gateway's own limit of an event.
MAX_EVENT_BYTES = 64 << 20
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event as it was sent; `id` is "" if the event has none."""

    name: str
    data: str
    id: str


class SseParser:
    """Takes bytes and returns the complete events. An incomplete event at the stream's end is dropped."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._has_started = False
        self._after_cr = False
        self._pending_chars = 0
        self._clear()

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that these bytes complete. Raises EcmError where one is over the limit."""
        if not data:
            return []
        if self._after_cr:
            # The second half of a CRLF whose first half came before.
            data = data.removeprefix(b"\n")
        self._buffer += data
        found = [event for line in self._lines() if (event := self._line(line)) is not None]
        if len(self._buffer) + self._pending_chars > MAX_EVENT_BYTES:
            raise EcmError(f"An event is over {MAX_EVENT_BYTES >> 20} MiB: this is no stream of a gateway")
        return found

    def _lines(self) -> list[bytes]:
        """The whole lines; each byte is looked at once, so that a long line costs no more than its length."""
        lines, start = [], 0
        for end in _LINE_END.finditer(self._buffer, self._searched):
            lines.append(bytes(self._buffer[start : end.start()]))
            start = end.end()
        self._after_cr = self._buffer.endswith(b"\r")
        del self._buffer[:start]
        self._searched = len(self._buffer)
        return lines

    def _line(self, line: bytes) -> SseEvent | None:
        if not self._has_started:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._has_started = True
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._data.append(value)
                self._pending_chars += len(value)
            case b"event":
                self._name = value.decode(errors="replace")
            case b"id" if b"\0" not in value:
                self._id = value.decode(errors="replace")
        return None  # a comment begins with ":" and has no name

    def _dispatch(self) -> SseEvent | None:
        event = None
        if self._data:
            event = SseEvent(self._name or "message", b"\n".join(self._data).decode(errors="replace"), self._id)
        self._clear()
        return event

    def _clear(self) -> None:
        self._name, self._id = "", ""
        self._data: list[bytes] = []
        self._pending_chars = 0
