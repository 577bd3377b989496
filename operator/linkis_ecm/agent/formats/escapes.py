"""ANSI escape sequences in text: takes them out, also where one is split over two pieces. Pure.

The patterns are compiled when the first escape comes: no agent's start waits for that.
"""

from __future__ import annotations

import re

# Control sequences (colours, cursor), strings up to their end (titles, links), and the short ones.
_SEQUENCE = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)|[ -/]+[0-~]|[0-OQ-WYZ\\`-~])"
# The beginning of one at the end of a piece. A longer one is none: it is shown.
_BEGINNING = r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}|[\]PX^_][^\x07\x1b]{0,4096}\x1b?|[ -/]{0,8})\Z"
# Where such a beginning can be at the earliest.
_TAIL = 5000


def plain(text: str) -> str:
    """`text` without escape sequences."""
    return re.sub(_SEQUENCE, "", text) if "\x1b" in text else text


class Stripper:
    """Takes escape sequences out of a text that comes in pieces."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """The piece without sequences. The beginning of one at its end is held back until the rest comes."""
        if "\x1b" not in piece and not self._held:
            return piece
        text = re.sub(_SEQUENCE, "", self._held + piece)
        begin = re.compile(_BEGINNING).search(text, max(0, len(text) - _TAIL))
        self._held = text[begin.start() :] if begin is not None else ""
        return text[: begin.start()] if begin is not None else text

    def flush(self) -> str:
        """What was held back: nothing follows it."""
        held, self._held = self._held, ""
        return held
