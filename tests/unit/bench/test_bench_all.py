"""All benchmarks in one run: what one does wrong is written down, the next runs, and nothing outlives the run."""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.all import __main__ as command_line
from bench.all.conditions import conditions
from bench.all.document import Conditions, Result, Run, read_run, run_as_json
from bench.all.keeper import Ended, ended_from
from bench.all.plan import PLAN, SECONDS, Bench
from bench.all.runner import execute, last_line, run_all
from bench.clean import remove_folders
from bench.figures.figure import Figure, MalformedError, as_json
from tools.testkit.agents.process import until

ROOT = Path(__file__).parents[3]
FIGURE = Figure("call-p50", "a call", 1.1, goal=1.2)
REPORT = json.dumps(as_json(FIGURE)) + "\n"
END = '{"end": 0}\n'
# For what a benchmark leaves, before that is killed. Here that never ends by itself, however long it is given.
LEAVING = 0.3


class Benches:
    """Benchmarks that do what their command's only word says, each in the time that is named, on a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.given: list[tuple[str, float, float]] = []
        self.lines: list[str] = []
        self._folder = folder

    def execute(
        self, command: Sequence[str], seconds: float, cleaning: float, figures: Path
    ) -> tuple[Ended | None, str]:
        (what,) = command
        self.given.append((what, seconds, cleaning))
        takes = {"hang": seconds + cleaning, "slow": seconds - 1}.get(what, 1.0)
        self.now += takes
        files = {
            "well": REPORT + END, "slow": END, "misses": END.replace("0", "1"), "hang": REPORT, "dies": REPORT,
            "raises": REPORT, "rubbish": "\x00 rubbish\n", "leaves": END, "lies": END,
        }  # fmt: skip
        if what in files:
            figures.write_text(files[what])
        ended = {
            "misses": Ended(1), "hang": Ended(-15, timed_out=True), "dies": Ended(-9), "raises": Ended(1),
            "leaves": Ended(0, left=2), "lies": Ended(3), "lost": None,
        }.get(what, Ended(0))  # fmt: skip
        return ended, "Traceback\nValueError: no\x1b such thing\n\n"

    def run(self, *plan: Bench, seconds: float = 1000.0, asked: bool = False) -> list[Result]:
        return run_all(
            plan, seconds=seconds, execute=self.execute, clock=lambda: self.now, load=lambda: 0.25,
            folder=self._folder, announce=self.lines.append, asked=asked,
        )  # fmt: skip


@pytest.fixture
def benches(tmp_path: Path) -> Benches:
    return Benches(tmp_path)


def bench(what: str, seconds: float = 100.0, missing: str = "") -> Bench:
    return Bench(what, (what,), seconds, missing=lambda: missing)


@pytest.mark.parametrize(
    ("what", "outcome", "reason", "figures"),
    [
        ("well", "done", "", (FIGURE,)),
        ("misses", "done", "", ()),
        ("hang", "timed out", "did not end within 100 s", (FIGURE,)),
        ("dies", "failed", "ended by signal 9 before all was measured: ValueError: no such thing", (FIGURE,)),
        ("raises", "failed", "ended with 1 before all was measured: ValueError: no such thing", (FIGURE,)),
        ("silent", "failed", "ended with 0 before all was measured: ValueError: no such thing", ()),
        ("lies", "failed", "ended with 3 before all was measured: ValueError: no such thing", ()),
        ("rubbish", "unreadable", "none of its figures is used: line 1: no JSON (JSONDecodeError)", ()),
        ("leaves", "done", "left 2 processes, which were ended", ()),
        ("lost", "failed", "its keeper was killed", ()),
    ],
)
def test_what_became_of_one_is_written_and_the_next_one_runs(
    benches: Benches, what: str, outcome: str, reason: str, figures: tuple[Figure, ...]
) -> None:
    first, last = benches.run(bench(what), bench("well"))
    assert (first.outcome, first.reason, first.figures) == (outcome, reason, figures)
    assert (last.outcome, last.figures, last.load) == ("done", (FIGURE,), 0.25)
    # It can be kept, whatever it printed.
    now = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)
    run_as_json(Run(Conditions(now, "unknown", False, 2, "", 0.0), (first,)))


def test_one_that_lacks_something_is_not_begun(benches: Benches) -> None:
    (result,) = benches.run(bench("well", missing="no cluster answers"))
    assert (result.outcome, result.reason, benches.given) == ("left out", "no cluster answers", [])
    assert benches.lines[-1] == "well: left out: no cluster answers"


def test_one_that_is_left_out_fails_no_run_unless_it_was_asked_for(benches: Benches) -> None:
    now = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)
    plan = bench("well"), bench("else", missing="no cluster answers")
    for asked in (False, True):
        run = Run(Conditions(now, "unknown", False, 2, "", 0.0), tuple(benches.run(*plan, asked=asked)))
        assert run.is_good is not asked
    for nothing in ((), run.results[:0], tuple(benches.run(plan[1]))):
        assert not Run(run.conditions, nothing).is_good


@pytest.mark.parametrize("key", ["\x1b[2J", "\u202e", "a\nb", "\x9b1m"])
def test_a_refusal_quotes_a_file_so_that_a_terminal_obeys_none_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    file = Path(kept(tmp_path, "a.json", 1.0))
    body = json.loads(file.read_text()) | {"versions": {key: 1}}
    file.write_text(json.dumps(body))
    with pytest.raises(SystemExit):
        command_line.main(["--run", str(file)])
    told = capsys.readouterr().err
    assert "run.versions." in told
    assert key not in told
    assert ascii(key)[1:-1] in told


def test_none_gets_more_than_what_is_left_of_the_whole_time(benches: Benches) -> None:
    results = benches.run(bench("hang"), bench("slow"), bench("well"), seconds=130.0)
    # 110 s are gone with the first one and its cleaning; 10 of 20 are for the second one's cleaning.
    assert benches.given == [("hang", 100.0, 10.0), ("slow", 10.0, 10.0)]
    assert [one.outcome for one in results] == ["timed out", "done", "not run"]
    assert results[2].reason == "no time was left of 130 s"
    assert benches.now <= 1130.0


def test_the_plan_fits_into_the_25_minutes_and_its_programs_exist() -> None:
    assert sum(one.seconds + one.cleaning for one in PLAN) <= SECONDS == 25 * 60
    assert len({one.name for one in PLAN}) == len(PLAN)
    for one in PLAN:
        assert one.command[:2] == (sys.executable, "-m")
        assert importlib.util.find_spec(one.command[2]) is not None


def test_a_reason_has_no_path_of_this_machine() -> None:
    assert last_line(f"a\n{ROOT}/bench: {Path.home()}/x \x1b[1m\n \n") == "./bench: HOME/x [1m"
    assert last_line("") == "it printed nothing"
    assert len(last_line("x" * 10_000)) == 200


def test_the_conditions_are_those_of_this_machine() -> None:
    now = datetime.datetime(2026, 11, 28, 1, 2, 3, 999, tzinfo=datetime.UTC)
    found = conditions(now)
    assert found.date.microsecond == 0
    assert found.cores == len(os.sched_getaffinity(0))
    assert {"python", "linux", "aiohttp", "jupyter_client"} <= set(found.versions)
    assert str(ROOT) not in run_as_json(Run(found, ()))


# -- real processes --------------------------------------------------------------------------------------------------


@pytest.fixture
def token() -> str:
    """Seconds that only this test's processes sleep: they are found by it."""
    return f"600.{random.SystemRandom().randrange(10**12):012}"


