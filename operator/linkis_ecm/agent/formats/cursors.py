"""How far a follower of a task is in its outputs: the id of an event. Pure; the gateway compares them, too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cursor:
    """So many outputs, so many characters of the one after them, so many changes of earlier ones. `epoch` counts how
    often all outputs became void."""

    epoch: int = 0
    items: int = 0
    chars: int = 0
    updates: int = 0

    def __str__(self) -> str:
        return f"{self.epoch}.{self.items}.{self.chars}.{self.updates}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Of what `str` gave. Raises ValueError."""
        parts = text.split(".")
        if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) < 16 for part in parts):
            raise ValueError(f"{text[:64]!r} is no cursor")
        return cls(*map(int, parts))

    def reaches(self, other: Cursor) -> bool:
        """Whether all that a follower at `other` has seen is behind this one, too."""
        if self.epoch != other.epoch:
            return self.epoch > other.epoch
        if self.updates < other.updates or self.items < other.items:
            return False
        # A line that rewrites itself makes its text shorter, which is a change.
        return self.items > other.items or self.chars >= other.chars or self.updates > other.updates
