"""The archive: what is saved comes back, is bounded, survives a broken sender, and no name leads out of it."""

from __future__ import annotations

import asyncio
import errno
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import s3fs

from linkis_ecm.archive.bundles import Archive, ArchiveError

# The longest any wait takes before its test fails.
PATIENCE = 60.0
UID = "0c6f0d3e-6a0b-4f4e-9a51-3c8f3c0c9a11"


async def chunks(*parts: bytes | Exception) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """An S3 server on loopback: moto's, which keeps objects in memory."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "folder":
        return f"file://{tmp_path}/a"
    if request.param == "memory":
        return f"memory://{uuid.uuid4()}"
    # As an operator of the chart gives them: by the environment.
    for name, value in (
        ("AWS_ENDPOINT_URL_S3", request.getfixturevalue("s3")),
        ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_DEFAULT_REGION", "us-east-1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    bucket = f"b{uuid.uuid4().hex}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/ecm"


@pytest.fixture
def archive(url: str) -> Archive:
    return Archive(url)


async def test_files_of_another_process_are_visible_at_once(url: str, archive: Archive) -> None:
    # fsspec gives one object per URL and process, with one cache of listings: the other must be another's.
    s3fs.S3FileSystem.clear_instance_cache()
    other = Archive(url)
    assert await archive.attempts(UID) == []
    await other.put(UID, 0, "stdout", b"one")
    assert await archive.attempts(UID) == [0]
    assert await archive.files(UID, 0) == {"stdout": 3}
    await other.put(UID, 0, "stderr", b"two more")
    assert await archive.files(UID, 0) == {"stderr": 8, "stdout": 3}
    await other.remove(UID)
    assert await archive.attempts(UID) == []


async def test_a_saved_file_is_read_whole_and_in_chunks(archive: Archive) -> None:
    assert await archive.save(UID, 0, "stdout", chunks(b"one\n", b"two\n"), limit=100) == (8, "")
    await archive.put(UID, 0, "bundle.json", b"{}")
    assert await archive.files(UID, 0) == {"bundle.json": 2, "stdout": 8}
    assert await archive.get(UID, 0, "stdout") == b"one\ntwo\n"
    reader = await archive.open(UID, 0, "stdout")
    assert reader is not None
    assert reader.size == 8
    assert [chunk async for chunk in reader.chunks(4)] == [b"two\n"]
    assert reader.read_at(0, 3) == b"one"
    await reader.close()


async def test_a_later_file_replaces_an_earlier_one(archive: Archive) -> None:
    await archive.put(UID, 0, "stdout", b"old and longer")
    await archive.save(UID, 0, "stdout", chunks(b"new"), limit=100)
    assert await archive.get(UID, 0, "stdout") == b"new"


async def test_a_file_over_the_limit_is_cut_and_says_so(archive: Archive) -> None:
    size, cut = await archive.save(UID, 0, "stdout", chunks(b"12345", b"67890"), limit=7)
    assert size == 7
    assert "cut at 7 bytes" in cut
    assert await archive.get(UID, 0, "stdout") == b"1234567"


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError()])
async def test_a_broken_upload_is_kept_and_marked_as_cut(archive: Archive, error: Exception) -> None:
    size, cut = await archive.save(UID, 0, "stdout", chunks(b"half", error), limit=100)
    assert (size, await archive.get(UID, 0, "stdout")) == (4, b"half")
    assert type(error).__name__ in cut


async def test_a_broken_upload_of_a_whole_file_is_not_kept(archive: Archive) -> None:
    name = "result-0123456789abcdef0123.arrow"
    assert await archive.save(UID, 0, name, chunks(b"whole"), limit=5, whole=True) == (5, "")
    for broken in (chunks(b"half", ConnectionResetError()), chunks(b"longer")):
        size, cut = await archive.save(UID, 0, name, broken, limit=5, whole=True)
        assert size == 0
        assert cut.startswith("cut at")
        assert await archive.get(UID, 0, name) == b"whole"
    await archive.put(UID, 0, "results.json", b"{}")
    assert await archive.files(UID, 0) == {name: 5, "results.json": 2}
    reader = await archive.open(UID, 0, name)
    assert reader is not None
    assert await reader.read(1, 3) == b"hol"
    with pytest.raises(OSError, match="ends before"):
        await reader.read(3, 3)
    await reader.close()
    await archive.discard(UID, 0, name)
    await archive.discard(UID, 0, name)
    assert await archive.files(UID, 0) == {"results.json": 2}


async def left(archive: Archive) -> list[str]:
    """Names of all files there are."""
    found = await asyncio.to_thread(archive._fs.find, archive._root)
    return [path.rpartition("/")[2] for path in found]


@pytest.fixture
def removed(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once what broke off was taken away, which a thread does."""
    event = threading.Event()
    remove = archive._fs.rm_file

    def told(path: str) -> None:
        remove(path)
        event.set()

    monkeypatch.setattr(archive._fs, "rm_file", told)
    return event


