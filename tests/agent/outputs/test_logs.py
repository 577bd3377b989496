"""The log folder: what is written there, and how it is read back while it grows."""

from __future__ import annotations

import os
import re
import select
import threading
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from linkis_ecm.agent.formats import log_pages
from linkis_ecm.agent.formats.log_pages import Filter, LineIndex, page, tail
from linkis_ecm.agent.logs.files import MIRROR_BYTES, Mirror, open_log
from tools.testkit.agents.process import PATIENCE, AgentProcess, until
from tools.testkit.big_files import write_zeros


def lines(path: Path, from_line: int, count: int) -> tuple[list[str], int]:
    found = page(*opened(path), from_line=from_line, count=count, wanted=Filter())
    return found.logs, found.end_line


def opened(path: Path, index: LineIndex | None = None) -> tuple[Callable[[int, int], bytes], int, LineIndex]:
    """What the page functions read: the file's bytes, its size, an index of it."""
    size, index = path.stat().st_size, index or LineIndex()

    def read_at(offset: int, count: int) -> bytes:
        with path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), count, offset)

    index.extend(read_at, size)
    return read_at, size, index


@pytest.mark.parametrize(
    ("content", "from_line", "count", "expected"),
    [
        (b"", 1, 10, ([], 0)),
        (b"a\nb\nc\n", 1, 10, (["a", "b", "c"], 3)),
        (b"a\nb\nc\n", 0, 2, (["a", "b"], 2)),
        (b"a\nb\nc\n", 2, 1, (["b"], 2)),
        (b"a\nb\nc\n", 3, 5, (["c"], 3)),
        (b"a\nb\nc\n", 4, 5, ([], 3)),
        (b"a\nb\nc\n", 99, 5, ([], 3)),
        (b"a\nb\nunfinished", 3, 5, (["unfinished"], 3)),
        (b"a\nb\nunfinished", 4, 5, ([], 3)),
        (b"a\nb\nunfinished", 9, 5, ([], 3)),
        (b"a\r\nb\r\n", 1, 5, (["a", "b"], 2)),
        (b"\n\n\n", 2, 5, (["", ""], 3)),
        (b"a\n", 1, 0, ([], 0)),
        (b"\xff\xfe bad\n", 1, 1, (["\ufffd\ufffd bad"], 1)),
        ("schöne Zeile\n".encode(), 1, 1, (["schöne Zeile"], 1)),
    ],
)
def test_a_page_holds_the_lines_asked_for(
    tmp_path: Path, content: bytes, from_line: int, count: int, expected: tuple[list[str], int]
) -> None:
    path = tmp_path / "stdout"
    path.write_bytes(content)
    assert lines(path, from_line, count) == expected


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_pages_put_together_are_the_file_whatever_the_chunks(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_pages, "BLOCK", chunk)
    path = tmp_path / "stdout"
    whole = [f"line {number} " + "x" * (number % 9) for number in range(50)]
    path.write_text("\n".join(whole) + "\n")
    found: list[str] = []
    while True:
        page, end = lines(path, len(found) + 1, 7)
        if not page:
            break
        found += page
        assert end == len(found)
    assert found == whole


def test_a_page_ends_at_its_bytes_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_pages, "MAX_PAGE_BYTES", 100)
    path = tmp_path / "stdout"
    path.write_text("".join(f"{number:030d}\n" for number in range(10)))
    first, end = lines(path, 1, 5000)
    assert (len(first), end) == (4, 4)
    assert lines(path, end + 1, 1)[0] == [f"{4:030d}"]


def test_a_line_without_end_is_cut_and_a_big_file_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    with path.open("wb") as file:
        for _ in range(96):
            file.write(b"x" * (1 << 20))
        file.write(b"\nlast\n")
    tracemalloc.start()
    try:
        (long, last), end = lines(path, 1, 10)
        assert lines(path, 2, 10)[0] == ["last"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert long.startswith("xxx")
    assert len(long) < 70_000
    assert f"[{96 << 20} bytes, cut at 65536]" in long
    assert (last, end) == ("last", 2)
    assert peak < 8 << 20


def test_only_plain_files_of_known_names_are_logs(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "stdout").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "stderr")
    (tmp_path / "gc").mkdir()
    for name in ("stdout", "stderr", "gc", "yarnApp", "secret", "../secret", "", "."):
        assert open_log(str(tmp_path), name) is None, name


