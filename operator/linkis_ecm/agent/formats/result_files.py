"""Where spilled results lie and what they are called: Arrow IPC files in a folder beside the logs.

The folder is the user's code's to write in, so a file is opened by a strict name, without following links, and must be
a regular one.
"""

from __future__ import annotations

import os
import re
import stat
import time
from contextlib import suppress

from linkis_ecm.agent.formats.names import RESULTS_FOLDER

# The time in milliseconds, so that names sort by age, and chance.
RESULT_ID = re.compile(r"[0-9a-f]{20}")
# A result's file, in the folder and in the archive.
FILE = re.compile(rf"result-{RESULT_ID.pattern}\.arrow")


def new_id() -> str:
    """An id that no other result of the engine has."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(4).hex()}"


def file_name(result_id: str) -> str:
    """Of a result's file, in the folder and in the archive."""
    return f"result-{result_id}.arrow"


def is_id(value: object) -> bool:
    """Whether it can be a result's id at all."""
    return isinstance(value, str) and RESULT_ID.fullmatch(value) is not None


def open_result(log_dir: str, result_id: str) -> int | None:
    """A descriptor of the result's file, None where there is none."""
    if not is_id(result_id):
        return None
    folder = descriptor = -1
    try:
        folder = os.open(f"{log_dir}/{RESULTS_FOLDER}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(file_name(result_id), flags, dir_fd=folder)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            found, descriptor = descriptor, -1
            return found
    except OSError:
        pass
    finally:
        for left in (folder, descriptor):
            if left >= 0:
                os.close(left)
    return None


def make_room(folder: str, *, count: int, size: int) -> None:
    """Drop the oldest results until no more than `count` are left, and `size` bytes of them."""
    found: list[tuple[str, int]] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if FILE.fullmatch(entry.name):
                with suppress(OSError):
                    found.append((entry.path, entry.stat(follow_symlinks=False).st_size))
    total = sum(length for _, length in found)
    found.sort()
    while found and (len(found) > count or total > size):
        path, length = found.pop(0)
        total -= length
        with suppress(OSError):
            os.unlink(path)
