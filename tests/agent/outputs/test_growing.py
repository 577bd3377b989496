"""Logs that drop their beginning: the disk's blocks are given back, and line numbers and offsets stay as they were."""

from __future__ import annotations

import errno
import http.client
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.agent.formats.log_pages import Filter, LineIndex, Page, page, said, tail
from linkis_ecm.agent.logs import bounded_file
from linkis_ecm.agent.logs.bounded_file import STEP, BoundedFile
from linkis_ecm.agent.logs.files import LogFiles, OpenLog, OverwrittenError
from linkis_ecm.agent.settings import SettingsError, read_settings
from tools.testkit.agents.process import AgentProcess, Pending

MIB = 1 << 20
KEEP = 8 * MIB
NOTHING = Filter()


def line(number: int) -> bytes:
    """The line of that number: 64 bytes and, now and then, many more."""
    text = b"%09d " % number
    return text + b"." * (63 - len(text) + (number % 1000 == 0) * 3000) + b"\n"


class Log:
    """A log folder with a stdout of numbered lines."""

    def __init__(self, folder: Path, keep: int = KEEP, total: int = 1 << 40) -> None:
        self.path = folder / "stdout"
        self.files = LogFiles(str(folder), file_bytes=keep, total_bytes=total)
        self.files._mirrors = {name: _Nowhere() for name in ("stdout", "stderr")}  # type: ignore[misc]
        self.lines = 0

    def write(self, count: int, name: str = "stdout") -> None:
        for start in range(self.lines, self.lines + count, 500):
            many = min(500, self.lines + count - start)
            self.files.write(name, b"".join(line(n) for n in range(start + 1, start + many + 1)))
        self.lines += count

    def open(self) -> OpenLog:
        log = self.files.open("stdout")
        assert log is not None
        return log

    def blocks(self, name: str = "stdout") -> int:
        return (self.path.parent / name).stat().st_blocks * 512

    def page(self, index: LineIndex, read: Callable[..., Page] = page, **asked: Any) -> Page:
        log = self.open()
        try:
            index.extend(log.read_at, log.size, log.start)
            return read(log.read_at, log.size, index, **{"wanted": NOTHING} | asked)
        finally:
            log.close()


class _Nowhere:
    def write(self, data: bytes) -> None: ...
    def close(self, timeout: float) -> None: ...


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_long_log_takes_no_more_of_the_disk_than_it_may(log: Log) -> None:
    most = 0
    for _ in range(40):
        log.write(20_000)
        most = max(most, log.blocks())
    assert log.path.stat().st_size > 40 * MIB
    assert most <= KEEP + 2 * STEP
    assert log.blocks() >= KEEP - STEP


def test_a_shortened_log_begins_with_a_note_and_keeps_its_line_numbers(log: Log) -> None:
    log.write(600_000)
    opened = log.open()
    start = opened.start
    shown = opened.read_at(start.first, opened.size - start.first)
    opened.close()
    sentence, _, rest = shown.partition(b"\n")
    lines = start.line
    assert sentence == b"[the first %d bytes, %d lines, of this log were dropped: it keeps its last 8 MiB]" % (
        start.begin,
        lines,
    )
    assert rest == b"".join(line(n) for n in range(lines + 1, 600_001))
    assert start.begin == sum(len(line(n)) for n in range(1, lines + 1))
    assert said(shown) == (start.first, lines)


@pytest.mark.parametrize("warm", [True, False])
def test_pages_of_a_log_that_drops_have_the_numbers_that_they_always_had(log: Log, warm: bool) -> None:
    index = LineIndex()
    for _ in range(12):
        log.write(50_000)
        if warm:
            log.page(index, from_line=1, count=1)
        newest = log.lines - 10
        found = log.page(index, from_line=newest, count=5)
        assert found.logs == [line(n).decode().strip() for n in range(newest, newest + 5)]
        assert found.end_line == newest + 4
        backwards = log.page(index, tail, from_line=3, count=2)
        assert backwards.logs == [line(n).decode().strip() for n in (log.lines - 3, log.lines - 2)]
        assert backwards.end_line == 4
        if not warm:
            index = LineIndex()
    assert index.nbytes < 1000, "what was dropped is not kept in the index"


def test_a_page_from_the_dropped_part_begins_with_the_sentence_and_goes_on(log: Log) -> None:
    log.write(400_000)
    index = LineIndex()
    for asked in (0, 1, 1000):
        first = log.page(index, from_line=asked, count=3)
        dropped = index.start.line
        assert dropped > 1000
        assert first.logs[0].startswith("[the first ")
        assert first.logs[1:] == [line(dropped + 1).decode().strip(), line(dropped + 2).decode().strip()]
        assert first.end_line == dropped + 2
        assert log.page(index, from_line=first.end_line + 1, count=1).logs == [line(dropped + 3).decode().strip()]


