"""What code and its children print: in the order in which it was written, with whole characters, whatever it costs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from linkis_ecm.agent.formats.cursors import Cursor
from linkis_ecm.agent.formats.rewriting import last_states, newest_states
from linkis_ecm.agent.outputs import LAST_CHARS, Outputs
from tools.testkit.agents.process import AgentProcess, patched

Start = Callable[..., AgentProcess]
IMPORTS = "import ctypes, logging, multiprocessing, os, subprocess, sys, threading, time\n"


def said(agent: AgentProcess, code: str) -> list[str]:
    """The texts of a task, each with its stream's first letter where it is not stdout."""
    return [
        {"stderr": "E:", "result": "R:"}.get(part.get("stream", ""), "") + part.get("text", part["type"])
        for part in agent.execute(IMPORTS + code)["outputs"]
    ]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("for n in range(2): print('o', n); print('e', n, file=sys.stderr)", ["o 0\n", "E:e 0\n", "o 1\n", "E:e 1\n"]),
        ("print('a'); logging.warning('w'); print('b')", ["a\n", "E:WARNING:root:w\n", "b\n"]),
        ("print('a'); subprocess.run('echo x >&2', shell=True); print('b')", ["a\n", "E:x\n", "b\n"]),
        ("print('a'); os.system('echo c'); print('b')", ["a\nc\nb\n"]),
        ("print('a', end=''); os.system('printf c'); print('b')", ["acb\n"]),
        ("print('a'); os.posix_spawn('/bin/echo', ['echo', 'c'], {}); os.wait(); print('b')", ["a\nc\nb\n"]),
        ("print('a'); print(os.popen('echo c >&2').read(), end='b\\n')", ["a\n", "E:c\n", "b\n"]),
        ("os.system('echo c'); display(1); os.system('echo d'); 2", ["c\n", "1", "d\n", "R:2"]),
        ("os.system('echo c >&2'); 1/0", ["E:c\n", "error"]),
        ("print('a'); subprocess.run(['echo', 'c'], stdout=sys.stdout); print('b')", ["a\nc\nb\n"]),
        ("print('a'); subprocess.run(['echo', 'c'], stdout=sys.stderr); print('b')", ["a\n", "E:c\n", "b\n"]),
        ("print('a')\n!echo c\nprint('b')", ["a\nc\r\nb\n"]),
        (
            "print('a')\np = multiprocessing.get_context('fork').Process(target=print, args=('c',))\n"
            "p.start(); p.join(); print('b')",
            ["a\nc\nb\n"],
        ),
        (
            "p = subprocess.Popen(['sh'], stdin=-1); print('a'); kept = sys.stdout.shared\n"
            "while kept._parts or kept._sending or kept._unsent: time.sleep(0.01)\n"
            "p.stdin.write(b'echo c; : > told\\n'); p.stdin.flush()\n"
            "while not os.path.exists('told'): time.sleep(0.01)\n"
            "os.remove('told'); print('b'); p.communicate(); None",
            ["a\nc\nb\n"],
        ),
        ("print('a', flush=True); os.write(1, b'c\\n'); print('b')", ["a\nc\nb\n"]),
        ("print('a', flush=True); ctypes.CDLL(None).puts(b'c'); print('b')", ["a\nc\nb\n"]),
        (
            "sys.stdout.buffer.write(b'c\\n'); print('b'); sys.stdout.buffer.write('汉\\n'.encode())",
            ["c\nb\n汉\n", "R:4"],
        ),
        ("print('a', file=sys.__stdout__); time.sleep(0.1); print('b')", ["a\nb\n"]),
        ("t = threading.Thread(target=print, args=('c',)); print('a'); t.start(); t.join(); print('b')", ["a\nc\nb\n"]),
    ],
)
def test_what_is_printed_comes_in_the_order_in_which_it_was(
    agent: AgentProcess, code: str, expected: list[str]
) -> None:
    assert said(agent, code) == expected


class Held(AgentProcess):
    """An agent in which bytes wait for as long as it takes, and not a second, for the messages before them."""

    arguments = patched("linkis_ecm.agent.executors.pipes", "HELD_SECONDS = 600.0")


