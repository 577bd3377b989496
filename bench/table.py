"""What a benchmark prints: a line for each figure, with its goal where it has one, and whether it was missed.

Must not measure or judge.
"""

from __future__ import annotations


class Table:
    """Lines of three columns of these widths."""

    def __init__(self, what: int, value: int, goal: int) -> None:
        self._widths = what, value, goal
        self._missed = False

    def tell(self, what: str, value: str, goal: str = "", *, met: bool = True) -> None:
        """One line, printed at once."""
        self._missed |= not met
        widths = self._widths
        mark = "" if met else "  MISSED"
        print(f"{what:<{widths[0]}} {value:>{widths[1]}} {goal:>{widths[2]}}{mark}", flush=True)

    @property
    def exit_code(self) -> int:
        """1 where a goal was missed."""
        return int(self._missed)
