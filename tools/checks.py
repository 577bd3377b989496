"""Runs the project's checks step by step: `python -m tools.checks lint|fast|all`.

What needs minutes of waiting or building runs beside the tests. Must not hold any check itself: those are in the tests.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import typer

from tools.steps import ROOT, Step, Steps
from tools.testkit.cluster.installation import uninstall
from tools.testkit.cluster.waiting import FIRST

BIN = Path(sys.executable).parent
CLUSTER = (sys.executable, "-m", "tools.cluster")
# The folders of tests/: without a cluster, and those of foreign programs.
FAST_FOLDERS = ("unit", "simulation", "store", "agent", "agent_client", "gateway", "client", "observability", "supply")
FOREIGN_FOLDERS = ("judge", "browser")
# Of one run of them: four times what it takes on two quiet cores.
E2E_SECONDS = 2700
LINKIS_CLIENT = "Linkis's client, built"
app = typer.Typer(add_completion=False, help=__doc__)


def _lint(steps: Steps, *meanwhile: Step) -> None:
    steps.run("ruff check", str(BIN / "ruff"), "check", ".")
    steps.run("ruff format", str(BIN / "ruff"), "format", "--check", ".")
    # It keeps one core busy.
    steps.together(Step("mypy --strict", (str(BIN / "mypy"),)), *meanwhile)
    steps.run("import-linter", str(BIN / "lint-imports"))
    steps.run("pins, licence, secrets, modes", sys.executable, "-m", "tools.supply", "repository")


def _pytest(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pytest", "-q", "--durations=5", *arguments)


def _importable() -> Step:
    """Imports each test once, so that its bytecode is there for all processes that run tests: in a clean clone each of
    them would else rewrite all tests for itself, 15 s of a core's time."""
    return Step("each test is importable", (sys.executable, "-m", "pytest", "-qq", "--collect-only", "tests", "e2e"))


def _prepare_fast(steps: Steps) -> None:
    if shutil.which("mariadbd") is None:
        steps.run("MariaDB from Debian", *CLUSTER, "packages", "mariadb-server")
    steps.run("helm", *CLUSTER, "binaries", "helm")
    steps.run("promtool and prometheus", sys.executable, "-m", "tools.observability.prometheus")


def _fast(steps: Steps) -> None:
    # Two processes a core: half of the time a test waits. Files stay together: a module shares its server, its kernel.
    folders = [f"tests/{name}" for name in FAST_FOLDERS]
    measured = ("--cov", "--cov-report=")
    parallel = ("-n", "4", "--dist", "loadfile")
    steps.run(", ".join(FAST_FOLDERS), *_pytest(*parallel, *measured, *folders))
    # Not --cov-fail-under: the data of child processes that ended by a signal is combined here, and the table printed.
    steps.run("coverage and its floor", sys.executable, "-m", "coverage", "report")


def _prepare_foreign(steps: Steps) -> None:
    if shutil.which("chromium") is None:
        steps.beside("chromium from Debian", *CLUSTER, "packages", "chromium")
    steps.run("axe-core", sys.executable, "-m", "tools.vendor", "axe")
    if shutil.which("mvn") is None or shutil.which("javac") is None:
        packages = ("default-jdk-headless", "maven")
        steps.beside("Java and Maven from Debian", *CLUSTER, "packages", *packages)
    steps.beside(LINKIS_CLIENT, sys.executable, "-m", "tests.judge.build")


def _foreign_clients() -> Step:
    """Programs of others use ours: a browser the page, Linkis's own client the gateway."""
    folders = [f"tests/{name}" for name in FOREIGN_FOLDERS]
    return Step("Linkis's own client, a browser", _pytest("-n", "2", "--dist", "loadfile", *folders))


def _prepare_cluster(steps: Steps) -> None:
    # What the README tells users to do: pip must find a set of packages by itself, without our pins.
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    steps.beside("pip finds the server's packages", *pip, "--dry-run", "--ignore-installed", ".[server]")
    steps.beside("the cluster's parts and the images", *CLUSTER, "prepare")
    steps.beside("cosign and syft from their Go modules", *CLUSTER, "binaries", "cosign", "syft")


def _on_the_cluster(steps: Steps) -> None:
    was_up = subprocess.run([*CLUSTER, "status", "--quiet"], cwd=ROOT, check=False).returncode == 0
    if not was_up:
        steps.undo.append(_down)
    else:
        steps.undo.append(_leave)
    steps.run("cluster", *CLUSTER, "up", seconds=5400)
    steps.run("images", *CLUSTER, "images")
    # Before it in the queue is chromium: the tests on the cluster look at the console in a browser.
    steps.wait(LINKIS_CLIENT)
    # It reads files and asks no cluster; the tests on the cluster wait for most of their time.
    shipped = "e2e/installation/test_images.py"
    steps.beside("what the images hold and who signed them", *_pytest(shipped))
    others = ("e2e", f"--ignore={shipped}")
    # Most of their time is waiting: for kubelets, schedulers, grace. A file's tests stay together, the longest files
    # begin (e2e/conftest.py).
    parallel = ("--dist", "loadfile", "--no-loadscope-reorder")
    with tempfile.TemporaryDirectory() as folder:
        shared = {"ECM_E2E_SHARED": folder}
        steps.together(
            Step(
                "e2e, one release for all",
                _pytest(*others, "-n", "4", *parallel, "-m", "not release and not alone"), E2E_SECONDS, shared,
            ),
            Step(
                "e2e, each with its release",
                _pytest(*others, "-n", "2", *parallel, "-m", "release"), E2E_SECONDS,
                shared | {"ECM_E2E_OWN_RELEASE": "1"},
            ),
        )  # fmt: skip
    # Alone on the cluster, which rests for minutes while it waits for the operator's limits of time; the programs of
    # others use loopback and no cluster.
    steps.together(Step("e2e, alone on the cluster", _pytest(*others, "-m", "alone"), E2E_SECONDS), _foreign_clients())


def _leave() -> None:
    """The first release, which the tests side by side leave to those that are alone; harmless where it is gone."""
    uninstall(FIRST)


def _down() -> None:
    subprocess.run([*CLUSTER, "down"], cwd=ROOT, check=True, timeout=300)


@app.command()
def lint() -> None:
    """ruff, mypy --strict, import-linter, and what the repository must hold."""
    with Steps() as steps:
        _lint(steps)


@app.command()
def fast() -> None:
    """What needs no cluster, no browser and no Java."""
    with Steps() as steps:
        _lint(steps, _importable())
        _prepare_fast(steps)
        _fast(steps)


@app.command("all")
def everything() -> None:
    """The above, then the tests on the real cluster; a cluster that this run started is stopped at its end."""
    with Steps() as steps:
        _lint(steps, _importable())
        # Before what runs beside it: one installation of Debian packages at a time.
        _prepare_fast(steps)
        _prepare_foreign(steps)
        _prepare_cluster(steps)
        _fast(steps)
        _on_the_cluster(steps)
        steps.wait()


if __name__ == "__main__":
    app()
