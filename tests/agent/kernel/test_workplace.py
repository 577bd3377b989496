"""Where a user's code works: a home that can be written, packages of the session's own, nothing of it in the agent."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.agent.executors.registry import ExecutorError
from linkis_ecm.agent.executors.workplace import enter
from linkis_ecm.agent.kernel.packages import FONT_LIST, give_font_list
from tools.testkit.agents.process import AgentProcess

Start = Callable[..., AgentProcess]


def text(agent: AgentProcess, code: str) -> str:
    return "".join(one.get("text", "") for one in agent.outputs(code))


def wheel(folder: Path, name: str, version: str, source: str) -> Path:
    """A package of one module, as an index has it."""
    files = {
        f"{name}.py": source,
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data.encode()).digest()).decode().rstrip('=')},"
        f"{len(data.encode())}\n"
        for path, data in files.items()
    )
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
        archive.writestr(f"{name}-{version}.dist-info/RECORD", f"{listed}{name}-{version}.dist-info/RECORD,,\n")
    return path


# --- the folder


def test_code_starts_in_a_home_that_is_empty_and_can_be_written(start: Start) -> None:
    agent = start()
    found = json.loads(
        text(
            agent, "import json, os, pathlib\nprint(json.dumps([os.getcwd(), str(pathlib.Path.home()), os.listdir()]))"
        )
    )
    home = str(agent.log_dir.parent / "home")
    assert found[:2] == [home, home]
    assert all(name.startswith(".") for name in found[2])
    written = """
import duckdb, os, pandas as pd, sqlite3
pd.DataFrame({"a": [1]}).to_csv("out.csv")
os.makedirs("output/a")
sqlite3.connect("a.db").execute("create table t (a int)").connection.close()
duckdb.connect("x.db").execute("create table t as select 1").close()
open(os.path.expanduser("~/.cache/mine"), "w").close() if os.path.isdir(os.path.expanduser("~/.cache")) else None
print(sorted(name for name in os.listdir() if not name.startswith(".")))
"""
    assert text(agent, written) == "['a.db', 'out.csv', 'output', 'x.db']\n"
    assert text(agent, "!pwd").strip() == home


def test_code_imports_what_it_wrote_there_and_pythons_own_modules_before_that(agent: AgentProcess) -> None:
    written = """
open("helper_of_mine.py", "w").write("value = 'mine'")
open("wave.py", "w").write("value = 'not the library'")
import helper_of_mine, wave
print(helper_of_mine.value, hasattr(wave, "Wave_read"))
"""
    assert text(agent, written) == "mine True\n"
    assert text(agent, "import os; os.remove('helper_of_mine.py'); os.remove('wave.py')") == ""


def test_the_working_dir_that_was_asked_for_is_not_the_home(start: Start) -> None:
    agent = start(ECM_WORK_DIR="/tmp")
    assert text(agent, "import os; print(os.getcwd(), os.environ['HOME'])") == f"/tmp {agent.log_dir.parent}/home\n"


def test_a_restart_finds_the_files_and_makes_a_folder_that_the_code_removed(start: Start) -> None:
    agent = start()
    agent.execute("open('kept', 'w').close()")
    assert agent.json("POST", "/v1/restart")[0] == 200
    assert text(agent, "import os; print(os.path.exists('kept'))") == "True\n"
    agent.execute("import shutil; shutil.rmtree(os.getcwd())")
    assert agent.json("POST", "/v1/restart")[0] == 200
    assert text(agent, "import os; print(os.getcwd()); open('new', 'w').close()") == f"{agent.log_dir.parent}/home\n"


class Moves:
    """Stands for os.chdir."""

    def __init__(self, *closed: str) -> None:
        self.to: list[str] = []
        self._closed = closed

    def __call__(self, folder: str) -> None:
        if folder in self._closed:
            raise PermissionError(13, "Permission denied")
        self.to.append(folder)


@pytest.mark.parametrize(
    ("given", "home", "folder"),
    [
        ({"HOME": "{}/h"}, "{}/h", "{}/h"),
        # Of an image that has none which can be written.
        ({"HOME": "/proc/none"}, "/tmp/home", "/tmp/home"),
        ({"HOME": "/"}, "/tmp/home", "/tmp/home"),
        ({"HOME": "relative"}, "/tmp/home", "/tmp/home"),
        ({}, "/tmp/home", "/tmp/home"),
        # The engine's author set the kernel's HOME.
        ({"HOME": "{}/h", "ECM_ENV_HOME": "{}/own"}, "{}/h", "{}/own"),
        ({"HOME": "{}/h", "ECM_ENV_HOME": "/proc/none"}, "{}/h", "{}/h"),
        ({"HOME": "{}/h", "ECM_WORK_DIR": "{}/w/x"}, "{}/h", "{}/w/x"),
    ],
)
def test_which_folder_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], home: str, folder: str
) -> None:
    monkeypatch.setattr("linkis_ecm.agent.executors.workplace.DEFAULT_HOME", "/tmp/home")
    environment = {name: value.format(tmp_path) for name, value in given.items()}
    moves = Moves()
    enter(environment, moves)
    assert environment["HOME"] == home.format(tmp_path)
    assert moves.to == [folder.format(tmp_path)]


def test_a_working_dir_that_cannot_be_entered_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for folder, words in (("/proc/none", "No such file or directory"), (str(tmp_path), "Permission denied")):
        with pytest.raises(ExecutorError, match=f"workingDir {folder}: {words}: take a folder of a volume"):
            enter({"HOME": str(tmp_path), "ECM_WORK_DIR": folder}, Moves(str(tmp_path)))


@pytest.mark.parametrize("levels", [2000, 60_000])
def test_a_path_of_very_many_levels_is_refused_and_ends_nothing(tmp_path: Path, levels: int) -> None:
    deep = f"{tmp_path}{'/a' * levels}"
    with pytest.raises(ExecutorError, match="File name too long: take a folder of a volume") as told:
        enter({"HOME": str(tmp_path), "ECM_WORK_DIR": deep}, Moves())
    assert len(str(told.value)) < 400
    moves = Moves()
    enter({"HOME": str(tmp_path), "ECM_ENV_HOME": deep}, moves)
    assert moves.to == [str(tmp_path)]
    # Nor does matplotlib's folder, which the kernel looks at.
    fonts = tmp_path / FONT_LIST
    fonts.mkdir(parents=True)
    (fonts / "fontlist.json").write_text("{}")
    give_font_list({"MPLCONFIGDIR": deep}, str(tmp_path))


# --- what is in it does not reach the agent

# Writes down who ran it.
SPY = """
import os
with open({path!r}, "a") as file:
    file.write(f"{{os.getpid()}} {name}\\n")
