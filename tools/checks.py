"""Runs the project's checks step by step: `python -m tools.checks lint|fast|all`.

Each step is a process of its own; the first that fails ends the run with its exit code. At the end, or at the failure,
a table says how long each step took. Must not hold any check itself: those are in the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import typer

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
# The folders of tests/: without a cluster, and those of foreign programs.
FAST_FOLDERS = ("unit", "simulation", "store", "agent", "agent_client", "gateway", "client", "supply")
FOREIGN_FOLDERS = ("judge", "browser")
app = typer.Typer(add_completion=False, help=__doc__)


@dataclass
class Steps:
    """Runs steps, remembers how long each took and undoes what was set up, also after a failure."""

    took: list[tuple[str, float, str]] = field(default_factory=list)
    undo: list[Callable[[], None]] = field(default_factory=list)

    def run(self, name: str, *command: str, seconds: float = 1800, env: dict[str, str] | None = None) -> None:
        """Runs a command with a bound on its time; on failure prints the table and exits with its code."""
        print(f"\n=== {name}: {' '.join(command)}", flush=True)
        begun = time.monotonic()
        try:
            code = subprocess.run(
                command, cwd=ROOT, env=os.environ | (env or {}), timeout=seconds, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = 124
            print(f"{name} did not end within {seconds:.0f} s", flush=True)
        self.took.append((name, time.monotonic() - begun, "ok" if code == 0 else f"failed ({code})"))
        if code:
            self.finish()
            raise typer.Exit(code)

    def finish(self) -> None:
        """Undoes in reverse order and prints what took how long."""
        while self.undo:
            self.undo.pop()()
        print("\nstep                                   seconds  result", flush=True)
        for name, seconds, result in self.took:
            print(f"{name:<38} {seconds:>7.1f}  {result}", flush=True)
        print(f"{'total':<38} {sum(seconds for _, seconds, _ in self.took):>7.1f}", flush=True)


def _lint(steps: Steps) -> None:
    steps.run("ruff check", str(BIN / "ruff"), "check", ".")
    steps.run("ruff format", str(BIN / "ruff"), "format", "--check", ".")
    steps.run("mypy --strict", str(BIN / "mypy"))
    steps.run("import-linter", str(BIN / "lint-imports"))
    steps.run("pins, licence, secrets, modes", sys.executable, "-m", "tools.supply", "repository")


def _pytest(steps: Steps, name: str, *arguments: str, seconds: float = 1800) -> None:
    steps.run(name, sys.executable, "-m", "pytest", "-q", "--durations=5", *arguments, seconds=seconds)


def _fast(steps: Steps) -> None:
    if shutil.which("mariadbd") is None:
        steps.run("MariaDB from Debian", sys.executable, "-m", "tools.cluster", "packages", "mariadb-server")
    steps.run("helm", sys.executable, "-m", "tools.cluster", "binaries", "helm")
    # Two processes a core: half of the time a test waits. Files stay together: a module shares its server, its kernel.
    folders = [f"tests/{name}" for name in FAST_FOLDERS]
    measured = ("--cov", "--cov-report=")
    parallel = ("-n", "4", "--dist", "loadfile")
    _pytest(steps, ", ".join(FAST_FOLDERS), *parallel, *measured, *folders)
    # Not --cov-fail-under: the data of child processes that ended by a signal is combined here, and the table printed.
    steps.run("coverage and its floor", sys.executable, "-m", "coverage", "report")


def _foreign_clients(steps: Steps) -> None:
    """Programs of others use ours: a browser the page, Linkis's own client the gateway."""
    if shutil.which("chromium") is None:
        steps.run("chromium from Debian", sys.executable, "-m", "tools.cluster", "packages", "chromium")
    if shutil.which("mvn") is None or shutil.which("javac") is None:
        packages = ("default-jdk-headless", "maven")
        steps.run("Java and Maven from Debian", sys.executable, "-m", "tools.cluster", "packages", *packages)
    steps.run("Linkis's client, built", sys.executable, "-m", "tests.judge.build", seconds=900)
    _pytest(
        steps,
        "Linkis's own client, the page in a browser",
        "-n",
        "2",
        "--dist",
        "loadfile",
        *(f"tests/{name}" for name in FOREIGN_FOLDERS),
    )


def _down() -> None:
    subprocess.run([sys.executable, "-m", "tools.cluster", "down"], cwd=ROOT, check=True, timeout=300)


@app.command()
def lint() -> None:
    """ruff, mypy --strict, import-linter, and what the repository must hold."""
    steps = Steps()
    _lint(steps)
    steps.finish()


@app.command()
def fast() -> None:
    """What needs no cluster, no browser and no Java."""
    steps = Steps()
    _lint(steps)
    _fast(steps)
    steps.finish()


@app.command("all")
def everything() -> None:
    """The above, then the tests on the real cluster; a cluster that this run started is stopped at its end."""
    steps = Steps()
    _lint(steps)
    # What the README tells users to do: pip must find a set of packages by itself, without our pins.
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    steps.run("pip finds the server's packages", *pip, "--dry-run", "--ignore-installed", ".[server]", seconds=600)
    _fast(steps)
    _foreign_clients(steps)
    cluster = [sys.executable, "-m", "tools.cluster"]
    was_up = subprocess.run([*cluster, "status", "--quiet"], cwd=ROOT, check=False).returncode == 0
    if not was_up:
        steps.undo.append(_down)
    steps.run("cluster", *cluster, "up")
    steps.run("images", *cluster, "images")
    steps.run("cosign and syft from their Go modules", *cluster, "binaries", "cosign", "syft", seconds=3600)
    _pytest(steps, "e2e on the cluster", "e2e", "--ignore=e2e/database", seconds=2400)
    _pytest(steps, "e2e with MariaDB", "e2e/database", seconds=1200)
    steps.finish()


if __name__ == "__main__":
    app()
