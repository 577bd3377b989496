"""Logs with holes over HTTP: a file of a terabyte in which nothing is written costs its readers nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.agent.logs import files as log_files
from linkis_ecm.agent.logs.files import OpenLog, open_file
from tools.testkit.agents.process import AgentProcess, until

TIB = 1 << 40
BLOCK = 64 << 10
TEXT = b"first\n" + b"x" * (BLOCK - 7) + b"\n"
LAST = b"last\n" + b"y" * (BLOCK - 6) + b"\n"


def sparse(path: Path) -> None:
    """A block, a hole of a terabyte, a block, and a hole to the end."""
    with path.open("wb") as file:
        file.write(TEXT)
        file.seek(TIB)
        file.write(LAST)
        file.truncate(2 * TIB)


def opened(path: Path) -> OpenLog:
    descriptor = open_file(str(path))
    assert descriptor is not None
    return OpenLog(descriptor, None)


@pytest.fixture
def gc(agent: AgentProcess) -> Iterator[Path]:
    """A log of the shared agent, which has none otherwise."""
    path = agent.log_dir / "gc"
    yield path
    path.unlink()


def test_pages_and_downloads_of_a_sparse_log_have_what_was_written(agent: AgentProcess, gc: Path) -> None:
    sparse(gc)
    begun = time.monotonic()
    connection = agent.connection()
    status, body = agent.call("GET", "/v1/logs/gc")
    assert (status, body) == (200, TEXT + LAST)
    status, part = agent.call("GET", f"/v1/logs/gc?offset={BLOCK - 2}&length=7")
    assert (status, part) == (200, b"x\nlast\n")
    connection.close()
    _, page = agent.json("GET", "/v1/logs/gc/lines?fromLine=1&lines=10")
    assert [line[:5] for line in page["logs"]] == ["first", "xxxxx", "last", "yyyyy"]
    _, end = agent.json("GET", "/v1/logs/gc/lines?lastRows=2")
    assert [line[:5] for line in end["logs"]] == ["last", "yyyyy"]
    assert time.monotonic() - begun < 30, "a terabyte of zeros takes minutes"


def test_a_follower_of_a_log_that_becomes_sparse_is_sent_what_is_written(agent: AgentProcess, gc: Path) -> None:
    gc.write_bytes(TEXT)
    frames: list[bytes] = []
    threading.Thread(target=lambda: frames.extend(agent.stream("/v1/logs/gc/follow")), daemon=True).start()
    until(lambda: b"first" in b"".join(frames))
    os.truncate(gc, TIB)
    with gc.open("ab") as file:
        file.write(LAST)
    until(lambda: b"last" in b"".join(frames))
    assert len(b"".join(frames)) < 4 * BLOCK
    assert agent.status()["state"] == "Idle"


@pytest.mark.parametrize("step", [1, 1000, BLOCK, 4 * BLOCK])
def test_what_is_read_in_any_steps_is_the_same(tmp_path: Path, step: int) -> None:
    path = tmp_path / "gc"
    sparse(path)
    log = opened(path)
    assert log.size == 2 * BLOCK
    offset = max(0, BLOCK - 3 * step)
    whole = (TEXT + LAST)[offset:]
    found = b""
    while offset + len(found) < log.size and len(found) < 100 * step:
        found += log.read_at(offset + len(found), step)
    assert found == whole[: len(found)]
    assert len(found) >= min(len(whole), 100 * step)
    log.close()


def test_a_log_that_grows_is_read_on_and_its_parts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "PARTS_MAX", 3)
    path = tmp_path / "gc"
    path.write_bytes(b"a" * 10)
    log = opened(path)
    read: Any = log.read_at
    with path.open("r+b") as file:
        for number in range(5):
            file.seek(10 + number)
            file.write(b"b")
            file.flush()
            assert read(10 + number, 100) == b"b"
        assert len(log.kept_parts()) == 1, "what goes on is one part"
        for number in range(1, 10):
            file.seek(number << 24)
            file.write(b"c" * BLOCK)
        file.flush()
    shown = log.kept_parts()[0][1]
    read(shown, 1)
    assert len(log.kept_parts()) == 3
    assert read(log._end, 100) == b""
    log.close()
