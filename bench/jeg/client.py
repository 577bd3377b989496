"""A client of Jupyter Enterprise Gateway for its benchmark: kernels by REST, code by a websocket that stays open.

The protocol is Jupyter's own, so any Jupyter server answers it. Must not measure anything but what it is asked to.
"""

from __future__ import annotations

import json
import socket
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import aiohttp

# What a kernel may send about one execution before it is called broken: 1+1 has five messages.
MESSAGES = 100


@dataclass
class Kernels:
    """A gateway's kernels, as one user, over connections that are kept open from `open` to `close`."""

    host: str
    port: int
    token: str
    # KERNEL_…: what the gateway's launcher puts into a kernel's pod.
    settings: dict[str, str]
    # Acknowledge each of its messages at once. The gateway leaves Nagle's algorithm on, so it holds a message back
    # until the one before is acknowledged, and Linux delays that by 40 ms; clients do not usually ask for this.
    quick: bool = False
    seconds: float = 90
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            f"http://{self.host}:{self.port}",
            headers={"Authorization": f"token {self.token}"},
            timeout=aiohttp.ClientTimeout(total=self.seconds),
        )

    async def close(self) -> None:
        """Also where nothing is open."""
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "open it first"
        return self._session

    async def start(self, kernel: str) -> str:
        """The new kernel's id; the gateway answers when the kernel has said where it listens."""
        body = {"name": kernel, "env": self.settings}
        async with self.session.post("/api/kernels", json=body) as answer:
            text = await answer.text()
            if answer.status != 201:
                raise RuntimeError(f"POST /api/kernels: HTTP {answer.status}: {text[:500]}")
            found: str = json.loads(text)["id"]
            return found

    async def end(self, kernel: str) -> None:
        async with self.session.delete(f"/api/kernels/{kernel}") as answer:
            if answer.status not in (204, 404):
                raise RuntimeError(f"DELETE /api/kernels/{kernel}: HTTP {answer.status}: {(await answer.text())[:500]}")

    async def connect(self, kernel: str) -> Channels:
        """The kernel's channels over one websocket."""
        # No timeout over its whole life: each wait on it has one.
        timeout = aiohttp.ClientWSTimeout(ws_receive=self.seconds, ws_close=5)
        path = f"/api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}"
        return Channels(await self.session.ws_connect(path, timeout=timeout), quick=self.quick)


@dataclass(frozen=True)
class Answer:
    """What an execution gave; `result_at` is when its value came, `done_at` when reply and idle had come too."""

    text: str
    result_at: float
    done_at: float


class Channels:
    """An open websocket to one kernel: one execution at a time."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse, *, quick: bool) -> None:
        self._websocket = websocket
        self._who = uuid.uuid4().hex
        self._quick: socket.socket | None = websocket.get_extra_info("socket") if quick else None

    async def close(self) -> None:
        await self._websocket.close()

    async def execute(self, code: str) -> Answer:
        """Runs an expression; done when the kernel has replied and is idle again, as jupyter_client waits for both."""
        asked = uuid.uuid4().hex
        header = {"msg_id": asked, "msg_type": "execute_request", "version": "5.3", "username": "",
                  "session": self._who}  # fmt: skip
        # jupyter_client's own defaults, but that nobody is there to be asked.
        content: dict[str, Any] = {"code": code, "silent": False, "store_history": True, "user_expressions": {},
                                   "allow_stdin": False, "stop_on_error": True}  # fmt: skip
        await self._websocket.send_str(json.dumps({
            "header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell",
        }))  # fmt: skip
        text, result_at = "", 0.0
        missing = {"execute_reply", "idle"}
        for _ in range(MESSAGES):
            received = await self._websocket.receive_str()
            if self._quick is not None:
                # The kernel (of the operating system) forgets it, so it is asked for each time.
                self._quick.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            message = json.loads(received)
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind = message["msg_type"]
            if kind == "execute_result":
                text, result_at = message["content"]["data"]["text/plain"], time.perf_counter()
            elif kind == "error":
                raise RuntimeError(f"the kernel: {message['content']['ename']}: {message['content']['evalue']}")
            elif kind == "status":
                missing.discard(message["content"]["execution_state"])
            missing.discard(kind)
            if not missing:
                return Answer(text, result_at, time.perf_counter())
        raise RuntimeError(f"no end of {code!r} after {MESSAGES} messages")