def test_a_line_that_the_stream_has_room_for_is_there_at_once() -> None:
    read, write = os.pipe()
    mirror = Mirror(write)
    mirror.write(b"first\n")
    assert select.select([read], [], [], 0)[0]
    mirror.write(b"long " * select.PIPE_BUF)  # by the thread
    mirror.write(b"last\n")
    received = b""
    while not received.endswith(b"last\n"):
        assert select.select([read], [], [], PATIENCE)[0], "nothing comes"
        received += os.read(read, 1 << 20)
    assert received == b"first\n" + b"long " * select.PIPE_BUF + b"last\n"
    mirror.close(PATIENCE)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("then", ["goes on", "ends"])
def test_a_stream_that_stands_still_drops_and_says_so(then: str) -> None:
    read, write = os.pipe()
    mirror = Mirror(write)
    mirror.write(b"z" * MIRROR_BYTES)
    until(lambda: mirror._backlog == deque())  # the thread has it in the hand, and stands still
    for _ in range(8):
        mirror.write(b"z" * (1 << 20))  # nobody reads the pipe: who waited here would wait for ever
    received = b""

    def take(word: bytes) -> None:
        nonlocal received
        while word not in received:
            assert select.select([read], [], [], PATIENCE)[0], "nothing comes"
            received += os.read(read, 1 << 20)

    if then == "ends":
        closing = threading.Thread(target=mirror.close, args=(PATIENCE,))
        closing.start()
    take(b"left out here")
    assert received.count(b"z") == MIRROR_BYTES
    assert f"[{8 << 20} bytes left out here".encode() in received
    if then == "goes on":
        take(b"the log file has them]\n")
        until(lambda: mirror._bytes == 0)
        mirror.write(b"after")
        take(b"after")
        closing = threading.Thread(target=mirror.close, args=(PATIENCE,))
        closing.start()
    closing.join(PATIENCE)
    assert not mirror._thread.is_alive()
    os.close(read)
    os.close(write)


# -- over HTTP -------------------------------------------------------------------------------------------------------