def test_pages_from_the_end_put_together_are_what_is_kept(log: Log) -> None:
    log.write(300_000)
    index = LineIndex()
    for wanted in (NOTHING, Filter.parse("000 .", "")):
        found: list[str] = []
        seen = 0
        while True:
            got = log.page(index, tail, from_line=seen + 1, count=5000, wanted=wanted)
            found, seen = got.logs + found, got.end_line
            if not got.logs:
                break
        whole = [line(n).decode().strip() for n in range(index.start.line + 1, 300_001)]
        if wanted:
            assert found == [text for text in whole if "000 ." in text]
        else:
            assert found[0].startswith("[the first ")
            assert found[1:] == whole
        assert seen == 300_000


def test_one_endless_line_is_dropped_too_and_is_still_line_one(log: Log) -> None:
    for _ in range(20):
        log.files.write("stdout", b"x" * MIB)
    log.files.write("stdout", b"\nsecond\n")
    assert log.blocks() <= KEEP + 2 * STEP
    found = log.page(LineIndex(), from_line=1, count=5)
    assert re.match(
        r"\[the first \d+ bytes, 0 lines, of this log were dropped: it keeps its last 8 MiB\] xxx", found.logs[0]
    )
    assert found.logs[1:] == ["second"]
    assert found.end_line == 2


def test_a_reader_of_bytes_that_are_dropped_meanwhile_gets_an_error(log: Log) -> None:
    log.write(200_000)
    opened = log.open()
    at = opened.start.begin
    assert opened.read_at(at, 10)[:9].isdigit()
    log.write(80_000)
    assert not opened.intact(at)
    with pytest.raises(OverwrittenError):
        opened.read_at(at, 10)
    assert opened.read_at(opened.size - 64, 64) == line(200_000)[-64:]
    opened.close()


def test_a_log_that_the_code_has_cut_or_replaced_is_read_as_it_is(log: Log) -> None:
    log.write(400_000)
    os.truncate(log.path, 0)
    log.files.write("stdout", b"anew\n")
    assert log.page(LineIndex(), from_line=1, count=9).logs == ["anew"]
    log.lines = 0
    log.write(400_000)
    assert log.blocks() <= KEEP + 2 * STEP
    assert log.page(LineIndex(), from_line=400_000, count=1).end_line in (400_000, 400_001)
    log.path.unlink()
    log.path.write_text("another\n")
    assert log.page(LineIndex(), from_line=1, count=9).logs == ["another"]


def test_an_index_of_a_log_that_was_cut_starts_over(log: Log) -> None:
    index = LineIndex()
    log.write(400_000)
    assert log.page(index, from_line=400_000, count=1).end_line == 400_000
    os.truncate(log.path, 0)
    log.files.write("stdout", b"one\ntwo\n")
    assert log.page(index, from_line=2, count=1) == Page(["two"], 2)


def test_all_files_of_the_folder_together_have_a_bound_and_only_ours_give_way(tmp_path: Path) -> None:
    log = Log(tmp_path, keep=32 * MIB, total=48 * MIB)
    (tmp_path / "gc").write_bytes(b"g" * (20 * MIB))
    log.write(500_000)
    log.lines = 0
    log.write(500_000, "stderr")
    assert log.blocks("gc") >= 20 * MIB
    assert log.blocks("stdout") + log.blocks("stderr") + log.blocks("gc") <= 48 * MIB + 3 * STEP
    (tmp_path / "gc").write_bytes(b"g" * (100 * MIB))
    log.write(200_000)
    assert log.blocks("stdout") >= STEP, "something is kept whatever the code writes beside it"


