"""What engines put into a shared volume leads the archive nowhere: links, FIFOs, folders in each part of a path."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from linkis_ecm.archive.bundles import Archive

UID = "0c6f0d3e-6a0b-4f4e-9a51-3c8f3c0c9a11"
SECRET = b"the gateway's own token\n"
# A FIFO that is opened without care holds its thread for ever.
PATIENCE = 30.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "volume" / "archive"
    (made / UID / "0").mkdir(parents=True)
    (made / UID / "0" / "stdout").write_bytes(b"log\n")
    return made


@pytest.fixture
def archive(root: Path) -> Archive:
    return Archive(f"file://{root}")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder like an engine's, outside of the archive."""
    made = tmp_path / "outside"
    (made / "0").mkdir(parents=True)
    (made / "0" / "gc").write_bytes(SECRET)
    (made / "gc").write_bytes(SECRET)
    return made


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def sees_nothing(archive: Archive, uid: str = UID) -> None:
    async with asyncio.timeout(PATIENCE):
        assert await archive.open(uid, 0, "gc") is None
        assert await archive.get(uid, 0, "gc") is None
        assert "gc" not in await archive.files(uid, 0)


def symlink(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "gc")


def link_relatively(path: Path, target: Path) -> None:
    path.symlink_to(os.path.relpath(target, path.parent))


def relative_symlink(path: Path, outside: Path) -> None:
    link_relatively(path, outside / "gc")


def own_symlink(path: Path, outside: Path) -> None:
    path.symlink_to("stdout")


def hard_link(path: Path, outside: Path) -> None:
    path.hardlink_to(outside / "gc")


def fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, outside: Path) -> None:
    path.mkdir()


def device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


NO_FILES = [symlink, relative_symlink, own_symlink, hard_link, fifo, folder, device]
Make = Callable[[Path, Path], None]


@pytest.mark.parametrize("make", NO_FILES)
async def test_in_the_place_of_a_file_nothing_but_a_regular_file_is_read(
    archive: Archive, root: Path, outside: Path, make: Make
) -> None:
    make(root / UID / "0" / "gc", outside)
    await sees_nothing(archive)
    assert await archive.get(UID, 0, "stdout") == b"log\n"


@pytest.mark.parametrize("make", [one for one in NO_FILES if one is not folder])
async def test_a_file_that_is_written_replaces_it_and_nothing_outside_changes(
    archive: Archive, root: Path, outside: Path, make: Make
) -> None:
    make(root / UID / "0" / "gc", outside)
    assert await archive.save(UID, 0, "gc", chunks(b"new\n"), limit=100) == (4, "")
    assert await archive.get(UID, 0, "gc") == b"new\n"
    assert (outside / "gc").read_bytes() == SECRET
    assert await archive.get(UID, 0, "stdout") == b"log\n"


@pytest.mark.parametrize("make", NO_FILES)
async def test_what_is_removed_is_in_the_archive_alone(archive: Archive, root: Path, outside: Path, make: Make) -> None:
    make(root / UID / "0" / "gc", outside)
    if make is not folder:
        await archive.discard(UID, 0, "gc")
        assert "gc" not in os.listdir(root / UID / "0")
    await archive.remove(UID)
    assert not (root / UID).exists()
    assert (outside / "gc").read_bytes() == SECRET


@pytest.mark.parametrize("part", ["engine", "attempt"])
@pytest.mark.parametrize("kind", ["symlink", "relative", "fifo", "file"])
async def test_no_folder_of_a_path_may_be_anything_but_a_folder(
    archive: Archive, root: Path, outside: Path, part: str, kind: str
) -> None:
    uid = "another"
    path, target = (root / uid, outside) if part == "engine" else (root / uid / "0", outside / "0")
    path.parent.mkdir(exist_ok=True)
    match kind:
        case "symlink":
            path.symlink_to(target)
        case "relative":
            link_relatively(path, target)
        case "fifo":
            os.mkfifo(path)
        case _:
            path.write_bytes(SECRET)
    await sees_nothing(archive, uid)
    assert await archive.attempts(uid) == []
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        await archive.put(uid, 0, "stdout", b"x")
    assert sorted(os.listdir(outside)) == ["0", "gc"]
    await archive.remove(uid)
    assert (outside / "0" / "gc").read_bytes() == SECRET
    assert uid not in os.listdir(root)


async def test_the_folder_itself_may_be_a_link_of_the_admin(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert await Archive(f"file://{tmp_path}/link").get(UID, 0, "stdout") == b"log\n"


async def test_a_file_that_grew_beyond_reason_is_not_read_at_once(archive: Archive, root: Path) -> None:
    with (root / UID / "0" / "bundle.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="has more than 1000 bytes"):
        await archive.get(UID, 0, "bundle.json", limit=1000)
