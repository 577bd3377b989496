"""The agent's ends of a kernel's raw pipes: bytes in their order against its messages, and bounds of what waits."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from codecs import getincrementaldecoder
from collections.abc import Iterator

import pytest

from linkis_ecm.agent.executors import pipes
from linkis_ecm.agent.executors.pipes import RawPipes
from linkis_ecm.agent.formats.marks import mark, secret_of
from tools.testkit.clocks import LoopClock

SECRET = secret_of("key")


class Raw:
    """Both pipes, and what came by them."""

    def __init__(self, secret: bytes = SECRET) -> None:
        (out, self.out), (err, self.err) = os.pipe(), os.pipe()
        os.set_blocking(out, False)
        os.set_blocking(err, False)
        self.came: list[tuple[str, str]] = []
        self.arrived = asyncio.Event()
        self.sent = 0
        self.seen = asyncio.Event()  # that there is something to read
        self.pipes = RawPipes({"stdout": out, "stderr": err}, self.take, secret, self.last)

    def last(self) -> int:
        self.seen.set()
        return self.sent

    def take(self, name: str, _data: bytes, text: str) -> None:
        self.came.append((name, text))
        self.arrived.set()

    def prints(self, data: bytes) -> None:
        """C code writes into stdout, and the agent reads it at once."""
        os.write(self.out, data)
        self.pipes._read("stdout")
        self.pipes._pass_on()

    def mark(self, number: int) -> None:
        os.write(self.out, mark(SECRET, number))
        os.write(self.err, mark(SECRET, number))


@pytest.fixture
async def raw() -> Iterator[Raw]:  # type: ignore[misc]
    made = Raw()
    yield made
    made.pipes.close()
    os.close(made.out)
    os.close(made.err)


async def test_bytes_behind_a_mark_wait_for_its_number(raw: Raw) -> None:
    os.write(raw.out, b"before")
    raw.mark(1)
    os.write(raw.out, b"behind")
    async with asyncio.timeout(60):
        await raw.arrived.wait()
    assert raw.came == [("stdout", "before")]
    raw.pipes.marked(1)
    assert raw.came == [("stdout", "before"), ("stdout", "behind")]


async def test_a_number_that_comes_first_has_what_stands_before_its_mark_read(raw: Raw) -> None:
    os.write(raw.err, b"before")
    raw.mark(7)
    raw.pipes.marked(7)
    assert raw.came == [("stderr", "before")]


async def test_bytes_wait_for_the_messages_that_were_sent_before_them(raw: Raw) -> None:
    """The pipe is faster than the socket: what was flushed into that is under way still."""
    raw.sent = 5
    os.write(raw.out, b"behind")
    async with asyncio.timeout(60):
        await raw.seen.wait()
    raw.sent = 6
    raw.pipes._read("stdout")
    raw.pipes._pass_on()
    raw.pipes.handled(4)
    assert raw.came == []
    raw.pipes.handled(5)
    assert raw.came == [("stdout", "behind")]


async def test_bytes_before_a_mark_wait_for_none_of_the_messages_behind_it(raw: Raw) -> None:
    os.write(raw.out, b"before")
    raw.mark(1)
    # The mark's message and one behind it are sent before anybody looks.
    raw.sent = 8
    async with asyncio.timeout(60):
        await raw.seen.wait()
    raw.pipes._read("stdout")
    raw.pipes._pass_on()
    assert raw.came == []
    raw.pipes.handled(6)
    assert raw.came == []
    raw.pipes.marked(1)
    assert raw.came == [("stdout", "before")]


async def test_the_last_bytes_wait_too_but_not_for_a_message_that_nobody_brings(raw: Raw) -> None:
    raw.sent = 5
    os.write(raw.out, b"behind")
    os.close(raw.out)
    raw.out = os.open(os.devnull, os.O_WRONLY)
    async with asyncio.timeout(60):
        await raw.seen.wait()
    raw.pipes._read("stdout")
    assert raw.came == []
    raw.pipes.drain()
    assert raw.came == [("stdout", "behind")]


async def test_only_so_many_bytes_wait(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "HELD_BYTES", 16_000)
    raw.sent = 1 << 63  # of a process that says what it likes
    os.write(raw.out, b"x")
    async with asyncio.timeout(60):
        await raw.seen.wait()
    for _ in range(4):
        raw.prints(b"x" * 3000)
    assert sum(len(text) for _, text in raw.came) == 12_001
    assert raw.pipes._queued == 0


async def test_bytes_behind_a_mark_wait_for_the_text_of_the_mark(raw: Raw) -> None:
    """C prints a, Python b, C c: the mark's message is handled before that of the text."""
    os.write(raw.out, b"a")
    raw.mark(1)
    raw.sent = 2
    os.write(raw.out, b"c")
    raw.pipes.marked(1)
    raw.pipes.handled(1)
    assert raw.came == [("stdout", "a")]
    raw.pipes.handled(2)
    assert raw.came == [("stdout", "a"), ("stdout", "c")]


