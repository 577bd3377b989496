"""A child that the code forks ends where the code ends, as a script's does, and is no second kernel."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from tests.agent.operator import Operator, Start, ended, started
from tools.testkit.agents.process import AgentProcess

# Waits for the child, and prints how it ended.
_WAIT = "\nif pid: print('child ended with', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)"
FORKS = {
    "wait": "import os\npid = os.fork()\nif not pid: print('child', flush=True)" + _WAIT + "\nif pid: print('waited')",
    "no flush": "import os\npid = os.fork()\nif not pid: print('child', end='')" + _WAIT,
    "sys.exit": "import os, sys\npid = os.fork()\nif not pid: sys.exit(4)" + _WAIT,
    "sys.exit of a text": "import os, sys\npid = os.fork()\nif not pid: sys.exit('no data')" + _WAIT,
    "exit": "import os, sys\npid = os.fork()\nif not pid: exit(5)" + _WAIT,
    "raise": "import os\npid = os.fork()\nif not pid: raise ValueError('of the child')" + _WAIT,
    "a group": "import os\npid = os.fork()\nif not pid: raise ExceptionGroup('two', [ValueError('of it')])" + _WAIT,
    "interrupted": "import os\npid = os.fork()\nif not pid: raise KeyboardInterrupt" + _WAIT,
    "os._exit": "import os\npid = os.fork()\nif not pid: os._exit(6)" + _WAIT,
    "double": (
        "import os\npid = os.fork()\nif not pid:\n    pid = os.fork()\n    if not pid: print('grandchild', flush=True)"
        + _WAIT
    ),
    "a function": (
        "import os\ndef work():\n    return os.fork()\npid = work()\nif not pid: print('child', flush=True)"
        + _WAIT
    ),
    "a thread": (
        "import os, threading\ndef work():\n    pid = os.fork()\n    if not pid: print('child', flush=True)\n"
        "    else: print(os.waitpid(pid, 0)[1], flush=True)\n"
        "one = threading.Thread(target=work)\none.start()\none.join()"
    ),
    "an open file": (
        "import os\npid = os.fork()\nif not pid: f = open('kept', 'w'); f.write('words')" + _WAIT
        + "\nif pid: print(open('kept').read())"
    ),
    "a terminal": (
        "import os, pty\npid, end = pty.fork()\nif not pid: print('in the terminal', flush=True)\n"
        "else: print(os.read(end, 15), flush=True)" + _WAIT
    ),
    "an expression": "import os\nif pid := os.fork(): os.waitpid(pid, 0)\n'shown' if pid else 'of the child'",
    "multiprocessing": (
        "import multiprocessing as m\nc = m.get_context('fork')\np = c.Process(target=print, args=('child',))\n"
        "p.start(); p.join(); print(p.exitcode)"
    ),
    "a pool": (
        "import concurrent.futures as f, multiprocessing as m\n"
        "with f.ProcessPoolExecutor(2, mp_context=m.get_context('fork')) as p: print(list(p.map(abs, [-1, -2])))"
    ),
    "subprocess": "import subprocess\nprint(subprocess.run(['echo', 'said'], capture_output=True).stdout)",
    "subprocess with a function": (
        "import subprocess\nprint(subprocess.run(['true'], preexec_fn=lambda: None).returncode)"
    ),
}  # fmt: skip


def _last(text: str) -> list[str]:
    """The lines, in any order, without where a traceback was."""
    return sorted(line for line in text.splitlines() if not line.lstrip().startswith(("File ", "Traceback")))


def _script(code: str, folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
    )


@pytest.mark.parametrize("name", FORKS)
async def test_the_child_of_a_job_ends_as_a_scripts(
    start: Start, operator: Operator, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    code = FORKS[name]
    script = await asyncio.to_thread(_script, code, str(tmp_path_factory.mktemp("script")))
    operator.engine(mode="once", code=code)
    agent = await started(start, operator, ECM_MODE="once")
    assert await ended(agent) == script.returncode == 0
    assert operator.reports[-1]["state"] == "Success"
    stdout = agent.log("stdout")
    for line in _last(script.stdout):
        assert stdout.count(line) >= script.stdout.count(line), stdout
    stderr = agent.log("stderr").replace("/tmp/ipykernel_", "")  # the names of cells
    for told in ("ipykernel", "linkis_ecm", "IPython", "WARNING", "zmq"):
        assert told not in stderr, stderr
    if name == "raise":
        assert "ValueError: of the child" in stderr
        assert "raise ValueError('of the child')" in stderr
    if name == "a group":
        assert "ValueError: of it" in stderr
    if name == "sys.exit of a text":
        assert stderr.count("no data") == 1


@pytest.mark.parametrize("name", FORKS)
def test_the_child_of_a_session_ends_with_its_task(
    agent: AgentProcess, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    code = FORKS[name]
    script = _script(code, str(tmp_path_factory.mktemp("script")))
    result = agent.execute(code)
    assert result["status"] == "Succeed", result
    texts = "".join(part["text"] for part in result["outputs"] if part.get("stream") == "stdout")
    assert _last(texts) == _last(script.stdout)
    # There is no second kernel: no child is left, and what comes next comes once.
    assert agent.outputs("import os\ntry: os.waitpid(-1, os.WNOHANG)\nexcept ChildProcessError: print('none')") == [
        {"type": "text", "stream": "stdout", "text": "none\n"}
    ]


def test_a_cell_within_a_cell_ends_no_child(agent: AgentProcess) -> None:
    code = (
        "import os\npid = os.fork()\nif not pid:\n    get_ipython().run_cell('1')\n"
        "    get_ipython().run_cell('2')\n    import sys; sys.exit(7)" + _WAIT
    )
    result = agent.execute(code)
    assert "child ended with 7\n" in "".join(part.get("text", "") for part in result["outputs"])


def test_the_child_of_a_cell_that_awaits_ends_with_it(agent: AgentProcess) -> None:
    result = agent.execute("import asyncio, os\nawait asyncio.sleep(0)\npid = os.fork()" + _WAIT)
    assert [part["text"] for part in result["outputs"]] == ["child ended with 0\n"]
