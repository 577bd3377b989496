"""The target of a download: a path, which gets all of it or nothing, or a file that the caller has open."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import BinaryIO

from linkis_ecm.client.errors import EcmError
from linkis_ecm.client.streams import Piece

Target = str | os.PathLike[str] | BinaryIO


class DownloadFile:
    """Writes pieces. A path is written as a temporary file beside it, which is renamed when it is complete."""

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

    def write(self, piece: Piece) -> None:
        """Write a piece. Raises EcmError where the download restarts and the file cannot be rewound."""
        if piece.restarts:
            if self._start is None:
                raise EcmError("The log is another one since the download was cut, and the file cannot begin again")
            self._file.seek(self._start)
            self._file.truncate()
            self.size = 0
        self._file.write(piece.data)
        self.size += len(piece.data)

    def finish(self) -> int:
        """The download is complete; its size in bytes."""
        if self._path is not None:
            self._file.close()
            self._part.replace(self._path)
        return self.size

    def abort(self) -> None:
        """The download failed: a path is left as it was."""
        if self._path is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)
