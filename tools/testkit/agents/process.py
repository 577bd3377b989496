"""Runs the agent as a pod does, in a process of its own without capabilities, and talks to it over HTTP."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tools.testkit.agents.keys import NONCE, enrolment_of
from tools.testkit.servers.orphans import ends_with_parent

T = TypeVar("T")
TOKEN = "token-of-this-engine"
# Stands for the agent's own token.
OWN = "<own>"
# The longest any single wait of these tests takes before it fails: what takes 1 s here takes 10 s on a busy machine.
PATIENCE = 60.0
_PR_CAPBSET_DROP = 24


def as_in_a_pod() -> Callable[[], None]:
    """What the agent's process runs before its program: no capability, and its end with this process's.

    Another thread than the main one may end long before this process, and Linux would end the agent with it: who starts
    one there ends it himself.
    """
    ending = ends_with_parent() if threading.current_thread() is threading.main_thread() else None

    def prepare() -> None:
        drop_capabilities()
        if ending is not None:
            ending()

    return prepare


def drop_capabilities() -> None:
    """What `capabilities: drop: [ALL]` does to a container; without effect for who has none."""
    libc = ctypes.CDLL(None)
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def _as_in_an_image() -> dict[str, str]:
    """This process's variables without the virtual environment that whoever runs the tests has activated: an image has
    none, and IPython looks at it."""
    return {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}


def patched(module: str, change: str) -> tuple[str, ...]:
    """What Python is started with for an agent with another value in one of its modules, as "NAME = 1.0"."""
    package, _, name = module.rpartition(".")
    run = "runpy.run_module('linkis_ecm.agent', run_name='__main__')"
    return ("-c", f"import runpy; from {package} import {name}; {name}.{change}; {run}")


class AgentProcess:
    """One agent on a free port of the loopback."""

    # What Python is started with.
    arguments: tuple[str, ...] = ("-m", "linkis_ecm.agent")

    def __init__(self, folder: Path, *, wait: bool = True, **environment: str) -> None:
        self.log_dir = folder / "logs"
        # Where its code starts.
        self.home = folder / "home"
        self.log_dir.mkdir()
        settings = {
            "ECM_NAMESPACE": "lab", "ECM_NAME": "first", "ECM_UID": "uid-1", "ECM_ATTEMPT": "0", "ECM_TICKET_ID": "t-1",
            "ECM_AGENT_KEY": TOKEN, "ECM_ENROLMENT": NONCE, "ECM_LOG_DIR": str(self.log_dir), "ECM_AGENT_PORT": "0",
            "ECM_AGENT_HOST": "127.0.0.1", "HOME": str(self.home),
        }  # fmt: skip
        uid = environment.get("ECM_UID", settings["ECM_UID"])
        settings["ECM_POD_UID"] = enrolment_of(uid).pod_uid
        with open(folder / "container.out", "wb") as out, open(folder / "container.err", "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                env={**_as_in_an_image(), **settings, **environment},
                stdout=out,
                stderr=err,
                preexec_fn=as_in_a_pod(),  # noqa: PLW1509 - it only makes system calls
                cwd=folder,
            )
        self.token = {**settings, **environment}["ECM_AGENT_KEY"]
        self.container_out = folder / "container.out"
        self.container_err = folder / "container.err"
        self.port = 0
        if wait:
            try:
                self.wait_until_listening()
                self.wait_for_state("Idle")
            except BaseException:
                self.close()  # nobody else knows of it
                raise

    def wait_until_listening(self) -> None:
        def port() -> int:
            # To the line's end: a reader may see the half of what is being written.
            found = re.search(r"listens on port (\d+)\n", self.log("stdout"))
            return int(found[1]) if found else 0

        self.port = until(port)

    def log(self, name: str) -> str:
        path = self.log_dir / name
        return path.read_text(errors="replace") if path.exists() else ""

    def write(self, name: str, data: bytes) -> None:
        """Append to a log, as the engine's code may."""
        with (self.log_dir / name).open("ab") as file:
            file.write(data)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def call(self, method: str, path: str, body: Any = None, token: str | None = OWN) -> tuple[int, bytes]:
        """One request on a connection of its own, with the agent's own token or this: the status and the raw body."""
        token = self.token if token is OWN else token
        connection = self.connection()
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        raw = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        try:
            connection.request(method, path, raw, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stream(self, path: str) -> Iterator[bytes]:
        """The lines of an answer that comes in pieces, as they come."""
        connection = self.connection()
        try:
            connection.request("GET", path, None, {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            while line := answer.readline():
                yield line
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        status, raw = self.call(method, path, body)
        return status, json.loads(raw)

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = self.json("GET", "/v1/status")[1]
        return told

    def wait_for_state(self, state: str) -> None:
        until(lambda: self.status()["state"] == state)

    def execute(self, code: str, **more: Any) -> dict[str, Any]:
        """Run `code`; its result. Fails where it was refused."""
        result: dict[str, Any]
        status, result = self.json("POST", "/v1/execute", {"taskId": uuid.uuid4().hex, "code": code, **more})
        assert status == 200, result
        return result

    def outputs(self, code: str) -> list[dict[str, Any]]:
        result = self.execute(code)
        assert result["status"] == "Succeed", result
        outputs: list[dict[str, Any]] = result["outputs"]
        return outputs

    def start_execute(self, code: str, **more: Any) -> Pending:
        return Pending(lambda: self.json("POST", "/v1/execute", {"code": code, **more}))

    def kernel_pid(self) -> int:
        """The kernel's process, once it runs its own program: until then its spawn holds the agent up."""

        def kernel() -> int:
            return next((pid for pid in children(self.process.pid) if "agent.kernel.main" in command_line(pid)), 0)

        return until(kernel)

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """End the process if a test has not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Pending:
    """A call in a thread, and its answer."""

    def __init__(self, call: Callable[[], tuple[int, Any]]) -> None:
        self._answer: tuple[int, Any] | Exception | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answer = self._call()
        except Exception as error:  # handed to the test's own thread
            self._answer = error

    def answer(self) -> tuple[int, Any]:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "no answer"
        if isinstance(self._answer, Exception):
            raise self._answer
        assert self._answer is not None
        return self._answer


def until(ready: Callable[[], T]) -> T:
    """What `ready` returns once it is true. Fails after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while not (found := ready()):
        assert time.monotonic() < deadline, f"did not come true within {PATIENCE:g} s"
        time.sleep(0.005)
    return found


def children(pid: int) -> list[int]:
    """The child processes of `pid`."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_line(pid: int) -> str:
    """What `pid` was started with, "" where there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def process_state(pid: int) -> str:
    """The letter of /proc's stat (Z: zombie), "" where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
