"""`!command`: it writes to a terminal, and finds no input."""

from __future__ import annotations

import pytest

from tools.testkit.agents.process import AgentProcess


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("!cat; echo ended", "ended"),
        ("!read x; echo $?", "1"),
        ("!python -c 'input(1)' 2>&1 | tail -1", "EOFError: EOF when reading a line"),
        ("!python -c 'import sys; print(sys.stdin.read(), sys.stdout.isatty(), sys.stderr.isatty())'", " True True"),
        ("!python -c 'import os; print(tuple(os.get_terminal_size()))'", "(80, 24)"),
        ("!echo words | cat", "words"),
    ],
)
def test_a_command_that_reads_finds_the_end_of_its_input(agent: AgentProcess, command: str, printed: str) -> None:
    result = agent.execute(command, timeoutSeconds=60)
    assert result["status"] == "Succeed", result
    assert "".join(part["text"] for part in result["outputs"]).replace("\r", "").splitlines()[-1] == printed
