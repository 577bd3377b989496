"""A command that is asked for its help, or given what it does not know, does nothing else: some act on a cluster."""

from __future__ import annotations

import pytest

from tests.unit.tools.commands import Answer, answers, commands

# They are started by our own programs alone, with one argument of JSON or of a path that they make.
INTERNAL = {
    "tools.fuzz.schema", "tools.image.fonts", "tools.image.prune", "tools.loopback.cluster",
    "tools.loopback.part", "tools.testkit.agents.fake_kernel",
}  # fmt: skip
COMMANDS = [module for module in commands("bench", "e2e", "tools") if module not in INTERNAL]
ARGUMENTS = ("--help", "--no-such-option")


@pytest.fixture(scope="module")
def told() -> dict[tuple[str, ...], Answer]:
    return answers((module, argument) for module in COMMANDS for argument in ARGUMENTS)


@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_says_what_it_does(module: str, told: dict[tuple[str, ...], Answer]) -> None:
    done = told[module, "--help"]
    assert done.code == 0, done.err
    assert "usage" in done.out.lower()


@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_refuses_an_option_that_it_does_not_know(module: str, told: dict[tuple[str, ...], Answer]) -> None:
    done = told[module, "--no-such-option"]
    assert done.code == 2, done.err
    assert "usage" in done.err.lower()
    assert "Traceback" not in done.err


def test_commands_that_act_on_a_cluster_are_among_them() -> None:
    assert {"bench", "bench.clean", "bench.jeg", "e2e.demo", "e2e.accounts", "tools.cluster"} <= set(COMMANDS)
