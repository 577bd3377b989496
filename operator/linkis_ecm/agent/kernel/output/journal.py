"""Writes each message that the kernel publishes into the journal (`formats.journal`). Runs in the kernel.

So a text that was flushed reaches the agent whatever ends the process next. Must not wait: `Buffer.flush` does, where a
message had no room in the journal and the agent has not handled it. Where the file cannot be made, all is sent as
without it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from linkis_ecm.agent.formats import journal


class Journal:
    """The file, as memory: no system call for a message, in which another thread would take the interpreter."""

    def __init__(self, folder: str) -> None:
        """Raises OSError where there is no room for the file."""
        descriptor = os.open(f"{folder}/{journal.NAME}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # Its room is taken now: memory of a file on a full disk is a SIGBUS.
            os.posix_fallocate(descriptor, 0, journal.SIZE)
            self._memory = mmap.mmap(descriptor, journal.SIZE)
        finally:
            os.close(descriptor)
        self._number = 0  # of the last message
        self._end = journal.FIRST  # where the next entry begins
        self._left_out = 0  # the last message that is not in the file

    def add(self, frames: Sequence[bytes]) -> list[bytes]:
        """Keep a message that is sent next; its frames with its number."""
        self._number += 1
        size = journal.size_of(frames) if journal.is_plain(frames) else journal.SIZE
        if journal.number_of(self._memory[: journal.SENT]) >= self._number - 1:
            self._end = journal.FIRST
        if self._end + size > journal.SIZE:
            self._left_out = self._number
        else:
            written = journal.entry(self._number, frames)
            # The number last: without it, there is no entry.
            begin, self._end = self._end, self._end + size - 8
            self._memory[begin + 8 : begin + size] = written[8:]
            self._memory[begin : begin + 8] = written[:8]
        self._memory[journal.SENT : 2 * journal.SENT] = journal.number_bytes(self._number)
        return [*frames, journal.number_frame(self._number)]

    def keeps_all(self) -> bool:
        """Whether each message is in the file, or was handled by the agent. An agent that has never handled one does
        not listen yet."""
        handled = journal.number_of(self._memory[: journal.SENT])
        return handled == 0 or handled >= self._left_out


def keep_messages(thread: Any, folder: str) -> None:
    """Let ipykernel's thread that sends keep what it sends."""
    with suppress(OSError):
        kept = Journal(folder)
        send, owner = thread._really_send, os.getpid()

        def keep_and_send(frames: list[bytes], *args: Any, **options: Any) -> None:
            send(kept.add(frames) if os.getpid() == owner else frames, *args, **options)

        thread._really_send = keep_and_send
        thread.linkis_buffer.keeps_all = kept.keeps_all
