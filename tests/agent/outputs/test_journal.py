"""What was flushed is in the task's result, whatever ends the kernel next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from linkis_ecm.agent.executors.journal import Journal as AgentJournal
from linkis_ecm.agent.formats import journal
from linkis_ecm.agent.kernel.output.journal import Journal as KernelJournal
from linkis_ecm.agent.kernel.output.journal import keep_messages
from linkis_ecm.agent.kernel.output.streams import Buffer
from tools.testkit.agents.process import AgentProcess

Start = Callable[..., AgentProcess]

# More than a socket's buffer holds (208 KiB), less than the journal does. The agent stands still until the kernel is
# gone: a helper continues it at the end of a pipe that the kernel holds.
_LINES, _WIDTH = 75, 4000
_HELD = f"""
import os, subprocess
agent = os.getppid()
helper = subprocess.Popen(
    ["sh", "-c", f"cat; kill -CONT {{agent}}"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL, start_new_session=True,
)
os.kill(agent, 19)
for number in range({_LINES}): print("%0{_WIDTH}d" % number, flush=True)
"""


@pytest.mark.parametrize("end", ["os._exit(5)", "os.kill(os.getpid(), 9)", "import ctypes; ctypes.string_at(0)"])
def test_a_flushed_text_outlives_the_kernel_though_nobody_read_the_socket(start: Start, end: str) -> None:
    outputs = start().execute(_HELD + end)["outputs"]
    assert outputs[-1]["name"] == "KernelDied"
    text = "".join(part["text"] for part in outputs if part.get("stream") == "stdout")
    assert text == "".join(f"{number:0{_WIDTH}d}\n" for number in range(_LINES))


class Thread:
    """In the place of ipykernel's thread that sends: messages are on their way until they are delivered."""

    def __init__(self) -> None:
        self.linkis_buffer = Buffer(cast("Any", None), self)
        self.under_way: list[list[bytes]] = []

    def _really_send(self, frames: list[bytes]) -> None:
        self.under_way.append(frames)


def test_what_did_not_come_by_the_socket_is_read_from_the_journal_once_and_in_order(tmp_path: Path) -> None:
    agent, thread = AgentJournal(str(tmp_path)), Thread()
    keep_messages(thread, str(tmp_path))
    messages = [[b"topic", b"%d" % number] for number in range(10)]
    for message in messages:
        thread._really_send(message)
    assert [frames[:-1] for frames in thread.under_way] == messages
    for frames in thread.under_way[:4]:
        agent.note(frames)
    agent.tell()
    assert list(agent.rest()) == messages[4:]
    assert list(agent.rest()) == []
    agent.close()
    assert list(agent.rest()) == []


def test_the_journal_begins_anew_when_the_agent_has_handled_all_of_it(tmp_path: Path) -> None:
    agent, kernel = AgentJournal(str(tmp_path)), KernelJournal(str(tmp_path))
    for number in range(50):
        message = [b"%d" % number, b"x" * (journal.SIZE // 3)]
        agent.note(kernel.add(message))
        agent.tell()
        last = [b"last %d" % number]
        kernel.add(last)
        assert kernel.keeps_all()
        assert list(agent.rest()) == [last], "nothing of what stood there before"
        agent.tell()


@pytest.mark.parametrize(
    "message",
    [[b"x" * journal.SIZE], [b""] * 20, cast("list[bytes]", [memoryview(b"of an array")])],
    ids=["too long", "too many frames", "no bytes"],
)
def test_what_the_journal_has_no_room_for_is_waited_for(tmp_path: Path, message: list[bytes]) -> None:
    agent, kernel = AgentJournal(str(tmp_path)), KernelJournal(str(tmp_path))
    agent.note(kernel.add([b"first"]))
    assert kernel.keeps_all()
    agent.tell()
    frames = kernel.add(message)
    assert not kernel.keeps_all()
    kernel.add([b"behind"])
    assert not kernel.keeps_all(), "a later one that is kept does not make up for it"
    agent.note(frames)
    agent.tell()
    assert kernel.keeps_all()
    assert list(agent.rest()) == [[b"behind"]]


def test_before_the_agent_listens_nobody_waits(tmp_path: Path) -> None:
    kernel = KernelJournal(str(tmp_path))
    kernel.add([b"x" * journal.SIZE])
    assert kernel.keeps_all()


def test_a_flush_returns_when_all_is_kept() -> None:
    class Sends:
        """A thread that sends at once."""

        def __init__(self) -> None:
            self.thread = threading.Thread(target=stop.wait)
            self.thread.start()

        def schedule(self, function: Callable[[], Any]) -> None:
            function()

    class NoPipes:
        def unread(self, _name: str = "") -> bool:
            return False

    stop = threading.Event()
    answers = iter([False, False, True])
    asked: list[bool] = []

    def keeps_all() -> bool:
        asked.append(next(answers))
        return asked[-1]

    thread = Sends()
    try:
        buffer = Buffer(cast("Any", NoPipes()), thread)
        buffer.keeps_all = keeps_all
        thread.io_loop = cast("Any", None)  # type: ignore[attr-defined]
        buffer.add("stdout", {}, "text", 0.0)
        buffer.begin_send()  # the planned flush has taken the text, and the message is on its way
        buffer.flush(60.0)
        assert asked == [False, False, True]
    finally:
        stop.set()
        thread.thread.join()


def test_a_file_without_sense_gives_no_message(tmp_path: Path) -> None:
    path = tmp_path / journal.NAME
    kernel = KernelJournal(str(tmp_path))
    for number in range(3):
        kernel.add([b"message", b"%d" % number])
    whole = path.read_bytes()
    assert len(list(journal.entries(whole, 0))) == 3
    second = journal.FIRST + journal.size_of([b"message", b"0"]) - 8
    for broken in (
        whole[: journal.FIRST] + b"\xff" * (journal.SIZE - journal.FIRST),
        whole[: journal.FIRST + 4],
        b"",
    ):
        assert list(journal.entries(broken, 0)) == []
    # An entry of the user's making: as many frames as it likes, longer than the file, or a number that was there.
    for head in (
        (2).to_bytes(8, "little") + b"\xff\xff\xff\xff",
        (2).to_bytes(8, "little") + (1).to_bytes(4, "little") + b"\xff\xff\xff\xff",
        (1).to_bytes(8, "little") + bytes(4),
    ):
        forged = whole[:second] + head + whole[second + len(head) :]
        assert [number for number, _ in journal.entries(forged, 0)] == [1]


def test_a_file_that_the_code_has_cut_or_that_cannot_be_made_costs_what_it_had_alone(tmp_path: Path) -> None:
    agent = AgentJournal(str(tmp_path))
    (tmp_path / journal.NAME).write_bytes(b"")
    agent.note([journal.number_frame(7)])
    agent.tell()
    assert list(agent.rest()) == []
    nowhere, thread = AgentJournal(str(tmp_path / "missing")), Thread()
    keep_messages(thread, str(tmp_path / "missing"))
    thread._really_send([b"sent all the same"])
    assert thread.under_way == [[b"sent all the same"]]
    nowhere.note(thread.under_way[0])
    nowhere.tell()
    assert list(nowhere.rest()) == []
    nowhere.close()