def test_the_log_tells_the_engines_life_in_linkis_pattern(agent: AgentProcess) -> None:
    agent.execute("1", taskId="told-in-the-log")
    told = [line for line in agent.log("stdout").splitlines() if "told-in-the-log" in line]
    assert [re.sub(r"[\d.]+ s$", "N s", line[32:]) for line in told] == [
        "task told-in-the-log starts, 1 characters of python",
        "task told-in-the-log ended, Succeed after N s",
    ]
    for line in told:
        assert re.match(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[INFO \] ", line), line


def test_lines_come_in_pages(agent: AgentProcess) -> None:
    # Others have printed before, more than a page of it.
    before = agent.log("stdout").count("\n")
    agent.outputs("for n in range(10): print('paged', n)")
    every = agent.json("GET", f"/v1/logs/stdout/lines?fromLine={before + 1}&lines=5000")[1]
    first = before + every["logs"].index("paged 0") + 1
    status, page = agent.json("GET", f"/v1/logs/stdout/lines?fromLine={first}&lines=3")
    assert status == 200
    assert page == {
        "logs": ["paged 0", "paged 1", "paged 2"],
        "endLine": first + 2,
        "rows": 3,
        "logPath": f"{agent.log_dir}/stdout",
    }


@pytest.mark.parametrize("query", ["fromLine=x", "fromLine=-1", "lines=5001", "lines=", "fromLine=1e3", "lines=%C2%B2"])
def test_bad_page_numbers_are_refused(agent: AgentProcess, query: str) -> None:
    status, answer = agent.json("GET", f"/v1/logs/stdout/lines?{query}")
    assert status == 400
    assert "send a whole number from 0 to" in answer["error"]


@pytest.mark.parametrize(
    "name", ["gc", "yarnApp", "..", "../stdout", "..%2fstdout", "%2fetc%2fpasswd", "STDOUT", "x" * 300]
)
@pytest.mark.parametrize("tail", ["", "/lines"])
def test_an_unknown_log_name_is_404(agent: AgentProcess, name: str, tail: str) -> None:
    status, _ = agent.json("GET", f"/v1/logs/{name}{tail}")
    assert status == 404


def test_a_download_is_the_file_as_it_was_when_it_was_opened(agent: AgentProcess, tmp_path: Path) -> None:
    agent.outputs("print('q' * (4 << 20))")
    enough = tmp_path / "enough"
    code = (
        "import itertools, os, time\nfor n in itertools.count():\n"
        f"    print('growing', n, flush=True); time.sleep(0.005)\n    if os.path.exists({str(enough)!r}): break"
    )
    pending = agent.start_execute(code)
    until(lambda: "growing 0" in agent.log("stdout"))
    connection = agent.connection()
    sizes = []
    try:
        for _ in range(5):
            connection.request("GET", "/v1/logs/stdout", headers={"Authorization": "Bearer token-of-this-engine"})
            answer = connection.getresponse()
            body = answer.read()
            assert len(body) == int(answer.headers["Content-Length"])
            assert (agent.log_dir / "stdout").read_bytes().startswith(body)
            sizes.append(len(body))
            until(lambda: (agent.log_dir / "stdout").stat().st_size > sizes[-1])
    finally:
        enough.touch()
    assert sizes == sorted(set(sizes)), "it grew in between"
    assert pending.answer()[1]["status"] == "Succeed"
    connection.close()


def test_a_big_download_costs_the_agent_no_memory(agent: AgentProcess) -> None:
    write_zeros(agent.log_dir / "yarnApp", 512 << 20)
    connection = agent.connection()
    connection.request("GET", "/v1/logs/yarnApp", headers={"Authorization": "Bearer token-of-this-engine"})
    answer = connection.getresponse()
    before, peak, got = resident(agent.process.pid), 0, 0
    while data := answer.read(1 << 20):
        got += len(data)
        peak = max(peak, resident(agent.process.pid))
    connection.close()
    (agent.log_dir / "yarnApp").unlink()
    assert got == 512 << 20
    assert peak - before < 16 << 20


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- keywords, the end, the index ------------------------------------------------------------------------------------

LOG4J = """\
2026-11-24 10:00:00.001 [INFO ] started
2026-11-24 10:00:01.001 [ERROR] broken
  at line 1
  at line 2
2026-11-24 10:00:02.001 [WARN ] slow
plain
"""


@pytest.fixture
def log4j(tmp_path: Path) -> Path:
    path = tmp_path / "stdout"
    path.write_text(LOG4J)
    return path


@pytest.mark.parametrize(
    ("only", "ignore", "expected"),
    [
        ("WARN", "", ["WARN ] slow"]),
        ("WARN,ERROR", "", ["ERROR] broken", "WARN ] slow"]),
        # A stack trace goes with the entry that is left out; what prints without a time does too.
        ("", "ERROR", ["INFO ] started", "WARN ] slow", "plain"]),
        ("line 2", "", ["at line 2"]),
        ("line", "line 1", ["at line 2"]),
        (" , ", "", ["INFO ] started", "ERROR] broken", "at line 1", "at line 2", "WARN ] slow", "plain"]),
    ],
)
def test_keywords_choose_entries_and_what_belongs_to_them(
    log4j: Path, only: str, ignore: str, expected: list[str]
) -> None:
    wanted = Filter.parse(only, ignore)
    found = page(*opened(log4j), from_line=1, count=100, wanted=wanted)
    assert [line.partition("[")[2] or line.strip() for line in found.logs] == expected
    assert found.end_line == 6, "lines left out were looked at"
    backwards = tail(*opened(log4j), from_line=1, count=100, wanted=wanted)
    assert (backwards.logs, backwards.end_line) == (found.logs, 6)


def test_keywords_match_lines_without_a_time_after_lines_that_do_not_match(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    path.write_text("one\ntwo\nthree\n")
    assert page(*opened(path), from_line=1, count=10, wanted=Filter.parse("three", "")).logs == ["three"]


def test_a_page_of_a_filter_says_where_to_go_on(log4j: Path) -> None:
    first = page(*opened(log4j), from_line=1, count=1, wanted=Filter.parse("ERROR,WARN", ""))
    assert (len(first.logs), first.end_line) == (1, 2)
    rest = page(*opened(log4j), from_line=first.end_line + 1, count=1, wanted=Filter.parse("ERROR,WARN", ""))
    assert [line[-4:] for line in rest.logs] == ["slow"]


@pytest.mark.parametrize("size", [1, 3, 7, 50])
@pytest.mark.parametrize("only", ["", "1"])
@pytest.mark.parametrize("page_bytes", [8 << 20, 20, 1])
def test_pages_from_the_end_put_together_are_the_log(
    tmp_path: Path, size: int, only: str, page_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_pages, "MAX_PAGE_BYTES", page_bytes)
    monkeypatch.setattr(log_pages, "BLOCK", 16)
    monkeypatch.setattr(log_pages, "MAX_LINES", 5)
    path = tmp_path / "stdout"
    whole = [f"line {number}" for number in range(47)]
    path.write_text("\n".join(whole))
    found: list[str] = []
    seen = 0
    while seen < 47:
        got = tail(*opened(path), from_line=seen + 1, count=size, wanted=Filter.parse(only, ""))
        assert seen < got.end_line <= 47
        if only:
            assert sum(len(line) + 1 for line in got.logs) <= page_bytes or len(got.logs) == 1
        found, seen = got.logs + found, got.end_line
    assert found == [line for line in whole if only in line]


def test_the_index_grows_with_the_log_and_starts_over_with_a_shorter_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_pages, "BLOCK", 32)
    path = tmp_path / "stdout"
    index = LineIndex()
    whole = ""
    for number in range(200):
        whole += f"{number}\n" * (number % 3)
        path.write_text(whole)
        read_at, size, _ = opened(path, index)
        assert index.count(read_at, size) == whole.count("\n")
    path.write_text("a\nb\n")
    read_at, size, _ = opened(path, index)
    assert page(read_at, size, index, from_line=2, count=9, wanted=Filter()).logs == ["b"]


def test_a_late_line_of_a_long_log_costs_one_block(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    with path.open("wb") as file:
        for start in range(0, 400_000, 1000):
            file.write(
                b"".join(b"%09d some words of a line of a log\n" % number for number in range(start, start + 1000))
            )
    _, size, index = opened(path)
    read: list[int] = []

    def read_at(offset: int, count: int) -> bytes:
        read.append(count)
        with path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), count, offset)

    found = page(read_at, size, index, from_line=390_001, count=3, wanted=Filter())
    assert [line[:9] for line in found.logs] == ["000390000", "000390001", "000390002"]
    assert sum(read) <= 3 * log_pages.BLOCK
    assert index.nbytes < size / 20_000