def test_a_filesystem_without_holes_ends_the_log_and_says_so(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(bounded_file, "punch_hole", cannot)
    log.write(400_000)
    size = log.path.stat().st_size
    assert size < KEEP + 2 * STEP
    log.write(1000)
    assert log.path.stat().st_size == size
    index = LineIndex()
    assert log.page(index, from_line=1, count=1).logs == [line(1).decode().strip()]
    (last,) = log.page(index, tail, from_line=1, count=1).logs
    assert re.fullmatch(
        r"\[this log ends here, at \d+ MiB: its beginning cannot be dropped on this filesystem"
        r" \(Operation not supported\); what follows is in the container's log only\]",
        last,
    )


def test_a_disk_that_is_full_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        BoundedFile("/dev/full", keep=KEEP).append(b"x")
    log = Log(tmp_path)
    log.files._files["stdout"].descriptor = os.open("/dev/full", os.O_RDWR)
    log.files.write("stdout", b"lost\n")


def test_a_log_on_a_disk_that_is_full_gives_half_of_itself_for_what_comes(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = 12 * MIB
    log.files._files["stdout"].keep = 1 << 40
    descriptor = log.files._files["stdout"].descriptor
    write = os.write

    def bounded(target: int, data: bytes) -> int:
        if target == descriptor:
            free = disk - log.blocks()
            if free <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[:free]  # a part of it, first, as a real one
        return write(target, data)

    monkeypatch.setattr(os, "write", bounded)
    log.write(500_000)
    expected = sum(len(line(number)) for number in range(1, 500_001))
    assert log.path.stat().st_size == expected > 2 * disk
    assert log.blocks() <= disk + MIB
    with log.path.open("rb") as file:
        file.seek(log.files._files["stdout"].start.begin)
        kept = [int(text[:9]) for text in file]
    assert kept == list(range(kept[0], 500_001))
    assert len(kept) * 64 > 3 * MIB


@pytest.mark.parametrize(
    ("name", "value"), [("ECM_LOG_FILE_MIB", "7"), ("ECM_LOG_FILE_MIB", "many"), ("ECM_LOG_TOTAL_MIB", "31")]
)
def test_a_bound_that_cannot_be_kept_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is '{value}': write a whole number from"):
        read_settings({"ECM_AGENT_KEY": "k", name: value})


# -- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent whose logs keep 8 MiB."""
    agent = AgentProcess(tmp_path_factory.mktemp("small"), ECM_LOG_FILE_MIB="8")
    yield agent
    agent.close()


PRINT = "import os\nfor n in range({0}): os.write(1, b''.join(b'%d %d\\n' % (n, m) for m in range(100_000)))"


def test_a_session_that_prints_much_keeps_its_end_and_is_downloaded_from_there(small: AgentProcess) -> None:
    small.execute(PRINT.format(40))
    path = small.log_dir / "stdout"
    assert path.stat().st_size > 30 * MIB
    assert path.stat().st_blocks * 512 <= KEEP + 3 * STEP
    status, body = small.call("GET", "/v1/logs/stdout")
    assert status == 200
    first, lines = said(body)
    assert lines > 100_000
    assert b"\0" not in body
    assert len(body) == path.stat().st_size - first
    assert b"39 99999\n" in body[-1000:]
    page = small.json("GET", f"/v1/logs/stdout/lines?fromLine={lines}&lines=3")[1]
    assert page["logs"] == body.decode().splitlines()[:3]
    assert page["endLine"] == lines + 2


def test_parts_of_a_shortened_log_together_are_the_note_and_the_kept_bytes(small: AgentProcess) -> None:
    small.execute(PRINT.format(40))
    whole = small.call("GET", "/v1/logs/stdout")[1]
    found = b""
    for length in (10, 50, 200, 1 << 30):
        found += small.call("GET", f"/v1/logs/stdout?offset={len(found)}&length={length}")[1]
    assert found == whole


def test_a_download_that_is_overtaken_is_cut(start: Callable[..., AgentProcess]) -> None:
    agent = start(ECM_LOG_FILE_MIB="24")  # more than the sockets between take at once
    agent.execute(PRINT.format(40))
    connection = agent.connection()
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    connection.request("GET", "/v1/logs/stdout", headers={"Authorization": f"Bearer {agent.token}"})
    answer = connection.getresponse()
    agent.execute(PRINT.format(40))
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    connection.close()


def test_a_follower_is_told_where_what_it_gets_begins(small: AgentProcess) -> None:
    small.execute(PRINT.format(40))
    connection = small.connection()
    connection.request("GET", "/v1/logs/stdout/follow?offset=0", headers={"Authorization": f"Bearer {small.token}"})
    answer = connection.getresponse()
    length = int(answer.readline())
    frame = answer.read(length)
    first, lines = said(frame)
    assert int(answer.headers["X-Log-Offset"]) == first
    assert lines > 0
    connection.close()
    answer.close()


def test_the_journal_is_bounded_as_well(tmp_path: Path) -> None:
    file = BoundedFile(str(tmp_path / "journal.jsonl"), keep=KEEP)
    for _ in range(10_000):
        file.append(b"{" + b" " * 2046 + b"}\n")
    assert (tmp_path / "journal.jsonl").stat().st_blocks * 512 <= KEEP + 2 * STEP


def test_output_while_a_page_is_read_does_not_change_the_page(small: AgentProcess) -> None:
    enough = small.home / "enough"
    block = "b''.join(b'%d %d\\n' % (0, m) for m in range(100_000))"
    code = f"import os\nwhile not os.path.exists({str(enough)!r}): os.write(1, {block})"
    pending: Pending = small.start_execute(code)
    try:
        for _ in range(30):
            status, page = small.json("GET", "/v1/logs/stdout/lines?fromLine=1&lines=50")
            assert status in (200, 409), page
            if status == 200 and len(page["logs"]) > 1:
                assert not any("\0" in text for text in page["logs"])
    finally:
        enough.touch()
        pending.answer()