# The thread that writes into the kernel's socket waits for a processor that others use.
SLOW_SOCKET = """
cpu = min(os.sched_getaffinity(0))
busy = ["taskset", "-c", str(cpu), "timeout", "60", sys.executable, "-c", "while True: pass"]
others = [subprocess.Popen(busy) for _ in range(2)]
for task in map(int, os.listdir("/proc/self/task")):
    if open(f"/proc/self/task/{task}/comm").read().startswith("ZMQbg/IO"):
        os.sched_setaffinity(task, [cpu])
        os.sched_setscheduler(task, os.SCHED_IDLE, os.sched_param(0))
        print(end="slow")
"""


def test_what_was_flushed_comes_before_what_c_prints_though_the_socket_is_slow(start: Start) -> None:
    agent = start(Held)
    assert said(agent, SLOW_SOCKET) == ["slowslow"]
    try:
        code = "print('a', flush=True); ctypes.CDLL(None).puts(b'c'); print('b')"
        assert [said(agent, code) for _ in range(10)] == [["a\nc\nb\n"]] * 10
    finally:
        agent.execute("for other in others: other.terminate(); other.wait()")


@pytest.mark.parametrize(
    "code",
    [
        "open('{0}', 'w').write('汉字输出测试\\n' * 60000)\nsubprocess.run(['cat', '{0}'])\nNone",
        "b = '汉字输出测试\\n'.encode()\nfor n in range(400): os.write(1, b[: n % 19]); os.write(1, b[n % 19 :])",
        "b = '汉字输出测试\\n'.encode()\nfor n in b: sys.stdout.buffer.write(bytes([n])) and None",
        "subprocess.run(['sh', '-c', \"printf '\\\\346\\\\261'; sleep 0.3; printf '\\\\211字\\\\n' >&1\"]); None",
        "p = multiprocessing.get_context('fork').Process(target=lambda: print('汉字' * 200000)); p.start(); p.join()",
        "open('{0}', 'w').write('😀é汉' * 100000)\n!cat {0}",
        "print('😀é汉' * 500000)",
    ],
)
def test_characters_are_whole_whoever_wrote_them(agent: AgentProcess, code: str) -> None:
    path = agent.log_dir.parent / "text"
    texts = said(agent, code.replace("{0}", str(path)))
    assert texts
    assert "\ufffd" not in "".join(texts)
    assert "汉" in texts[0]


@pytest.mark.parametrize("half", [b"\xe4\xb8", b"\xf0\x9f\x98", b"\xff", b"a\xc3"])
@pytest.mark.parametrize(("descriptor", "letter"), [(1, ""), (2, "E:")])
def test_half_a_character_is_the_output_of_the_task_that_wrote_it(
    agent: AgentProcess, descriptor: int, letter: str, half: bytes
) -> None:
    shown = letter + half.decode(errors="replace")
    assert said(agent, f"os.write({descriptor}, {half!r}); None") == [shown]
    assert said(agent, f"os.write({descriptor}, b'second task'); None") == [f"{letter}second task"]
    # And it takes nothing of what follows by another way.
    assert said(agent, f"os.write({descriptor}, {half!r}); None") == [shown]
    assert said(agent, "print('汉')") == ["汉\n"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("[sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.buffer.fileno()]", "R:[1, 2, 1]"),
        ("sys.stdout.reconfigure(encoding='utf-8', errors='replace', line_buffering=True)\nprint('汉')", "汉\n"),
        (
            "sys.stdout.buffer.flush(); sys.stdout.writable(), sys.stdout.isatty(), sys.stdout.encoding",
            "R:(True, False, 'UTF-8')",
        ),
        ("import codecs\nw = codecs.getwriter('utf-8')(sys.stdout.buffer)\nw.write('汉\\n')", "汉\n"),
        ("import faulthandler\nfaulthandler.is_enabled()", "R:True"),
        ("sys.stdout.writelines(['a', 'b'])\nsys.stdout.line_buffering", "ab"),
        ("import contextlib, io\nwith contextlib.redirect_stdout(sys.stderr): print('x')", "E:x\n"),
    ],
)
def test_the_streams_have_what_a_file_of_text_has(agent: AgentProcess, code: str, expected: str) -> None:
    assert said(agent, code)[0] == expected


def test_a_wrapper_in_the_streams_place_goes_on_in_the_next_task(agent: AgentProcess) -> None:
    try:
        assert said(
            agent, "import io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint('汉')"
        ) == ["汉\n"]
        assert said(agent, "print('字')") == ["字\n"]
    finally:
        agent.execute("import sys; sys.stdout = get_ipython().kernel._stdout")
    assert said(agent, "print('as before')") == ["as before\n"]


