"""The agent's end of a kernel's journal (`formats.journal`): says what was handled, and reads what has not come.

Must not map the file into memory: the user's process may cut it short, and reading it would be a SIGBUS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from linkis_ecm.agent.formats import journal


class Journal:
    """Of one kernel. Made before the kernel runs any code of the user. `handled`: the last message that was."""

    def __init__(self, folder: str) -> None:
        self.handled = self._written = 0
        self._descriptor = -1
        with suppress(OSError):  # no room: what is lost with the kernel is lost
            self._descriptor = os.open(
                f"{folder}/{journal.NAME}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )

    def note(self, frames: Sequence[bytes]) -> None:
        """This message was handled."""
        self.handled = max(self.handled, journal.number_in(frames))

    def sent(self) -> int:
        """The number of the message that the kernel has sent last, by its own word; 0 where it says none."""
        if self._descriptor < 0:
            return 0
        with suppress(OSError):
            return journal.number_of(os.pread(self._descriptor, journal.SENT, journal.SENT))
        return 0

    def tell(self) -> None:
        """Let the kernel know what was handled."""
        if self.handled != self._written and self._descriptor >= 0:
            self._written = self.handled
            with suppress(OSError):
                os.pwrite(self._descriptor, journal.number_bytes(self.handled), 0)

    def rest(self) -> Iterator[list[bytes]]:
        """The frames of the messages that have not come, once the kernel has ended."""
        if self._descriptor < 0:
            return
        try:
            data = os.pread(self._descriptor, journal.SIZE, 0)
        except OSError:
            return
        for number, frames in journal.entries(data, self.handled):
            self.handled = number
            yield frames

    def close(self) -> None:
        """Free the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
