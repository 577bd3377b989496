"""Starts the kernel process: connection file, environment, pipes, one posix_spawn.

Runs before anything else of the agent, so it may import nothing but what the interpreter has loaded anyway. Must not
wait for the kernel.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from linkis_ecm.agent.formats.names import DEFAULT_LOG_DIR, KERNEL_ENV_PREFIX, PRIVATE_PREFIX, RESULTS_FOLDER

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
# The kernel's raw output waits here while the agent is busy; 1 MiB is what an unprivileged process may ask for.
PIPE_BYTES = 1 << 20


class SpawnedKernel:
    """A kernel process that was started, and how to talk to it."""

    def __init__(self, *, pid: int, directory: str, key: str, stdout_fd: int, stderr_fd: int) -> None:
        self.pid = pid
        self.directory = directory
        self.key = key
        self.stdout_fd = stdout_fd
        self.stderr_fd = stderr_fd
        self.started = time.time()
        # Our ends of the two pipes to a kernel that waits for its engine (kernel.member): for requests, for answers.
        self.member_fds: tuple[int, int] | None = None

    def discard(self) -> None:
        """End it unused."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, 9)

    def url(self, channel: str) -> str:
        """The ZeroMQ address of one of CHANNELS."""
        return f"ipc://{self.directory}/k-{CHANNELS.index(channel) + 1}"


def process_started(
    wall: Callable[[], float] = time.time, boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
) -> float:
    """When this process was started, in Unix seconds (the kernel's clock ticks, so to 10 ms)."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as stat:
        ticks = int(stat.read().rpartition(")")[2].split()[19])
    # Whoever is put off the processor between the two clocks reads the second too late: never in all of three tries.
    booted = max(wall() - boot() for _ in range(3))
    return min(wall(), booted + ticks / os.sysconf("SC_CLK_TCK"))


def kernel_environment(environment: Mapping[str, str], directory: str) -> dict[str, str]:
    """What the kernel process sees: the container's environment without the agent's part of it."""
    kept = {name: value for name, value in environment.items() if not name.startswith(PRIVATE_PREFIX)}
    # The user's own, which the agent's process was kept from.
    start = len(KERNEL_ENV_PREFIX)
    kept |= {name[start:]: value for name, value in environment.items() if name.startswith(KERNEL_ENV_PREFIX)}
    # As Linkis gives them to its engines: where code puts logs such as gc, and what need not last.
    kept["LOG_DIRS"] = environment.get("ECM_LOG_DIR") or DEFAULT_LOG_DIR
    kept["TEMP_DIRS"] = kept.get("TMPDIR") or "/tmp"  # noqa: S108 - the container's own
    # Pictures come inline without importing matplotlib at start.
    kept["MPLBACKEND"] = kept.get("MPLBACKEND") or "module://matplotlib_inline.backend_inline"
    # Not in the home: what is there configures the user's own IPython, never the engine's.
    kept["IPYTHONDIR"] = f"{directory}/ipython"
    # Whom the kernel watches: it never outlives its agent (agent.host.parent_death, and ipykernel's own watch).
    kept["JPY_PARENT_PID"] = str(os.getpid())
    return kept


def is_member(environment: Mapping[str, str]) -> bool:
    """Whether this agent waits in a warm pool for its engine."""
    return environment.get("ECM_MEMBER") == "1"


def spawn_kernel(environment: Mapping[str, str], base: str = "/tmp") -> SpawnedKernel:  # noqa: S108 - made 0700
    """Start the kernel with unix sockets in a folder of its own that no other user can enter.

    Unix sockets and not TCP: measured 30 ms earlier ready, and no other process of the pod's network can dial them.
    """
    directory = f"{base}/ecm-{os.urandom(8).hex()}"
    os.mkdir(directory, 0o700)
    key = os.urandom(32).hex()
    ports = "".join(f'"{channel}_port": {number}, ' for number, channel in enumerate(CHANNELS, 1))
    connection = (
        f'{{{ports}"transport": "ipc", "ip": "{directory}/k", "key": "{key}", '
        '"signature_scheme": "hmac-sha256", "kernel_name": "python3"}'
    )
    path = f"{directory}/connection.json"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, connection.encode())
    os.close(descriptor)

    # -P: the working directory must not shadow the standard library while the kernel boots. The kernel adds it to
    # sys.path afterwards (kernel.packages), as users expect. -c and not -m: runpy costs 3 ms more.
    code = "from linkis_ecm.agent.kernel.main import main; main()"
    # The folder by the command line: no ECM_ variable reaches the kernel.
    results = f"{environment.get('ECM_LOG_DIR') or DEFAULT_LOG_DIR}/{RESULTS_FOLDER}"
    argv = [sys.executable, "-P", "-c", code, path, results]
    its: tuple[int, ...] = ()
    member_fds = None
    if is_member(environment):
        (requests, our_requests), (our_answers, answers) = os.pipe(), os.pipe()
        its, member_fds = (requests, answers), (our_requests, our_answers)
    for descriptor in its:
        os.set_inheritable(descriptor, True)
        argv.append(str(descriptor))
    pid, out, err = start_process(sys.executable, argv, kernel_environment(environment, directory))
    for descriptor in its:
        os.close(descriptor)
    spawned = SpawnedKernel(pid=pid, directory=directory, key=key, stdout_fd=out, stderr_fd=err)
    spawned.member_fds = member_fds
    return spawned


def start_process(program: str, argv: list[str], environment: dict[str, str]) -> tuple[int, int, int]:
    """One posix_spawn with pipes for what it prints: its pid, and our ends of stdout and stderr."""
    out_read, out_write = _pipe()
    err_read, err_write = _pipe()
    pid = os.posix_spawn(
        program,
        argv,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out_write, 1),
            (os.POSIX_SPAWN_DUP2, err_write, 2),
        ],
        # Its own process group, so that an interrupt or a kill reaches what the user's code started, too.
        setpgroup=0,
        # SIGINT, which a background job of a shell inherits as ignored: an interrupt would be lost. SIGPIPE, which
        # Python ignores, and SIGTERM.
        setsigdef=[2, 13, 15],
    )
    os.close(out_write)
    os.close(err_write)
    return pid, out_read, err_read


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    with suppress(OSError):  # over the user's pipe quota: the default of 64 KiB does
        fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.set_blocking(read, False)
    return read, write