# -- lines that rewrite themselves -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" 5%\r10%\r15%\n", "15%\n"), ("a\nb\rc", "a\nc"), ("a\r\nb\r\n", "a\r\nb\r\n"), ("a\r", "a\r"),
        ("\ra\rb", "b"), ("a\r\r\n", "a\r\r\n"), ("a\rb\r\nc", "b\r\nc"), ("\r" * 9, "\r" * 9),
    ],
)  # fmt: skip
def test_a_line_is_shown_in_its_last_state_however_it_comes(text: str, expected: str) -> None:
    assert last_states(text) == expected
    for size in (1, 2, 3, 100):
        outputs = Outputs()
        for at in range(0, len(text), size):
            outputs.stream("stdout", text[at : at + size])
        assert outputs.result()[0]["text"] == expected


def test_a_piece_of_a_log_keeps_the_newest_state_and_what_it_began_with() -> None:
    assert newest_states(b"end of a line\rx\ry\rz\nq\r\n\r1\r2\n") == b"end of a line\rz\nq\r\n\r2\n"


def test_a_progress_bar_costs_one_line_and_leaves_room_for_what_follows(agent: AgentProcess) -> None:
    code = (
        "bar = '#' * 90\nfor i in range(180000): sys.stderr.write('\\r%6d/180000 |%s|' % (i, bar))\n"
        "print('final loss 0.123')"
    )
    before = len(agent.log("stderr"))
    assert said(agent, code) == ["E:179999/180000 |" + "#" * 90 + "|", "final loss 0.123\n"]
    assert len(agent.log("stderr")) - before < 1_000_000


def test_the_log_shows_a_line_in_its_newest_state(agent: AgentProcess) -> None:
    agent.outputs(
        "import sys\nfor i in range(3000):\n    sys.stdout.write('\\r%d/3000 ' % i + '#' * 90)\n"
        "    sys.stdout.flush()\nprint()"
    )
    rows = agent.json("GET", "/v1/logs/stdout/lines?lastRows=3")[1]["logs"]
    assert any(row.startswith("2999/3000") for row in rows), [row[:80] for row in rows]


def test_a_follower_is_told_a_rewritten_line_as_a_whole() -> None:
    outputs = Outputs()
    outputs.stream("stdout", "head\n 1%")
    changes, cursor = outputs.since(Cursor())
    assert changes == [{"index": 0, "output": {"type": "text", "stream": "stdout", "text": "head\n 1%"}}]
    outputs.stream("stdout", "\r 2%")
    outputs.stream("stdout", "\r 3%")
    changes, cursor = outputs.since(cursor)
    assert [(change["output"]["text"], change.get("replaces")) for change in changes] == [("head\n 3%", True)]
    outputs.stream("stdout", "\nmore\n")
    changes, cursor = outputs.since(cursor)
    assert [(change["output"]["text"], change.get("replaces")) for change in changes] == [("\nmore\n", None)]
    assert outputs.since(cursor)[0] == []


def test_a_bar_behind_a_long_text_is_an_output_of_its_own() -> None:
    outputs = Outputs()
    outputs.stream("stdout", "x\n" * 50_000)
    for number in range(100):
        outputs.stream("stdout", f"\r{number}%")
    assert [len(item["text"]) for item in outputs.result()] == [100_000, 3]
    assert outputs.size == 100_003


# -- floods ----------------------------------------------------------------------------------------------------------


def test_the_last_lines_stay_behind_a_flood() -> None:
    outputs = Outputs(max_bytes=1000)
    outputs.stream("stdout", "x" * 999 + "\n")
    for number in range(20_000):
        outputs.stream("stdout", f"line {number}\n")
    outputs.stream("stderr", "the end\n")
    first, cut = outputs.result()
    assert first["text"].startswith("xxx")
    assert cut["text"].startswith("\n[output cut here: a task returns 1000 bytes")
    assert cut["text"].endswith("line 19998\nline 19999\nthe end\n")
    assert len(cut["text"]) < LAST_CHARS + 300
    assert "characters left out here" in cut["text"]