def alive(token: str) -> list[int]:
    """The processes whose command has that word and that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and token.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def shell(script: str, token: str) -> list[str]:
    return ["sh", "-c", script.replace("TOKEN", token)]


def test_one_that_ends_says_how_and_what_it_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures"
    ended, tail = execute(["sh", "-c", "echo hello; echo '{}' > $BENCH_FIGURES; exit 3"], 60.0, 10.0, figures)
    assert ended == Ended(3)
    assert tail == "hello\n"
    assert figures.read_text() == "{}\n"
    assert "hello" in capfd.readouterr().out


def test_one_that_prints_without_end_is_read_and_only_the_end_is_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended, tail = execute(["sh", "-c", "head -c 3000000 /dev/zero; echo; echo last"], 60.0, 10.0, tmp_path / "x")
    assert ended == Ended(0)
    assert len(tail) == 4096
    assert tail.endswith("\nlast\n")
    assert len(capfd.readouterr().out) < 1_100_000


def test_one_that_hangs_and_does_not_listen_is_ended_with_all_that_it_started(tmp_path: Path, token: str) -> None:
    # A child that ignores SIGTERM, too, in a session of its own.
    script = "trap '' TERM; setsid sleep TOKEN & sleep TOKEN"
    ended, _ = execute(shell(script, token), 1.0, 0.5, tmp_path / "x", leaving=LEAVING)
    assert ended is not None
    assert ended.timed_out
    assert alive(token) == []


def test_what_one_leaves_behind_is_ended_and_counted(tmp_path: Path, token: str) -> None:
    ended, _ = execute(
        shell("setsid sleep TOKEN >/dev/null & exit 0", token), 60.0, 10.0, tmp_path / "x", leaving=LEAVING
    )
    assert ended == Ended(0, left=1)
    assert alive(token) == []


def test_a_killed_run_leaves_no_process_and_its_folder_goes_with_the_next(tmp_path: Path, token: str) -> None:
    script = f"trap '' TERM; setsid sleep TOKEN & echo begun > {tmp_path}/begun; wait; sleep TOKEN"
    program = f"from bench.all.runner import execute; from pathlib import Path; execute({shell(script, token)!r}, 600, 1, Path({str(tmp_path / 'x')!r}), {LEAVING})"  # noqa: E501
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}", "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL)
    try:
        until((tmp_path / "begun").exists)
        assert len(alive(token)) >= 2
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: not alive(token))
    remove_folders(str(tmp_path))
    assert not list(tmp_path.glob("ecm-bench-*"))


@pytest.mark.parametrize(
    ("report", "message"),
    [("{", "no JSON"), ("[]", "not an object"), ('{"code": 0, "left": 0}', "timed_out"),
     ('{"code": "0", "left": 0, "timed_out": false}', "report.code")],
)  # fmt: skip
def test_a_keepers_report_is_checked(tmp_path: Path, report: str, message: str) -> None:
    (tmp_path / "report").write_text(report)
    with pytest.raises(MalformedError, match=message):
        ended_from(tmp_path / "report")
    assert ended_from(tmp_path / "none") is None


# -- the command -----------------------------------------------------------------------------------------------------


def kept(folder: Path, name: str, value: float, outcome: str = "done") -> str:
    figure = Figure("call-p50", "a call", value, goal=1.2, samples=6, error=0.01)
    now = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)
    result = Result("calls", outcome, figures=(figure,))  # type: ignore[arg-type]
    (folder / name).write_text(run_as_json(Run(Conditions(now, "ab" * 20, False, 2, "", 0.0), (result,))))
    return str(folder / name)


def test_a_run_is_judged_by_its_goals_and_beside_kept_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, worse, missed = (kept(tmp_path, n, v) for n, v in (("a", 1.0), ("b", 1.1), ("c", 1.3)))
    assert command_line.main(["--run", before]) == 0
    assert command_line.main(["--run", missed]) == 1
    assert "a call: 1.30, goal ≤ 1.2" in capsys.readouterr().out
    assert command_line.main(["--run", worse]) == 0
    assert command_line.main(["--run", worse, "--compare", before]) == 1
    assert "worse         a call: 1.10, kept 1.00, tolerance 0.04" in capsys.readouterr().out
    assert command_line.main(["--run", before, "--compare", worse]) == 0
    assert command_line.main(["--run", kept(tmp_path, "d", 1.0, "failed")]) == 1


def test_a_pattern_of_kept_runs_that_names_none_says_so_and_compares_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, pattern = kept(tmp_path, "a", 1.0), str(tmp_path / "*.json")
    assert command_line.main(["--run", run, "--compare", pattern]) == 0
    assert f"no run is kept yet as {pattern}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "calls,nothing"], "no such benchmark: nothing"),
        (["--compare", "NONE"], "No such file"),
        (["--run", "RUBBISH"], "rubbish.json: run: no JSON"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "rubbish.json").write_text("rubbish")
    places = {"NONE": str(tmp_path / "none.json"), "RUBBISH": str(tmp_path / "rubbish.json")}
    with pytest.raises(SystemExit) as caught:
        command_line.main([places.get(one, one) for one in arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_run_is_written_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = Bench("calls", ("sh", "-c", f"printf '%s\\n' '{REPORT.strip()}' '{END.strip()}' > $BENCH_FIGURES"), 60)
    monkeypatch.setattr(command_line, "PLAN", (program,))
    # It would change this process's handlers.
    monkeypatch.setattr(command_line, "end_on_signals", lambda: None)
    assert command_line.main(["--out", str(tmp_path / "runs")]) == 0
    (file,) = (tmp_path / "runs").iterdir()
    run = read_run(file)
    assert run.figures == {"call-p50": FIGURE}
    assert run.file_name() == file.name
    assert f"== written: {file}" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["file", "file/runs"])
def test_a_place_where_nothing_can_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(command_line, "_measured", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SystemExit) as caught:
        command_line.main(["--out", str(tmp_path / place)])
    assert caught.value.code == 2
    assert "argument --out: nothing can be written there" in capsys.readouterr().err


def test_a_run_that_cannot_be_written_in_the_end_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    program = Bench(
        "calls",
        ("sh", "-c", f"rmdir {out}; printf '%s\\n' '{REPORT.strip()}' '{END.strip()}' > $BENCH_FIGURES"),
        60,
    )
    monkeypatch.setattr(command_line, "PLAN", (program,))
    monkeypatch.setattr(command_line, "end_on_signals", lambda: None)
    with pytest.raises(SystemExit) as caught:
        command_line.main(["--out", str(out)])
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert '"name": "call-p50"' in told.out
    assert str(out) in told.err
