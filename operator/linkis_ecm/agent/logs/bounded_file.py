"""Files that are only ever appended to and keep their last bytes: the blocks of their beginning are given back to the
disk while offsets and line numbers stay as they were (docs/design/logs.md).

Must not know what is written.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress

from linkis_ecm.agent.formats.log_pages import BLOCK, WHOLE, dropped

# A file's beginning is dropped in pieces of this; a multiple of the line index's blocks and of any filesystem's. 2 ms.
STEP = 4 << 20
# Pieces dropped at once: a file that others made big is caught up with, but not while everybody waits.
STEPS_AT_ONCE = 4
# What is shown begins with a whole line where one begins so soon.
_LINE = 64 << 10
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


class BoundedFile:
    """A file that the agent appends to and that takes about `keep` bytes of the disk at most."""

    def __init__(self, path: str, *, keep: int) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = os.open(path, flags, 0o640)
        self.inode = os.fstat(self.descriptor).st_ino
        self.keep = keep
        self.start = WHOLE
        self._since_size_check = 0
        self._full = False

    def append(self, data: bytes) -> bool:
        """Write all of `data`; True now and then, when it is time to look at what all files take. Raises OSError."""
        if self._full:
            return False
        if self.start.at and os.fstat(self.descriptor).st_size < self.start.begin:
            self.start = WHOLE  # the user's code has cut it
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self.descriptor, left) :]
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # Others have filled the disk: what comes now is of more use than the half that came first.
            self.shorten(self.kept // 2)
            if self._full:
                return False
            write_all(self.descriptor, left)
        self._since_size_check += len(data)
        if self._since_size_check < STEP:
            return False
        self.shorten(self.keep)
        return True

    @property
    def kept(self) -> int:
        """Bytes of the disk that it takes: what the kubelet counts, but for blocks kept ready behind its end."""
        found = os.fstat(self.descriptor)
        return min(max(0, found.st_size - self.start.at), found.st_blocks * 512)

    def shorten(self, keep: int) -> None:
        """Drop of the beginning what exceeds `keep`, or a part of that: the next write goes on."""
        self._since_size_check = 0
        for _ in range(STEPS_AT_ONCE):
            if self.kept <= keep or not self._drop():
                return
        self._since_size_check = STEP

    def _drop(self) -> bool:
        """One piece less; False where there is none, or where the filesystem cannot do it."""
        before = self.start
        at = before.at + STEP
        if at >= os.fstat(self.descriptor).st_size:
            return False
        ends = before.ends
        for offset in range(before.at, at, BLOCK):
            ends += os.pread(self.descriptor, BLOCK, offset).count(b"\n")
        begin = at + os.pread(self.descriptor, _LINE, at).find(b"\n") + 1
        # Readers look at the start after they have read: it moves before anything is gone.
        self.start = dropped(at=at, ends=ends, begin=begin, keep=self.keep)
        try:
            punch_hole(self.descriptor, before.at, STEP)
        except OSError as error:
            self.start = before
            if error.errno == errno.ENOSPC:
                return False  # a hole may need a block, too: it can be made later
            self._full = True
            with suppress(OSError):
                write_all(
                    self.descriptor,
                    b"\n[this log ends here, at %d MiB: its beginning cannot be dropped on this filesystem (%s); what"
                    b" follows is in the container's log only]\n" % (self.kept >> 20, str(error.strerror).encode()),
                )
            return False
        return True


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Give the blocks of a part of a file back; it reads as zeros. Raises OSError where the filesystem cannot."""
    if _fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, offset, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """os.write until nothing is left."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


# Python has posix_fallocate only, which makes no holes. off_t has 64 bits in every image that we build.
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
