"""The log folder: what is written there, and how it is read back while it grows."""

from __future__ import annotations

import os
import re
import time
import tracemalloc
from pathlib import Path

import pytest

from linkis_ecm.agent import logfiles
from linkis_ecm.agent.logfiles import Mirror, open_log, read_lines
from tests.agent.harness import AgentProcess


def lines(path: Path, from_line: int, count: int) -> tuple[list[str], int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        page = read_lines(descriptor, from_line=from_line, count=count)
    finally:
        os.close(descriptor)
    assert page["rows"] == len(page["logs"])
    return page["logs"], page["endLine"]


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
    monkeypatch.setattr(logfiles, "_CHUNK", chunk)
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
    monkeypatch.setattr(logfiles, "MAX_PAGE_BYTES", 100)
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


def test_a_stream_that_stands_still_drops_and_says_so() -> None:
    read, write = os.pipe()
    mirror = Mirror(write)
    block = b"z" * (1 << 20)
    started = time.monotonic()
    for _ in range(12):
        mirror.write(block)
    assert time.monotonic() - started < 2  # nobody reads the pipe, and nobody waits
    received = b""
    mirror_closed = False
    os.set_blocking(read, False)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not (mirror_closed and b"left out here" in received):
        try:
            received += os.read(read, 1 << 20)
        except BlockingIOError:
            time.sleep(0.005)
            if not mirror_closed and received.count(b"z") >= 4 << 20:
                mirror.write(b"after")
                mirror_closed = True
    mirror.close(1.0)
    os.close(read)
    os.close(write)
    assert 4 << 20 <= received.count(b"z") < 12 << 20
    dropped = re.search(rb"\[(\d+) bytes left out here", received)
    assert dropped is not None
    assert int(dropped[1]) == (12 << 20) - received.count(b"z")


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
    agent.outputs("for n in range(10): print('paged', n)")
    every = agent.json("GET", "/v1/logs/stdout/lines?fromLine=1&lines=5000")[1]
    first = every["logs"].index("paged 0") + 1
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
def test_what_is_no_log_is_404(agent: AgentProcess, name: str, tail: str) -> None:
    status, _ = agent.json("GET", f"/v1/logs/{name}{tail}")
    assert status == 404


def test_a_download_is_the_file_as_it_was_when_it_was_opened(agent: AgentProcess) -> None:
    agent.outputs("print('q' * (4 << 20))")
    pending = agent.start_execute("import time\nfor n in range(200):\n    print('growing', n); time.sleep(0.005)")
    agent.wait_for_state("Busy")
    connection = agent.connection()
    sizes = []
    for _ in range(5):
        connection.request("GET", "/v1/logs/stdout", headers={"Authorization": "Bearer token-of-this-engine"})
        answer = connection.getresponse()
        body = answer.read()
        assert len(body) == int(answer.headers["Content-Length"])
        assert (agent.log_dir / "stdout").read_bytes().startswith(body)
        sizes.append(len(body))
    assert sizes == sorted(sizes)
    assert pending.answer()[1]["status"] == "Succeed"
    connection.close()


def test_a_big_download_costs_the_agent_no_memory(agent: AgentProcess) -> None:
    with open(agent.log_dir / "yarnApp", "wb") as file:
        file.truncate(512 << 20)
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