"""
SHADOWS = ("json", "asyncio", "zmq", "sitecustomize", "usercustomize", "linkis_ecm", "h11", "signal", "site")


def test_files_named_like_modules_reach_neither_the_agent_nor_a_kernels_start(tmp_path: Path) -> None:
    """The agent as the image starts it, and again when it starts a second kernel."""
    home, seen = tmp_path / "home", tmp_path / "seen"
    version = "python{}.{}".format(*sys.version_info)
    for place in (
        home,
        home / f".local/lib/{version}/site-packages",
        home / f".linkis/venv/lib/{version}/site-packages",
    ):
        place.mkdir(parents=True, exist_ok=True)
        for name in SHADOWS:
            (place / f"{name}.py").write_text(SPY.format(path=str(seen), name=f"{place.name}/{name}"))
    (home / f".linkis/venv/lib/{version}/site-packages/spy.pth").write_text(
        f"import os; open({str(seen)!r}, 'a').write(f'{{os.getpid()}} pth\\n')\n"
    )
    (tmp_path / "agent").mkdir()
    # -I takes no PYTHONPATH; the worktree's code comes by the interpreter's own way in the image.
    code = (
        f"import sys, runpy; sys.path[:0] = {[path for path in sys.path if path]!r}; sys.argv = ['-m'];"
        " runpy.run_module('linkis_ecm.agent', run_name='__main__')"
    )

    class Isolated(AgentProcess):
        arguments = ("-I", "-c", code)

    agent = Isolated(tmp_path / "agent", HOME=str(home))
    try:
        before = seen.read_text() if seen.exists() else ""
        # The session's .pth files are run, by the kernel, once it is set up.
        assert {line.split()[1] for line in before.splitlines()} <= {"pth"}
        assert agent.json("POST", "/v1/restart")[0] == 200
        assert text(agent, "import os; print(6 * 7)") == "42\n"
        ran = {int(line.split()[0]) for line in seen.read_text().splitlines()}
        assert agent.process.pid not in ran
        # As Python has it, where the user's own code asks for it.
        assert "home/usercustomize" in text(agent, f"import usercustomize\nprint(open({str(seen)!r}).read())")
    finally:
        agent.close()


def test_the_agents_files_are_not_in_the_home(start: Start) -> None:
    agent = start()
    code = """
