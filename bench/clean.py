"""What a benchmark leaves: nothing, also where it is killed. `python -m bench.clean` removes what one of before left.

Processes end with the benchmark that started them, which Linux sees to (`tools.testkit.servers.orphans`). SIGTERM ends
it as Ctrl-C does, through its `finally` blocks (`end_on_signals`). SIGKILL runs none of them: what it leaves in the
cluster and on the disk is removed by the next benchmark, or by `python -m bench.clean`. It removes what benchmarks
make, by their names and labels, folders of kernels that do not run, and nothing else. Must not measure.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tools.cluster import tools
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import Installation, engines_of, install, uninstall
from tools.testkit.servers.orphans import start

# The release that benchmarks install, and the namespace of pods that they measure against.
NAMESPACE = "ecm-bench"
FLOORS = "ecm-bench-floors"
# Namespaces that a benchmark makes beside its release's own.
LABELS = {"linkis.apache.org/made-by": "bench"}
# Folders of benchmarks under the system's; each holds a file that is locked while its benchmark runs.
FOLDERS = "ecm-bench-"
_LOCK = ".in-use"
# Of an agent outside of a container: the sockets of its kernel (agent.executors.spawn). The kernel's command line names
# it from a moment after it was made.
KERNEL_FOLDERS = "ecm-" + "[0-9a-f]" * 16
KERNEL_FOLDERS_PARENT = "/tmp"
YOUNG_SECONDS = 10.0
# For a benchmark that was told to end: a release is uninstalled in 30 s, its namespaces are gone after 90 at most.
END_SECONDS = 180.0

_ENDING = (signal.SIGTERM, signal.SIGINT)


def stop(process: subprocess.Popen[Any], seconds: float = 10.0) -> None:
    """SIGTERM, and SIGKILL after `seconds`; returns when it is gone."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_on_signals() -> None:
    """From now on SIGTERM and SIGINT raise KeyboardInterrupt, also where SIGINT was ignored (a job of a shell's
    background), so that `finally` blocks run. asyncio cancels its main task by it.

    Of several SIGTERMs the first alone counts: timeout(1) sends two. A second SIGINT ends the cleaning, too.
    """

    def on_sigterm(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGINT)

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    # Who ended it knows why: where it was says nothing. The exit code stays that of SIGINT.
    sys.excepthook = told
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, on_sigterm)


@contextmanager
def running(command: Sequence[str], *, grace: float = 10.0, **how: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process of `start` for the time of the block: then SIGTERM, and SIGKILL after `grace` seconds.

    A signal that comes while it is being started counts from the block on. Else a process that runs already would have
    no name by which anybody could end it.
    """
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda one, _: came.append(one)) for number in _ENDING}
    process = None
    try:
        try:
            process = start(command, **how)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for one in came:
                os.kill(os.getpid(), one)
        yield process
    finally:
        if process is not None:
            stop(process, grace)


def run_inside(module: str, arguments: Sequence[str], *, seconds: float) -> int:
    """Runs `python -m module` with these arguments in the node's network; its exit code.

    After `seconds`, or when this process ends, it is told to end by SIGTERM, and has END_SECONDS for that.
    """
    command = tools.in_cluster_network([sys.executable, "-m", module, *arguments])
    end_on_signals()
    # A session of its own: of Ctrl-C it gets the one SIGTERM, and no SIGINT in the middle of its cleaning.
    how = {"signal_at_end": signal.SIGTERM, "start_new_session": True}
    with running(command, grace=END_SECONDS, **how) as process:
        try:
            return int(process.wait(seconds))
        except subprocess.TimeoutExpired:
            print(f"{module} did not end within {seconds:.0f} s", file=sys.stderr)
            return 1


@contextmanager
def release(*settings: str) -> Iterator[Installation]:
    """The benchmarks' release with these values of the chart, and FLOORS beside it, empty. Both go with the block.

    What an earlier benchmark left is removed first: its engines would be measured, too.
    """
    end_on_signals()
    remove_release()
    try:
        made = install(NAMESPACE, *settings)
        make_namespace(FLOORS)
        yield made
    finally:
        # With the release goes its cluster-scoped plugin, which another release could not take over.
        uninstall(NAMESPACE)
        remove_namespaces()


@contextmanager
def api_proxy() -> Iterator[str]:
    """The URL of `kubectl proxy`: the API server without a login."""
    command = [str(tools.kubectl()), "--kubeconfig", str(tools.kubeconfig()), "proxy", "--port=0"]
    with running(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r":(\d+)", process.stdout.readline())
        if found is None:
            raise RuntimeError("kubectl proxy names no port")
        yield f"http://127.0.0.1:{found[1]}"


@contextmanager
def scratch(parent: str | None = None) -> Iterator[Path]:
    """A folder that goes with the block; where the process is killed, with the next benchmark of this machine."""
    remove_folders(parent)
    remove_kernel_folders()
    folder = Path(tempfile.mkdtemp(prefix=FOLDERS, dir=parent))
    with (folder / _LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_folders(parent: str | None = None) -> None:
    """Removes the folders of benchmarks that do not run any more."""
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{FOLDERS}*"):
        # One that has no such file yet is being made.
        with contextlib.suppress(OSError), (folder / _LOCK).open() as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def remove_kernel_folders(parent: str = KERNEL_FOLDERS_PARENT) -> None:
    """Removes the folders of kernels that do not run any more: an agent that is killed leaves its kernel's."""
    found = [one for one in Path(parent).glob(KERNEL_FOLDERS) if (one / "connection.json").exists()]
    # Ages are read first: one that was old then and has no process now was old without a process.
    found = [one for one in found if _age(one) > YOUNG_SECONDS]
    lines = list(_command_lines()) if found else []
    for folder in found:
        if not any(os.fsencode(folder) in line for line in lines):
            shutil.rmtree(folder, ignore_errors=True)


def _age(folder: Path) -> float:
    """Seconds since the last change in it; 0 where it is gone or not ours."""
    with contextlib.suppress(OSError):
        told = folder.lstat()
        if stat.S_ISDIR(told.st_mode) and told.st_uid == os.geteuid():
            return time.time() - told.st_mtime
    return 0.0


def _command_lines() -> Iterator[bytes]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                yield (entry / "cmdline").read_bytes()


def make_namespace(name: str) -> None:
    """An empty namespace that `remove_namespaces` knows; one of that name is removed first."""
    kubectl.run("delete", "namespace", name, "--ignore-not-found", "--timeout=120s", seconds=150)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": LABELS}}
    kubectl.must("create", "-f", "-", stdin=json.dumps(body))


def remove_namespaces() -> None:
    """Removes the namespaces that benchmarks made beside their release's, without waiting for their end."""
    selector = ",".join(f"{name}={value}" for name, value in LABELS.items())
    kubectl.run("delete", "namespace", "-l", selector, "--wait=false")
    # By its name, too: benchmarks of before the label made it.
    kubectl.run("delete", "namespace", FLOORS, "--ignore-not-found", "--wait=false")


def remove_release() -> None:
    """Removes the benchmarks' release with its namespaces, and the namespaces beside it."""
    if kubectl.run("get", "namespace", NAMESPACE, engines_of(NAMESPACE), "--ignore-not-found", "-o", "name").out:
        uninstall(NAMESPACE)
    remove_namespaces()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.clean", description=(__doc__ or "").splitlines()[0])
    parser.parse_args(arguments)
    remove_folders()
    remove_kernel_folders()
    if tools.is_up():
        remove_release()


if __name__ == "__main__":
    main()