async def test_bytes_wait_for_a_message_that_was_sent_since_the_pipe_was_seen(raw: Raw) -> None:
    """Within the pause before it is read, it was emptied for a mark, and is written again behind another message."""
    os.write(raw.out, b"a")
    raw.mark(1)
    raw.sent = 2
    await asyncio.sleep(0)
    raw.pipes.marked(1)
    raw.pipes.handled(2)
    raw.sent = 3
    raw.prints(b"e")
    assert raw.came == [("stdout", "a")]
    raw.pipes.handled(3)
    assert raw.came == [("stdout", "a"), ("stdout", "e")]


async def test_each_byte_has_its_own_time_to_wait(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something always waits, but nothing for long."""
    monkeypatch.setattr(pipes, "HELD_SECONDS", 30.0)
    monkeypatch.setattr(pipes, "HELD_LONGEST", 300.0)
    clock = LoopClock()
    for number in range(1, 10):
        raw.sent = number
        raw.prints(b"%d" % number)
        clock.forward(10.0)
        await asyncio.sleep(0.001)
        raw.pipes.handled(number - 1)
        assert "".join(text for _, text in raw.came) == "123456789"[: number - 1]
    raw.pipes.handled(9)
    assert "".join(text for _, text in raw.came) == "123456789"


async def test_a_message_that_did_not_come_is_waited_for_once(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "HELD_SECONDS", 30.0)
    clock = LoopClock()
    raw.sent = 7
    raw.prints(b"a")
    assert raw.came == []
    clock.forward(31.0)
    async with asyncio.timeout(60):
        await raw.arrived.wait()
    raw.prints(b"b")
    assert [text for _, text in raw.came] == ["a", "b"]


async def test_marks_that_never_come_are_few_and_keep_the_agent_from_nothing(raw: Raw) -> None:
    fcntl.fcntl(raw.out, fcntl.F_SETPIPE_SZ, 1 << 20)
    block = (b"x\n" + mark(SECRET, 4_000_000_000)) * 10_000
    begun = time.process_time()
    for _ in range(5):
        os.write(raw.out, block[: 900 << 10])
        raw.pipes._read("stdout")
        for _ in range(64):
            raw.pipes.marked(5)
    assert time.process_time() - begun < 8.0, "it was 3 s for 64 messages"
    assert raw.pipes._queued <= pipes.HELD_BYTES


@pytest.mark.parametrize("sent", [0, 1])
async def test_bytes_do_not_wait_for_ever(raw: Raw, sent: int) -> None:
    raw.sent = sent
    raw.mark(1)
    os.write(raw.out, b"behind")
    async with asyncio.timeout(60):
        await raw.arrived.wait()
    assert raw.came == [("stdout", "behind")]


async def test_a_mark_that_a_read_has_cut_is_joined(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mark(SECRET, 3)
    for at in range(1, len(whole)):
        monkeypatch.setattr(pipes, "READ_BYTES", 1 + at)
        os.write(raw.out, b"a" + whole + b"b")
        raw.pipes._read("stdout")
    raw.pipes.drain()
    assert "".join(text for _, text in raw.came) == "ab" * (len(whole) - 1)


@pytest.mark.parametrize("size", [1, 5, len(mark(SECRET, 3)) - 1])
async def test_what_only_looks_like_a_mark_comes_at_once(raw: Raw, size: int) -> None:
    """A mark is written in one go."""
    part = mark(SECRET, 3)[:size]
    raw.prints(b"a" + part)
    assert raw.came == [("stdout", getincrementaldecoder("utf-8")("replace").decode(b"a" + part))]


async def test_bytes_wait_while_other_messages_come_but_not_for_ever(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "HELD_SECONDS", 20.0)
    monkeypatch.setattr(pipes, "HELD_LONGEST", 55.0)
    clock = LoopClock()
    raw.sent = 100
    raw.prints(b"behind")
    for number in range(1, 6):
        clock.forward(10.0)
        await asyncio.sleep(0.01)
        raw.pipes.handled(number)
        assert raw.came == []
    clock.forward(10.0)
    async with asyncio.timeout(60):
        await raw.arrived.wait()


async def test_what_waits_at_the_kernels_end_is_not_given_up_before_its_last_messages(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "HELD_SECONDS", 20.0)
    monkeypatch.setattr(pipes, "HELD_LONGEST", 300.0)
    clock = LoopClock()
    raw.sent = 5
    raw.prints(b"behind")
    raw.pipes.hold(20.0)
    clock.forward(30.0)
    await asyncio.sleep(0.01)
    assert raw.came == []
    raw.pipes.handled(5)
    assert raw.came == [("stdout", "behind")]


async def test_a_close_hands_on_what_waits(raw: Raw) -> None:
    raw.sent = 5
    os.write(raw.out, b"behind")
    raw.pipes._read("stdout")
    raw.pipes.close()
    assert raw.came == [("stdout", "behind")]


async def test_a_drain_ends_though_a_child_goes_on(raw: Raw) -> None:
    os.write(raw.out, b"of the task")

    def writes_on(name: str, _data: bytes, text: str) -> None:
        raw.came.append((name, text))
        os.write(raw.out, b"later")

    raw.pipes._on_bytes = writes_on
    raw.pipes.drain()
    assert raw.came == [("stdout", "of the task")]
