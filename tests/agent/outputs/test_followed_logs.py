"""A log that is followed while code cuts, rewrites, renames or replaces it: nobody is told the middle of other text."""

from __future__ import annotations

import asyncio
import http.client
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from linkis_ecm.agent.http import logs as log_routes
from linkis_ecm.agent.http.server import HttpError, Request, Response
from linkis_ecm.agent.logs.files import LogFiles, OpenLog
from linkis_ecm.agent.logs.followed import WITNESS_BYTES, ChangedError, FollowedLog
from tools.testkit.agents.process import AgentProcess


def followed_at(path: Path, offset: int) -> FollowedLog:
    return FollowedLog(OpenLog(os.open(path, os.O_RDONLY), None), str(path), offset)


@pytest.fixture
def gc(tmp_path: Path) -> Path:
    path = tmp_path / "gc"
    path.write_bytes(b"".join(b"old line %04d\n" % n for n in range(100)))
    return path


@pytest.mark.parametrize("seen", [1, 13, WITNESS_BYTES - 1, WITNESS_BYTES, 1400])
@pytest.mark.parametrize("longer", [0, 1, 5000], ids=["as long", "a byte longer", "longer"])
def test_a_log_that_was_cut_and_has_grown_past_its_follower_is_noticed(gc: Path, seen: int, longer: int) -> None:
    """Between two looks: its size never went back for who looks."""
    followed = followed_at(gc, 0)
    assert len(followed.read(seen)) == seen
    gc.write_bytes(b"n" * (seen + longer))
    with pytest.raises(ChangedError, match="cut or rewritten"):
        followed.read(1 << 20)


def test_the_same_where_it_has_been_told_nothing_yet(gc: Path) -> None:
    """Its follower begins at the end, and knows what was there."""
    followed = followed_at(gc, gc.stat().st_size)
    gc.write_bytes(b"n" * 5000)
    with pytest.raises(ChangedError, match="cut or rewritten"):
        followed.read(1 << 20)


def test_a_log_that_was_emptied_is_noticed_by_who_has_read_all_or_nothing_of_it(gc: Path) -> None:
    read, unread = followed_at(gc, 0), followed_at(gc, 0)
    assert read.read(1 << 20)
    os.truncate(gc, 0)
    for followed in (read, unread):
        with pytest.raises(ChangedError, match="was cut"):
            followed.read(1 << 20)


def test_what_is_appended_is_no_change_however_it_is_read(gc: Path) -> None:
    followed, got = followed_at(gc, 700), b""
    with gc.open("ab") as log:
        for n in range(200):
            log.write(b"%d\n" % n * (n % 7))
            log.flush()
            got += followed.read(1 + n % 50)
    while data := followed.read(1000):
        got += data
    assert got == gc.read_bytes()[700:]


def test_a_log_that_is_replaced_is_read_to_its_end_and_then_left(gc: Path) -> None:
    """As programs turn their logs over: the file gets another name, and the next one begins."""
    followed = followed_at(gc, 0)
    assert len(followed.read(1400)) == 1400
    gc.rename(gc.with_name("gc.1"))
    assert followed.read(1 << 20) == b"", "nobody has its name yet: its writer may go on"
    with gc.with_name("gc.1").open("ab") as old:
        old.write(b"last words\n")
    gc.write_bytes(b"n" * 5000)
    assert followed.read(1 << 20) == b"last words\n"
    with pytest.raises(ChangedError, match="replaced"):
        followed.read(1 << 20)


def test_what_is_no_file_does_not_replace_a_log(gc: Path) -> None:
    followed = followed_at(gc, 0)
    assert followed.read(1 << 20)
    gc.rename(gc.with_name("gc.1"))
    gc.symlink_to("/etc/hostname")
    assert followed.read(1 << 20) == b""


# -- over HTTP ---------------------------------------------------------------------------------------------------------


class Engine:
    """What the agent's log paths need of an engine."""

    attached: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def stream_opened(self, what: str) -> None:
        self.attached.append(what)

    def stream_closed(self, what: str) -> None:
        self.attached.remove(what)


async def follow(tmp_path: Path, engine: Engine, name: str = "gc") -> Response:
    found: Any = engine
    files = LogFiles(str(tmp_path), file_bytes=1 << 30, total_bytes=1 << 30)
    request = Request("GET", f"/v1/logs/{name}/follow", {}, {}, read_body=lambda: asyncio.sleep(0, b""))
    try:
        return await log_routes.LogApi(found, files).logs([name, "follow"], request)
    finally:
        files.close(1.0)


async def test_a_quiet_log_sends_an_empty_frame_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_routes, "HEARTBEAT", 0.05)
    monkeypatch.setattr(log_routes, "FOLLOW_PAUSE", 0.01)
    engine = Engine()
    (tmp_path / "gc").write_text("first\n")
    response = await follow(tmp_path, engine)
    assert engine.attached == ["follower"]
    assert response.stream is not None
    assert response.done is not None
    got = [await anext(response.stream) for _ in range(4)]
    assert got == [b"6\nfirst\n", b"0\n", b"0\n", b"0\n"]
    engine.ended.set_result(0)
    assert [frame async for frame in response.stream if frame != b"0\n"] == []
    response.done()
    assert engine.attached == []


async def test_a_log_that_was_rewritten_breaks_its_followers_off(gc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_routes, "FOLLOW_PAUSE", 0.01)
    response = await follow(gc.parent, Engine())
    assert response.stream is not None
    assert response.done is not None
    assert (await anext(response.stream)).startswith(b"1400\nold line 0000\n")
    await asyncio.to_thread(gc.write_bytes, b"n" * 5000)
    with pytest.raises(ConnectionAbortedError, match="cut or rewritten"):
        await anext(response.stream)
    response.done()


@pytest.mark.parametrize("how", ["never written", "renamed", "removed"])
async def test_a_log_that_is_not_there_is_refused_with_what_may_have_become_of_it(tmp_path: Path, how: str) -> None:
    if how != "never written":
        (tmp_path / "gc").write_text("text\n")
    if how == "renamed":
        (tmp_path / "gc").rename(tmp_path / "gc.1")
    if how == "removed":
        (tmp_path / "gc").unlink()
    with pytest.raises(HttpError, match="no log gc now: none was written, or its code has renamed or removed it"):
        await follow(tmp_path, Engine())


def test_a_followed_log_that_is_cut_breaks_off_and_is_then_told_from_its_beginning(
    start: Callable[..., AgentProcess],
) -> None:
    """Its follower would else wait without a word until the log is as long again."""
    agent = start()
    agent.execute("print('before')")
    connection = agent.connection()
    connection.request("GET", "/v1/logs/stdout/follow", headers=(bearer := {"Authorization": f"Bearer {agent.token}"}))
    answer = connection.getresponse()
    before = answer.read(int(answer.readline()))
    assert b"before\n" in before
    os.truncate(agent.log_dir / "stdout", 0)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    connection.close()
    agent.execute("print('x')")
    again = agent.connection()
    again.request("GET", f"/v1/logs/stdout/follow?offset={1 << 20}", headers=bearer)
    answer = again.getresponse()
    assert answer.headers["X-Log-Offset"] == "0"
    assert b"x\n" in answer.read(int(answer.readline()))
    again.close()