def test_a_part_of_the_file_is_given_with_the_size_of_the_whole(agent: AgentProcess) -> None:
    agent.execute("print('a part of this')")
    whole = agent.call("GET", "/v1/logs/stdout")[1]
    at = whole.index(b"part of")
    assert agent.call("GET", f"/v1/logs/stdout?offset={at}&length=7") == (200, b"part of")
    assert agent.call("GET", f"/v1/logs/stdout?offset={1 << 40}") == (200, b"")


def test_a_followed_log_tells_what_comes_and_ends_with_the_engine(
    start: Callable[..., AgentProcess],
) -> None:
    agent = start()
    agent.execute("print('before')")
    frames: list[bytes] = []
    done = threading.Event()

    def follow() -> None:
        frames.extend(agent.stream("/v1/logs/stdout/follow"))
        done.set()

    threading.Thread(target=follow, daemon=True).start()
    until(lambda: agent.status()["active"] == "1 follower under way")
    agent.execute("print('after')")
    assert agent.call("POST", "/v1/stop", {"graceSeconds": 0})[0] == 202
    assert done.wait(PATIENCE)
    text = b"".join(frames).decode()
    assert text.index("before") < text.index("after") < text.index("the engine has stopped")


# -- what the engine's own code writes there ---------------------------------------------------------------------------


def test_code_learns_where_logs_go_as_in_linkis_and_what_it_writes_there_is_served(agent: AgentProcess) -> None:
    told = agent.outputs("import os; print(os.environ['LOG_DIRS'], os.environ['TEMP_DIRS'])")
    assert told[0]["text"] == f"{agent.log_dir} {os.environ.get('TMPDIR') or '/tmp'}\n"
    agent.outputs("open(os.environ['LOG_DIRS'] + '/yarnApp', 'w').write('Submitted application application_1\\n')")
    status, page = agent.json("GET", "/v1/logs/yarnApp/lines")
    assert (status, page["logs"]) == (200, ["Submitted application application_1"])
    (agent.log_dir / "yarnApp").unlink()


def test_the_logs_of_a_jvm_that_the_code_starts_are_served(agent: AgentProcess) -> None:
    # As Linkis starts its engines (JavaProcessEngineConnLaunchBuilder); without a JVM the same file, written by hand.
    code = (
        "import os, shutil, subprocess\n"
        "path = os.environ['LOG_DIRS'] + '/gc'\n"
        "if shutil.which('java'):\n"
        "    subprocess.run(['java', f'-Xlog:gc:file={path}', '-version'], check=True, timeout=50)\n"
        "else:\n"
        "    open(path, 'w').write('[0.004s][info][gc] Using Serial\\n')\n"
    )
    agent.outputs(code)
    status, whole = agent.call("GET", "/v1/logs/gc")
    assert status == 200
    assert b"[gc] Using " in whole
    assert agent.json("GET", "/v1/logs/gc/lines?lines=1")[1]["logs"] == [whole.decode().splitlines()[0]]
    (agent.log_dir / "gc").unlink()
