"""A command that is asked for its help, or given what it does not know, does nothing else: some act on a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# They are started by our own programs alone, with one argument of JSON or of a path that they make.
INTERNAL = {
    "tools.fuzz.schema", "tools.image.fonts", "tools.image.prune", "tools.loopback.cluster",
    "tools.loopback.part", "tools.testkit.agents.fake_kernel",
}  # fmt: skip


def commands() -> list[str]:
    found = []
    for folder in ("e2e", "tools"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if '\nif __name__ == "__main__":' in file.read_text():
                module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
                found.append(module.removesuffix(".__main__"))
    return [module for module in found if module not in INTERNAL]


def run(module: str, argument: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", module, argument]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", commands())
def test_a_command_says_what_it_does(module: str) -> None:
    done = run(module, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


@pytest.mark.parametrize("module", commands())
def test_a_command_refuses_an_option_that_it_does_not_know(module: str) -> None:
    done = run(module, "--no-such-option")
    assert done.returncode == 2
    assert "usage" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_commands_that_act_on_a_cluster_are_among_them() -> None:
    assert {"e2e.demo", "e2e.accounts", "tools.cluster", "tools.dashboards"} <= set(commands())
