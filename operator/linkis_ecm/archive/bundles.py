"""Bundles of files by engine uid and attempt, in any storage of fsspec: a folder or volume, or an object store.

A path is made of an engine's uid, a number, and a name from a fixed list or of a spilled result; each part is checked
here. In a folder no link is followed (`archive.folder`). The calls block, so they run in threads. Must not know what
the files mean.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from linkis_ecm.agent.formats.names import JOB_RESULT, LOG_NAMES, RESULTS_LIST
from linkis_ecm.agent.formats.result_files import FILE as RESULT_FILE
from linkis_ecm.archive.folder import Folder
from linkis_ecm.process.environment import shown_value

# Both of a container's streams as the kubelet had them, where the agent could not send its files.
CONTAINER_LOG = "container.log"
BUNDLE = "bundle.json"
# The most that `get` reads where its caller says nothing: a bundle's JSON has some 100 KiB.
GET_BYTES = 8 << 20
NAMES = frozenset({*LOG_NAMES, CONTAINER_LOG, JOB_RESULT, RESULTS_LIST, BUNDLE})
_UID = re.compile(r"[0-9A-Za-z-]{1,64}")
# Bytes moved at a time: big enough for an object store, small enough for memory.
PIECE = 1 << 20
# Calls of fsspec at a time: more would only wait in a slow disk or object store.
THREADS = 8


def is_name(name: str) -> bool:
    """Whether a bundle may have a file of that name."""
    return name in NAMES or RESULT_FILE.fullmatch(name) is not None


class ArchiveError(Exception):
    """The archive cannot be used; one sentence that names ECM_ARCHIVE_URL and the remedy."""


class Reader:
    """An open file of a bundle: `size` bytes, read at any offset, from threads."""

    def __init__(self, file: Any, size: int, threads: ThreadPoolExecutor) -> None:
        self._file = file
        self.size = size
        self._threads = threads

    def read_at(self, offset: int, count: int) -> bytes:
        """Blocking; one caller at a time."""
        self._file.seek(offset)
        return bytes(self._file.read(min(count, self.size - offset)))

    async def read(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes; one caller at a time. Raises OSError where there are fewer."""
        data = await asyncio.get_running_loop().run_in_executor(self._threads, self.read_at, offset, count)
        if len(data) != count:
            raise OSError(f"the file ends before {offset + count}")
        return data

    async def chunks(self, offset: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `offset` to `end`, in pieces."""
        loop = asyncio.get_running_loop()
        end = self.size if end is None else min(end, self.size)
        while offset < end:
            data = await loop.run_in_executor(self._threads, self.read_at, offset, min(PIECE, end - offset))
            if not data:
                return
            offset += len(data)
            yield data

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._file.close)


class _Part:
    """A file under a temporary name until it is whole: two writers of one file do not disturb each other, and a write
    that ends with an exception leaves no file."""

    def __init__(self, fs: Any, path: str, threads: ThreadPoolExecutor) -> None:
        self.name = f"{path}.{os.urandom(8).hex()}.part"
        self._fs = fs
        self._threads = threads
        self._file: Any = None
        self._last: Future[Any] | None = None

    async def __aenter__(self) -> _Part:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._last is not None:
            # A cancelled call may still run in its thread; it is not waited for, since the disk may be slow.
            self._last.add_done_callback(self._remove_later)

    async def run(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """In a thread; one call at a time."""
        self._last = self._threads.submit(call, *arguments)
        return await asyncio.wrap_future(self._last)

    def open(self) -> None:
        self._file = self._fs.open(self.name, "wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """Deletes what was written; an object store has the file once it is closed, and may refuse it then."""
        if self._file is not None:
            with suppress(Exception):
                self._file.close()
        with suppress(Exception):
            self._fs.rm_file(self.name)

    def _remove_later(self, _: Future[Any]) -> None:
        with suppress(RuntimeError):  # the process ends
            self._threads.submit(self.remove)


def _cause(error: Exception) -> str:
    """An error in words. Of a library's own sentence nothing: it may repeat the URL with its password."""
    if isinstance(error, ImportError):
        return f"the package {error.name} is missing" if error.name else "a package is missing"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "no such kind of storage, or no URL"


class Archive:
    """The bundles under one URL, such as file:///data/archive, memory://, s3://bucket/ecm."""

    def __init__(self, url: str) -> None:
        """Raises ArchiveError for a URL that nothing here can open."""
        try:
            # Operator and gateway are two processes: neither may rely on a listing that it made before.
            self._fs, self._root = url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError, OSError) as error:
            raise ArchiveError(
                f"ECM_ARCHIVE_URL (archive.url of the chart) {shown_value(url)} cannot be used ({_cause(error)}): write"
                " file:///path, or the URL of an object store whose fsspec package is in the image"
            ) from None
        if isinstance(self._fs, LocalFileSystem):
            self._root = self._root.rstrip("/")
            self._fs = Folder(self._root)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="archive")

    async def save(
        self, uid: str, attempt: int, name: str, chunks: AsyncIterator[bytes], *, limit: int, whole: bool = False
    ) -> tuple[int, str]:
        """Writes what comes, `limit` bytes at most, over an earlier file of the name; (bytes, why it is cut or "").

        Where the chunks break off, what came before is kept, unless `whole` is true. Raises OSError where the archive
        cannot be written; FileExistsError for a file of a bundle that is complete: it stays as it is.
        """
        path = self._path(uid, attempt, name)
        size, cut = 0, ""
        async with _Part(self._fs, path, self._threads) as part:
            await part.run(part.open)
            try:
                async for chunk in chunks:
                    piece = chunk[: limit - size]
                    if piece:
                        await part.run(part.write, piece)
                        size += len(piece)
                    if len(piece) < len(chunk):
                        cut = f"cut at {limit} bytes, the archive's bound for a file"
                        break
            except (ConnectionError, TimeoutError, EOFError) as error:
                cut = f"cut at {size} bytes: {type(error).__name__}"
            if cut and whole:
                await part.run(part.remove)
                return 0, cut
            await part.run(part.close)
            if await part.run(self._is_sealed, uid, attempt, path):
                await part.run(part.remove)
                raise FileExistsError(f"{name} is kept already")
            await part.run(self._fs.mv, part.name, path)
        return size, cut

    def _is_sealed(self, uid: str, attempt: int, path: str) -> bool:
        """Blocking. Whether the file is there and its bundle is complete, which its own file tells."""
        return bool(self._fs.exists(self._path(uid, attempt, BUNDLE)) and self._fs.exists(path))

    async def put(self, uid: str, attempt: int, name: str, data: bytes) -> None:
        """Writes a small file."""
        path = self._path(uid, attempt, name)
        async with _Part(self._fs, path, self._threads) as part:
            await part.run(self._fs.pipe_file, part.name, data)
            await part.run(self._fs.mv, part.name, path)

    async def get(self, uid: str, attempt: int, name: str, *, limit: int = GET_BYTES) -> bytes | None:
        """A small file, None where there is none. Raises ValueError where it has more than `limit` bytes: agents write
        some of them."""
        try:
            # Also where it grows meanwhile: one byte more than allowed is asked for, and no other.
            found = bytes(await self._run(self._fs.cat_file, self._path(uid, attempt, name), end=limit + 1))
        except FileNotFoundError:
            return None
        if len(found) > limit:
            raise ValueError(f"{name} has more than {limit} bytes")
        return found

    async def files(self, uid: str, attempt: int) -> dict[str, int]:
        """Names and sizes of an attempt's bundle."""
        try:
            found = await self._run(self._fs.ls, self._folder(uid, attempt), detail=True)
        except FileNotFoundError:
            return {}
        named = ((entry["name"].rsplit("/", 1)[-1], entry) for entry in found if entry["type"] == "file")
        return {name: int(entry["size"] or 0) for name, entry in sorted(named, key=lambda p: p[0]) if is_name(name)}

    async def attempts(self, uid: str) -> list[int]:
        """The attempts of which something is kept, in order."""
        try:
            found = await self._run(self._fs.ls, self._folder(uid), detail=True)
        except FileNotFoundError:
            return []
        folders = (entry["name"].rstrip("/") for entry in found if entry["type"] == "directory")
        names = (path.rsplit("/", 1)[-1] for path in folders)
        return sorted(int(name) for name in names if name.isdecimal())

    async def open(self, uid: str, attempt: int, name: str) -> Reader | None:
        """A file for reading, None where there is none; the caller closes it."""
        path = self._path(uid, attempt, name)
        try:
            size = int((await self._run(self._fs.info, path))["size"] or 0)
            file = await self._run(self._fs.open, path, "rb", block_size=PIECE)
        except FileNotFoundError:
            return None
        return Reader(file, size, self._threads)

    async def discard(self, uid: str, attempt: int, name: str) -> None:
        """Deletes one file; nothing where there is none."""
        with suppress(FileNotFoundError):
            await self._run(self._fs.rm_file, self._path(uid, attempt, name))

    async def remove(self, uid: str) -> None:
        """Deletes all files of an engine; nothing where there are none."""
        with suppress(FileNotFoundError):
            await self._run(self._fs.rm, self._folder(uid), recursive=True)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _folder(self, uid: str, attempt: int | None = None) -> str:
        if _UID.fullmatch(uid) is None:
            raise ValueError(f"{uid!r} is no uid of an engine")
        return f"{self._root}/{uid}" if attempt is None else f"{self._root}/{uid}/{int(attempt)}"

    def _path(self, uid: str, attempt: int, name: str) -> str:
        if not is_name(name):
            raise ValueError(f"{name!r} is no file of a bundle")
        return f"{self._folder(uid, attempt)}/{name}"

    async def _run(self, call: Any, *arguments: Any, **options: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*arguments, **options))
