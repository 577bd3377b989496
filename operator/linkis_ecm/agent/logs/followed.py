"""A log that is read as it grows, until the code that owns the folder has cut, rewritten or replaced it.

Must not know HTTP.
"""

from __future__ import annotations

import os
import stat

from linkis_ecm.agent.logs.files import OpenLog

# The last bytes that were read are read again with what follows: where they are others, the log was cut and has grown
# past them between two looks. A log whose new text has the same bytes there is not noticed.
WITNESS_BYTES = 256


class ChangedError(Exception):
    """What comes next does not continue what was read."""


class FollowedLog:
    """The log from `offset` on. Its reader looks again and again."""

    def __init__(self, log: OpenLog, path: str, offset: int) -> None:
        self._log = log
        self._path = path
        self._offset = offset
        before = min(WITNESS_BYTES, offset - log.start.first)
        self._seen = log.read_at(offset - before, before)

    def read(self, most: int) -> bytes:
        """What comes next, `most` bytes at most, or nothing. Raises OverwrittenError where that was dropped, and
        ChangedError."""
        before = len(self._seen)
        found = self._log.read_at(self._offset - before, before + most)
        if not found.startswith(self._seen):
            raise ChangedError("the log was cut or rewritten before where its follower was")
        data = found[before:]
        if not data and self._log.was_cut:
            raise ChangedError("the log was cut before where its follower was")
        if not data and self._is_replaced():
            raise ChangedError("the log was replaced by another file")
        self._offset += len(data)
        self._seen = found[-WITNESS_BYTES:]
        return data

    def _is_replaced(self) -> bool:
        """Whether another log has its name. Where none has, its writer may still write to it."""
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_ino != self._log.inode
