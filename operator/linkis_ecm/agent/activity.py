"""What uses the engine besides tasks: downloads and followers. While there is one, no idleness ends the engine.

Must not know of tasks or of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable


class Activity:
    """Counts what is under way; `on_change` is called when something begins or ends."""

    def __init__(self, clock: Callable[[], float], on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self.last_activity = 0.0
        self._open_streams: dict[str, int] = {}

    def stream_opened(self, what: str) -> None:
        """Something that uses the engine begins, such as a download: until `stream_closed` it is not culled for
        idleness."""
        self._open_streams[what] = self._open_streams.get(what, 0) + 1
        if self._open_streams[what] == 1:
            self._on_change()

    def stream_closed(self, what: str) -> None:
        left = self._open_streams[what] - 1
        self.last_activity = self._clock()
        if left:
            self._open_streams[what] = left
        else:
            del self._open_streams[what]
            self._on_change()

    def record_activity(self) -> None:
        """Something of the engine was read, too short to be told at once: the next report has it."""
        self.last_activity = self._clock()

    @property
    def active(self) -> str:
        """What is under way, in words; empty if nothing is."""
        return ", ".join(f"{count} {what} under way" for what, count in sorted(self._open_streams.items()))
