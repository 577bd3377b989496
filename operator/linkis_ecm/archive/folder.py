"""An archive's folder on a disk, with the calls of fsspec that `bundles` uses: regular files alone, no link leads out.

Engines may share the volume, so what lies there may have been put there to be read by the gateway, which has secrets of
its own: a symbolic link in any part of a path, a second name of a file from elsewhere (a hard link), a FIFO, a device.
None of these is opened, listed or followed; each counts as not there. Only the folder itself, which an admin names, may
be a link. Must not know what the files mean.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

log = logging.getLogger(__name__)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
# O_NONBLOCK: a FIFO without a writer would hold the thread.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Folder:
    """Paths are absolute and below `root`. Raises FileNotFoundError also for what is no regular file or folder."""

    def __init__(self, root: str) -> None:
        self._root = root

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        """A regular file that exists to be read, or a new one to be written."""
        with self._parent(path, make=mode == "wb") as (folder, name):
            if mode == "wb":
                return os.fdopen(os.open(name, _WRITE, 0o666, dir_fd=folder), "wb")
            return os.fdopen(self._open_regular(folder, name, path), "rb")

    def info(self, path: str) -> dict[str, Any]:
        with self._parent(path) as (folder, name):
            descriptor = self._open_regular(folder, name, path)
            try:
                return {"name": path, "size": os.fstat(descriptor).st_size, "type": "file"}
            finally:
                os.close(descriptor)

    def exists(self, path: str) -> bool:
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def cat_file(self, path: str, *, end: int) -> bytes:
        """The first `end` bytes."""
        with self.open(path) as file:
            data: bytes = file.read(end)
        return data

    def pipe_file(self, path: str, data: bytes) -> None:
        with self.open(path, "wb") as file:
            file.write(data)

    def ls(self, path: str, *, detail: bool) -> list[Any]:
        """Regular files with their sizes, and folders."""
        found: list[dict[str, Any]] = []
        with self._folder(path) as folder, os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        found.append({"name": f"{path}/{entry.name}", "size": 0, "type": "directory"})
                    elif _is_ours(status):
                        found.append({"name": f"{path}/{entry.name}", "size": status.st_size, "type": "file"})
        return found if detail else [entry["name"] for entry in found]

    def find(self, path: str) -> list[str]:
        """All regular files below a folder."""
        files: list[str] = []
        for entry in self.ls(path, detail=True):
            files += self.find(entry["name"]) if entry["type"] == "directory" else [entry["name"]]
        return files

    def mv(self, source: str, target: str) -> None:
        """Over a file, or a link of that name, which is replaced and not followed."""
        with self._parent(source) as (from_folder, old), self._parent(target) as (to_folder, new):
            os.rename(old, new, src_dir_fd=from_folder, dst_dir_fd=to_folder)

    def rm_file(self, path: str) -> None:
        with self._parent(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def rm(self, path: str, *, recursive: bool) -> None:
        """A folder and all in it; of a link the link alone."""
        with self._parent(path) as (folder, name):
            if recursive and stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)

    def _open_regular(self, folder: int, name: str, path: str) -> int:
        try:
            descriptor = os.open(name, _READ, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link, a socket or a device
                raise self._no_file(path) from None
            raise
        if not _is_ours(os.fstat(descriptor)):
            os.close(descriptor)
            raise self._no_file(path)
        return descriptor

    def _no_file(self, path: str) -> FileNotFoundError:
        log.warning("%s is no regular file or folder of the archive's own: it is not opened", path)
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    @contextmanager
    def _parent(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        folder, _, name = path.rpartition("/")
        with self._folder(folder, make=make) as descriptor:
            yield descriptor, name

    @contextmanager
    def _folder(self, path: str, *, make: bool = False) -> Iterator[int]:
        """The descriptor of a folder, opened part by part: no part below the root may be a link."""
        if path != self._root and not path.startswith(f"{self._root}/"):
            raise ValueError(f"{path!r} is not below {self._root!r}")
        if make:
            os.makedirs(self._root, exist_ok=True)
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in path[len(self._root) :].split("/"):
                if not part:
                    continue
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                try:
                    inner = os.open(part, _FOLDER, dir_fd=descriptor)
                except OSError as error:
                    if not make and error.errno in (errno.ELOOP, errno.ENOTDIR):
                        raise self._no_file(f"{path} ({part})") from None
                    raise
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


def _is_ours(status: os.stat_result) -> bool:
    """A regular file with no other name: what the operator writes. A second name may belong to a file of elsewhere."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1