def test_a_follower_of_a_flood_is_told_its_end() -> None:
    outputs = Outputs(max_bytes=10)
    outputs.stream("stdout", "1234567890abc")
    cursor = Cursor()
    shown: dict[int, str] = {}
    for number in range(5):
        outputs.stream("stdout", f"\nline {number}")
        changes, cursor = outputs.since(cursor)
        shown |= {change["index"]: change["output"]["text"] for change in changes}
    assert shown[max(shown)].endswith("abc\nline 0\nline 1\nline 2\nline 3\nline 4")
    assert [item["text"] for item in outputs.result()] == [shown[index] for index in sorted(shown)]


def test_the_last_words_of_a_flood_and_its_error_are_in_the_result(agent: AgentProcess) -> None:
    result = agent.execute("for n in range(400000): print('x' * 60)\nprint('final loss 0.123')\n1 / 0")
    texts = [part["text"] for part in result["outputs"] if part["type"] == "text"]
    assert texts[-1].endswith("final loss 0.123\n")
    assert result["outputs"][-1]["name"] == "ZeroDivisionError"


# -- the ends of a kernel --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import ctypes\ndef crash():\n    ctypes.string_at(0)\ncrash()", ["Segmentation fault", "in crash"]),
        ("import os\nos.write(2, b'own words\\n')\nos.kill(os.getpid(), 9)", ["own words"]),
        ("import os\nos.abort()", ["Aborted", "line 2 in <module>"]),
        ("import os\nos.kill(os.getpid(), 9)", []),
    ],
)
def test_a_death_shows_the_last_words_of_its_own_task(start: Start, code: str, told: list[str]) -> None:
    agent = start()
    agent.outputs("import warnings\nwarnings.warn('an old warning of another task')")
    error = agent.execute(code)["outputs"][-1]
    assert error["name"] == "KernelDied"
    words = "\n".join(error["traceback"])
    assert "old warning" not in words
    assert "/IPython/" not in words
    for word in told:
        assert word in words
    assert "old warning" not in agent.log("stdout").partition("the engine failed")[2]


class Thread:
    """In the place of the thread that sends: it keeps what is planned, and when."""

    def __init__(self) -> None:
        self.io_loop = self
        self.thread = threading.current_thread()
        self.planned: list[float] = []

    def schedule(self, function: Callable[[], Any]) -> None:
        function()

    def call_later(self, seconds: float, _: Callable[[], None]) -> None:
        self.planned.append(seconds)


class NoPipes:
    """Nothing is printed by anything but the code."""

    def unread(self, _name: str = "") -> bool:
        return False


def test_a_line_after_a_pause_is_sent_at_once_and_a_flood_with_pauses() -> None:
    from linkis_ecm.agent.kernel.output.streams import Buffer

    now = 100.0
    thread, pipes, sent = Thread(), NoPipes(), []
    buffer = Buffer(cast("Any", pipes), thread, clock=lambda: now)
    buffer.send = lambda _kind, content, _parent: sent.append(content["text"])

    task: dict[str, Any] = {}

    def write(text: str) -> None:
        buffer.add("stdout", task, text, buffer.next_flush(0.2))

    for text in ("first", "\n"):
        write(text)
    assert thread.planned == [0.001], "one message for a line of two texts"
    buffer.flush_now()
    for _ in range(1000):
        now += 0.0001
        write("x")
    assert len(thread.planned) == 2
    assert thread.planned[1] == pytest.approx(0.2, abs=0.001)
    buffer.flush_now()
    now += 10.0
    write("later")
    assert thread.planned[2:] == [0.001]
    assert sent == ["first\n", "x" * 1000]


def test_what_was_flushed_is_sent_before_the_next_line_runs(agent: AgentProcess) -> None:
    code = (
        "import sys\nleft = 0\nfor n in range(2000):\n"
        "    print(n, flush=True)\n    left = max(left, len(sys.stdout.pub_thread._events))\nleft"
    )
    assert agent.outputs(code)[-1]["text"] == "0"


@pytest.mark.parametrize("beyond", ["0.0.100000.0", "0.1.3.0", "0.1.99.0", "0.2.1.0", "0.3.0.0", "0.0.3.1"])
def test_an_id_from_beyond_the_end_is_told_that_all_is_void(beyond: str) -> None:
    outputs = Outputs()
    outputs.stream("stdout", "ten chars\n")
    outputs.error("E", "e", ["t"])
    changes, cursor = outputs.since(Cursor.parse(beyond))
    assert changes[0] == {"reset": True}
    assert [change["index"] for change in changes[1:]] == [0, 1]
    assert outputs.since(cursor)[0] == []