async def nothing_is_left(archive: Archive, removed: threading.Event) -> None:
    assert await asyncio.to_thread(removed.wait, PATIENCE)
    assert await left(archive) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("a bug")])
async def test_a_save_that_fails_leaves_nothing(archive: Archive, removed: threading.Event, error: Exception) -> None:
    with pytest.raises(type(error)):
        await archive.save(UID, 0, "stdout", chunks(b"half", error), limit=100)
    await nothing_is_left(archive, removed)


async def test_a_small_file_that_fails_leaves_nothing(
    archive: Archive, removed: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive._fs, "mv", full)
    with pytest.raises(OSError, match="No space"):
        await archive.put(UID, 0, "bundle.json", b"{}")
    await nothing_is_left(archive, removed)


async def test_a_save_that_is_cancelled_leaves_nothing(archive: Archive, removed: threading.Event) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"half"
        begun.set()
        await asyncio.Event().wait()

    saving = asyncio.create_task(archive.save(UID, 0, "stdout", endless(), limit=100))
    await asyncio.wait_for(begun.wait(), PATIENCE)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    await nothing_is_left(archive, removed)


async def test_a_save_that_is_cancelled_while_its_thread_is_at_work_leaves_nothing(
    archive: Archive, removed: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, go = threading.Event(), threading.Event()
    opened = archive._fs.open

    def slow(*arguments: object, **options: object) -> object:
        opens.set()
        assert go.wait(PATIENCE)
        return opened(*arguments, **options)

    monkeypatch.setattr(archive._fs, "open", slow)
    saving = asyncio.create_task(archive.save(UID, 0, "stdout", chunks(b"x"), limit=100))
    assert await asyncio.to_thread(opens.wait, PATIENCE)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    go.set()
    await nothing_is_left(archive, removed)


async def test_two_concurrent_saves_leave_one_complete_file(archive: Archive) -> None:
    turn = asyncio.Barrier(2)

    async def parts(letter: bytes) -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.wait_for(turn.wait(), PATIENCE)
            yield letter * 100

    saves = (archive.save(UID, 0, "stdout", parts(letter), limit=1000) for letter in (b"a", b"b"))
    assert await asyncio.gather(*saves) == [(300, ""), (300, "")]
    assert await archive.get(UID, 0, "stdout") in (b"a" * 300, b"b" * 300)
    assert await left(archive) == ["stdout"]


async def test_attempts_are_told_in_order_and_removed_together(archive: Archive) -> None:
    for attempt in (10, 2, 0):
        await archive.put(UID, attempt, "stdout", b"x")
    assert await archive.attempts(UID) == [0, 2, 10]
    await archive.remove(UID)
    assert await archive.attempts(UID) == []
    assert await archive.files(UID, 2) == {}
    assert await archive.get(UID, 2, "stdout") is None
    assert await archive.open(UID, 2, "stdout") is None
    await archive.remove(UID)


@pytest.mark.parametrize("uid", ["..", "../x", "a/b", "", "x" * 65, "a\0", "a b", "%2e%2e"])
async def test_no_uid_leads_out_of_the_archive(archive: Archive, uid: str) -> None:
    with pytest.raises(ValueError, match="no uid"):
        await archive.put(uid, 0, "stdout", b"x")


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../stdout",
        "/etc/passwd",
        "stdout/x",
        "",
        "other",
        "stdout.part",
        "result-0.arrow",
        "result-0123456789abcdef0123.arrow.part",
    ],
)
async def test_only_the_names_of_a_bundle_are_taken(archive: Archive, name: str) -> None:
    with pytest.raises(ValueError, match="no file of a bundle"):
        await archive.put(UID, 0, name, b"x")


@pytest.mark.parametrize("url", ["nonsense://x", "s3+what://bucket"])
def test_a_url_that_cannot_be_opened_is_told_in_a_sentence(url: str) -> None:
    with pytest.raises(ArchiveError, match="ECM_ARCHIVE_URL") as told:
        Archive(url)
    assert "file:///path" in str(told.value)