import os
held = [os.path.join(folder, name) for folder, _, names in os.walk(os.getcwd()) for name in names]
print([name for name in held if "connection" in name or name.endswith(("stdout", "stderr", "token"))])
"""
    assert text(agent, code) == "[]\n"


# --- packages


@pytest.fixture(scope="module")
def installing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An agent, and a folder with packages of no index."""
    folder = tmp_path_factory.mktemp("installing")
    (folder / "agent").mkdir()
    agent = AgentProcess(
        folder / "agent", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(folder / "index"), PIP_CONFIG_FILE=os.devnull
    )
    yield agent, folder / "index"
    agent.close()


def test_what_a_session_installs_is_there_at_once_and_after_a_restart(installing: tuple[AgentProcess, Path]) -> None:
    agent, index = installing
    wheel(index, "plainpkg", "1.0", "value = 1\n")
    said = text(agent, "%pip install plainpkg\nimport plainpkg\nprint(plainpkg.value)")
    assert "Successfully installed plainpkg-1.0" in said
    assert said.endswith("1\n")
    # Its children have it, too.
    assert text(agent, "!python -c 'import plainpkg; print(plainpkg.value)'").strip() == "1"
    assert (
        text(
            agent, "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'import plainpkg']).returncode)"
        )
        == "0\n"
    )
    assert agent.json("POST", "/v1/restart")[0] == 200
    assert text(agent, "import plainpkg; print(plainpkg.__file__)").startswith(f"{agent.log_dir.parent}/home/.linkis/")


@pytest.mark.parametrize("how", ["%pip install", "!pip install", "!pip3 install --user", "!python -m pip install"])
def test_each_way_of_installing(installing: tuple[AgentProcess, Path], how: str) -> None:
    agent, index = installing
    name = f"way{hashlib.md5(how.encode()).hexdigest()[:6]}"
    wheel(index, name, "1.0", "value = 'here'\n")
    assert text(agent, f"{how} {name}\nimport {name}\nprint({name}.value)").endswith("here\n")


def test_an_upgrade_of_a_bundled_package_wins_after_a_restart(installing: tuple[AgentProcess, Path]) -> None:
    agent, index = installing
    wheel(index, "tabulate", "99.0", "value = 'newer'\n")
    wheel(index, "duckdb", "99.0", "value = 'newer'\n")
    assert "Successfully installed duckdb-99.0" in text(agent, "%pip install --upgrade duckdb")
    assert agent.json("POST", "/v1/restart")[0] == 200
    assert text(agent, "import duckdb; print(duckdb.value)") == "newer\n"
    assert "Successfully uninstalled duckdb-99.0" in text(agent, "%pip uninstall --yes duckdb")
    assert agent.json("POST", "/v1/restart")[0] == 200
    assert text(agent, "import duckdb; print(hasattr(duckdb, 'connect'))") == "True\n"


def test_a_package_that_would_break_the_kernel_does_not(installing: tuple[AgentProcess, Path]) -> None:
    agent, index = installing
    for name in ("tornado", "ipykernel", "traitlets", "sitecustomize"):
        wheel(index, name, "99.0", "raise SystemExit('broken')\n")
    said = text(agent, "%pip install --no-deps tornado ipykernel traitlets sitecustomize")
    assert "Successfully installed" in said
    try:
        assert agent.json("POST", "/v1/restart")[0] == 200
        assert text(agent, "print(6 * 7)") == "42\n"
    finally:
        agent.execute("!python -I -S -c 'import shutil, os; shutil.rmtree(os.path.expanduser(\"~/.linkis\"))'")
        assert agent.json("POST", "/v1/restart")[0] == 200


@pytest.mark.parametrize("spaces", ["", "  "])
def test_a_pip_that_fails_fails_the_task_with_pips_words_and_the_remedy(
    installing: tuple[AgentProcess, Path], spaces: str
) -> None:
    agent, _ = installing
    result = agent.execute(f"%pip install{spaces} no-such-package-here\nprint('went on')")
    said = "".join(one.get("text", "") for one in result["outputs"])
    assert result["status"] == "Failed"
    assert "No matching distribution found for no-such-package-here" in said
    assert "PIP_INDEX_URL or PIP_PROXY" in said
    assert "went on" not in said
    error = result["outputs"][-1]
    assert (error["name"], error["traceback"]) == (
        "PipError", ["PipError: pip ended with exit code 1: what it said stands above"],
    )  # fmt: skip
    assert "PipError" in agent.log("stderr")
    # A command's failure is no task's failure, as in every IPython; its words are the same.
    said = text(agent, "!pip install no-such-package-here")
    assert "PIP_INDEX_URL or PIP_PROXY" in said
    assert "\x1b" not in said
    assert "PIP_INDEX_URL" not in text(agent, "!pip install --no-index nothing-at-all")


