"""Long tracebacks keep the line that began them, and cost no seconds."""

from __future__ import annotations

import pytest

from linkis_ecm.agent.formats.tracebacks import shortened
from linkis_ecm.agent.kernel.output.bounds import substitute
from linkis_ecm.agent.outputs import Outputs
from tools.testkit.agents.process import AgentProcess


@pytest.mark.parametrize(("count", "most"), [(0, 3), (3, 3), (4, 3), (1000, 20), (1001, 200)])
def test_a_shortened_traceback_has_its_first_and_last_lines_and_says_what_is_left_out(count: int, most: int) -> None:
    lines = [f"line {number}" for number in range(count)]
    made = shortened(lines, most)
    if count <= most:
        assert made == lines
        return
    assert len(made) == most
    assert (made[0], made[-1]) == (lines[0], lines[-1])
    (note,) = [line for line in made if line not in lines]
    assert note == f"[... {count - most + 1} parts of the traceback left out ...]"


def test_an_error_of_many_lines_keeps_both_ends() -> None:
    lines = [f"line {number}" for number in range(1000)]
    outputs = Outputs()
    outputs.error("E", "v", lines)
    kept = outputs.result()[-1]["traceback"]
    assert (kept[0], kept[-1], len(kept)) == ("line 0", "line 999", 200)
    kept = substitute({"ename": "E", "evalue": "v", "traceback": lines}, 1)["traceback"]
    assert (kept[0], kept[-1], len(kept)) == ("line 0", "line 999", 20)


_MUTUAL = "def f(n):\n    return g(n)\ndef g(n):\n    return f(n + 1)\n"


@pytest.mark.parametrize("code", [f"{_MUTUAL}f(0)  # begins", "def f(n): return f(n + 1)\nf(0)  # begins"])
def test_a_recursion_error_names_the_line_that_began_it(agent: AgentProcess, code: str) -> None:
    result = agent.execute(code)
    error = result["outputs"][-1]
    told = "\n".join(error["traceback"])
    assert error["name"] == "RecursionError"
    assert "f(0)  # begins" in told
    assert "frames left out ...]" in told
    assert error["traceback"][-1].startswith("RecursionError: maximum recursion depth exceeded")
    assert "IPython/core" not in told
    assert len(error["traceback"]) < 80


def test_a_chained_errors_long_tracebacks_are_both_cut(agent: AgentProcess) -> None:
    code = (
        f"{_MUTUAL}try:\n    f(0)  # begins\nexcept RecursionError as error:\n    raise ValueError('of it') from error"
    )
    told = "\n".join(agent.execute(code)["outputs"][-1]["traceback"])
    for part in ("f(0)  # begins", "frames left out ...]", "direct cause", "ValueError: of it"):
        assert part in told


def test_a_short_traceback_is_as_it_was(agent: AgentProcess) -> None:
    code = "def f(n):\n    return 1 / n if n == 0 else f(n - 1)\nf(3)"
    told = "\n".join(agent.execute(code)["outputs"][-1]["traceback"])
    assert "left out" not in told
    assert "ZeroDivisionError: division by zero" in told


_SILENT = "class E(Exception):\n    def __str__(self): raise KeyError('in str')\n"


@pytest.mark.parametrize(
    ("end", "name"), [("raise E('x')", "E"), ("import sys; sys.exit(E())", "SystemExit"), ("raise E from E()", "E")]
)
def test_an_error_whose_text_fails_is_told_as_python_tells_it(agent: AgentProcess, end: str, name: str) -> None:
    result = agent.execute(_SILENT + end)
    error = result["outputs"][-1]
    assert (result["status"], result["reason"], error["name"]) == ("Failed", name, name)
    assert error["value"] == result["message"] == "<exception str() failed>"
    assert error["traceback"][-1] == f"{name}: <exception str() failed>"
    told = "\n".join(error["traceback"])
    assert end in told or name == "SystemExit"
    assert "linkis_ecm" not in told
