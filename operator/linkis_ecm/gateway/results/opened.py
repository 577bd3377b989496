"""Remembers the opened result files whose pages were asked for last: the next page needs the rows alone.

A result does not change once it is there, and each read of it asks the agent for the file that was opened. Must not
hold rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from linkis_ecm.gateway.results.arrow_file import ArrowFile

# So many files, each with what it has in memory of its ends and its list of batches: 8 MiB together. Bigger ones are
# opened each time.
FILES, FILE_BYTES = 32, 256 << 10


class OpenedFiles:
    """The files that were used last, by key."""

    def __init__(self) -> None:
        self._files: OrderedDict[Hashable, ArrowFile] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def find(self, key: Hashable) -> ArrowFile | None:
        """The file, which is the last one used from now on."""
        found = self._files.get(key)
        if found is not None:
            self._files.move_to_end(key)
        return found

    def add(self, key: Hashable, file: ArrowFile) -> None:
        if file.held_bytes > FILE_BYTES:
            return
        self._files[key] = file
        while len(self._files) > FILES:
            self._files.popitem(last=False)

    def forget(self, key: Hashable) -> bool:
        """Drop the file; whether it was there."""
        return self._files.pop(key, None) is not None
