"""Where a download goes: a path, which has all of it or nothing, or a file that the caller has open."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import BinaryIO

from linkis_ecm.client.errors import EcmError
from linkis_ecm.client.streams import Piece

Target = str | os.PathLike[str] | BinaryIO


class Sink:
    """Takes pieces. A path is written under another name beside it and takes its own when it is whole."""

    def __init__(self, target: Target) -> None:
        self._path = Path(target) if isinstance(target, str | os.PathLike) else None
        if self._path is not None:
            self._part = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex[:8]}.part")
            self._file: BinaryIO = self._part.open("xb")
        else:
            assert not isinstance(target, str | os.PathLike)  # noqa: S101 - for mypy
            self._file = target
        self._start = self._file.tell() if self._file.seekable() else None
        self.size = 0

    def take(self, piece: Piece) -> None:
        """Write it. Raises EcmError where the log begins again and the file cannot."""
        if piece.again:
            if self._start is None:
                raise EcmError("The log is another one since the download was cut, and the file cannot begin again")
            self._file.seek(self._start)
            self._file.truncate()
            self.size = 0
        self._file.write(piece.data)
        self.size += len(piece.data)

    def done(self) -> int:
        """It is whole; how many bytes it has."""
        if self._path is not None:
            self._file.close()
            self._part.replace(self._path)
        return self.size

    def abandon(self) -> None:
        """It will never be whole: a path is left as it was."""
        if self._path is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)