def test_a_home_that_cannot_be_written_costs_the_packages_alone(start: Start) -> None:
    agent = start(ECM_ENV_HOME="/proc/none", ECM_WORK_DIR="/tmp")
    assert text(agent, "import sys, os; print(os.environ['HOME'], 'VIRTUAL_ENV' in os.environ)") == "/proc/none False\n"


PTH = "lib/python{}.{}/site-packages/odd.pth".format(*sys.version_info)
# What is put at that place of ~/.linkis/venv, and what stderr says of it; None where the next kernel repairs it.
ODD: dict[str, tuple[str, bytes | None, str | None]] = {
    "a .pth that is no UTF-8": (PTH, b"\xff\xfe\n", "UnicodeDecodeError"),
    "a pyvenv.cfg that is no UTF-8": ("pyvenv.cfg", b"\xff\xfe", None),
    "a .pth that exits": (PTH, b"import sys; sys.exit(3)\n", "SystemExit: 3"),
    "a .pth that interrupts": (PTH, b"import signal; raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    "a .pth that raises what no Exception is": (PTH, b"import sys; raise GeneratorExit('odd')\n", "GeneratorExit: odd"),
    "a .pth that sleeps": (PTH, b"import time; time.sleep(600)\n", "it ran for more than 5 s"),
    "a .pth that computes": (PTH, b"import sys; exec('while True: pass')\n", "it ran for more than 5 s"),
    "a .pth that is long": (PTH, b"#" * (2 << 20), "it has more than 1048576 bytes"),
    "a FIFO as a .pth": (PTH, None, "it is no file"),
    "a FIFO as bin/pip": ("bin/pip", None, None),
    "a FIFO as pyvenv.cfg": ("pyvenv.cfg", None, None),
    "a file as bin/python": ("bin/python", b"\x7fELF", None),
}


@pytest.mark.parametrize("kind", ODD)
def test_no_file_of_the_environment_keeps_a_kernel_from_starting(start: Start, kind: str) -> None:
    where, data, told = ODD[kind]
    agent = start()
    odd = agent.log_dir.parent / "home/.linkis/venv" / where
    odd.unlink(missing_ok=True)
    if data is None:
        os.mkfifo(odd)
    else:
        odd.write_bytes(data)
    assert agent.json("POST", "/v1/restart")[0] == 200
    assert text(agent, "import sys; print(6 * 7, sys.prefix.endswith('/.linkis/venv'))") == "42 True\n"
    # Nothing rings later, in a user's code.
    assert text(agent, "import signal; print(signal.getitimer(signal.ITIMER_REAL)[0])") == "0.0\n"
    assert text(agent, "print(signal.getsignal(signal.SIGALRM) is signal.SIG_DFL)") == "True\n"
    stderr = agent.log("stderr")
    if told is None:
        assert "is left out" not in stderr
        assert "pip" in text(agent, "!pip --version")
    else:
        assert stderr.count("is left out") == 1
        assert f"{odd} is left out" in stderr
        assert told in stderr
        assert "remove it, or ~/.linkis/venv as a whole, and then restartKernel" in stderr
    agent.execute(f"!rm -rf {str(odd)!r}")
    assert agent.json("POST", "/v1/restart")[0] == 200
    assert agent.log("stderr") == stderr


def test_a_folder_that_has_a_files_name_costs_that_file_alone(start: Start) -> None:
    agent = start()
    venv = agent.log_dir.parent / "home/.linkis/venv"
    for name in ("bin/pip", "bin/python3"):
        (venv / name).unlink()
        (venv / name).mkdir()
    assert agent.json("POST", "/v1/restart")[0] == 200
    assert text(agent, "import sys; print(sys.prefix)") == f"{venv}\n"
    assert [name in agent.log("stderr") for name in (f"{venv}/bin/pip is", f"{venv}/bin/python3 is")] == [True, True]


def test_two_engines_may_share_a_home(tmp_path: Path, start: Start) -> None:
    home = str(tmp_path / "shared")
    first, second = start(HOME=home), start(HOME=home)
    first.execute("open('a', 'w').write('1')")
    assert text(second, "print(open('a').read())") == "1\n"
    assert "pip" in text(second, "!pip --version")
    assert subprocess.run([f"{home}/.linkis/venv/bin/python", "-c", "import pandas"], check=False).returncode == 0
