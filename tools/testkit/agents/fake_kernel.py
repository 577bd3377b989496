"""A Jupyter kernel with faults that real kernels do not produce on demand. Run as a script by a kernelspec.

`fake_kernel.py CONNECTION_FILE [HABIT...]` speaks ZeroMQ by hand, so that it can break any rule of the protocol. The
code of an execution chooses what it does: `print TEXT`, `sleep SECONDS`, `input`; `asked` makes its execution_count the
number of kernel_info_requests that came. Anything else does nothing. Must not
import anything of linkis_ecm.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zmq

HABITS = {
    "no-busy": "status busy is never sent",
    "no-idle": "status idle is never sent",
    "no-status": "no status is ever sent",
    "late-output": "outputs come 20 ms after reply and idle",
    "no-input-message": "execute_input is never sent",
    "null-parent": "the messages on iopub have null as their parent",
    "null-parent-status": "the status messages have null as their parent",
    "empty-parent": "the messages on iopub have {} as their parent",
    "unsigned": "a message without a signature goes before each output",
    "forged": "a message with a wrong signature goes before each output",
    "repeated": "each output is sent twice, bytes for bytes",
    "no-delimiter": "frames without <IDS|MSG> go before each output",
    "no-object": "messages whose parts are no objects go before each output",
    "odd-contents": "contents of another shape go before each output",
    "silent": "nothing is ever sent on iopub",
    "drops-first": "the first request gets no answer",
    "no-silent-reply": "a silent execution gets no answer",
    "forks": "the first process exits with 0 and its child serves",
    "exits": "the process exits with 0 at its first kernel_info_request",
    "exits-later": "the process exits with 0 after its first execution that is not silent",
    "keeps-sigint": "SIGINT does what it did in the process that started this one",
    "slow": "kernel_info is answered after 2 s",
}
KINDS = {"shell": zmq.ROUTER, "control": zmq.ROUTER, "stdin": zmq.ROUTER, "iopub": zmq.PUB}
DELIMITER = b"<IDS|MSG>"


class InterruptedByClientError(Exception):
    """SIGINT came."""


def _interrupt(_number: int, _frame: object) -> None:
    raise InterruptedByClientError


class FakeKernel:
    """One kernel; `serve` runs until a shutdown_request."""

    def __init__(self, connection: dict[str, Any], habits: frozenset[str]) -> None:
        self._habits = habits
        self._key = connection["key"].encode()
        self._session = uuid.uuid4().hex
        self._context = zmq.Context()
        self._sockets = {
            name: self._bind(kind, f"tcp://{connection['ip']}:{connection[f'{name}_port']}")
            for name, kind in (
                ("shell", zmq.ROUTER),
                ("control", zmq.ROUTER),
                ("stdin", zmq.ROUTER),
                ("iopub", zmq.PUB),
            )
        }
        self._count = 0
        self._dropped = False
        self._asked = 0
        self._late = ""

    def _bind(self, kind: int, url: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.linger = 500
        socket.bind(url)
        return socket

    def serve(self) -> None:
        poller = zmq.Poller()
        for name in ("shell", "control"):
            poller.register(self._sockets[name], zmq.POLLIN)
        while True:
            try:
                for socket, _ in poller.poll():
                    if not self._handle(socket):
                        self._context.destroy(linger=500)
                        return
            except InterruptedByClientError:
                continue

    def _handle(self, socket: Any) -> bool:
        frames = socket.recv_multipart()
        cut = frames.index(DELIMITER)
        who, parts = frames[:cut], frames[cut + 1 :]
        if self._signature(parts[1:5]) != parts[0]:
            return True
        request = json.loads(parts[1])
        kind = request["msg_type"]
        if "drops-first" in self._habits and not self._dropped:
            self._dropped = True
            return True
        if kind == "shutdown_request":
            self._send(socket, who, "shutdown_reply", {"status": "ok", "restart": False}, request)
            return False
        if kind == "kernel_info_request":
            return self._tell_info(socket, who, request)
        if kind == "execute_request":
            return self._execute(socket, who, request, json.loads(parts[4]))
        return True

    def _tell_info(self, socket: Any, who: list[bytes], request: dict[str, Any]) -> bool:
        self._asked += 1
        if "exits" in self._habits:
            return False
        if "slow" in self._habits:
            time.sleep(2)
        self._status("busy", request)
        self._send(socket, who, "kernel_info_reply", {"status": "ok", "protocol_version": "5.3"}, request)
        self._status("idle", request)
        return True

    def _execute(self, socket: Any, who: list[bytes], request: dict[str, Any], content: dict[str, Any]) -> bool:
        if content["silent"] and "no-silent-reply" in self._habits:
            return True
        self._status("busy", request)
        self._count += not content["silent"]
        if "no-input-message" not in self._habits and not content["silent"]:
            self._publish("execute_input", {"code": content["code"], "execution_count": self._count}, request)
        reply: dict[str, Any] = {"status": "ok", "payload": [], "user_expressions": {}}
        if "odd-contents" in self._habits:
            reply["payload"] = {"source": 3}
        try:
            with self._interruptible():
                self._run(str(content["code"]), who, request)
            reply["execution_count"] = self._count
        except InterruptedByClientError:
            reply = {"status": "error", "ename": "Interrupted", "evalue": "", "traceback": []}
            self._publish("error", {"ename": "Interrupted", "evalue": "", "traceback": []}, request)
        self._send(socket, who, "execute_reply", reply, request)
        self._status("idle", request)
        if self._late:
            time.sleep(0.02)
            self._publish("stream", {"name": "stdout", "text": f"{self._late}\n"}, request)
            self._late = ""
        return "exits-later" not in self._habits or bool(content["silent"])

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """SIGINT counts within the block; what came before it does at its beginning."""
        if "keeps-sigint" in self._habits:
            yield
            return
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def _run(self, code: str, who: list[bytes], request: dict[str, Any]) -> None:
        word, _, rest = code.partition(" ")
        if word == "print":
            if "late-output" in self._habits:
                self._late = rest
            else:
                self._publish("stream", {"name": "stdout", "text": f"{rest}\n"}, request)
        elif word == "sleep":
            control = self._sockets["control"]
            if control.poll(int(float(rest) * 1000)):  # SIGINT ends it, too
                frames = control.recv_multipart()
                if json.loads(frames[frames.index(DELIMITER) + 2])["msg_type"] == "interrupt_request":
                    raise InterruptedByClientError
        elif word == "asked":
            self._count = self._asked
        elif word == "input":
            # Whatever allow_stdin said.
            stdin = self._sockets["stdin"]
            self._send(stdin, who, "input_request", {"prompt": "name? ", "password": False}, request)
            frames = stdin.recv_multipart()
            answer = json.loads(frames[frames.index(DELIMITER) + 5])
            self._publish("stream", {"name": "stdout", "text": f"got {answer['value']!r}\n"}, request)

    def _status(self, state: str, request: dict[str, Any]) -> None:
        if not self._habits & {f"no-{state}", "no-status"}:
            self._publish("status", {"execution_state": state}, request)

    def _publish(self, kind: str, content: dict[str, Any], request: dict[str, Any]) -> None:
        habits, iopub = self._habits, self._sockets["iopub"]
        if "silent" in habits:
            return
        parent: Any = request
        if "null-parent" in habits or ("null-parent-status" in habits and kind == "status"):
            parent = None
        elif "empty-parent" in habits:
            parent = {}
        frames = self._frames(kind, content, parent)
        if kind == "stream":
            forged = self._frames(kind, {"name": "stdout", "text": "FORGED\n"}, parent)
            if "unsigned" in habits:
                iopub.send_multipart([b"x", DELIMITER, b"", *forged[1:]])
            if "forged" in habits:
                iopub.send_multipart([b"x", DELIMITER, b"0" * 64, *forged[1:]])
            if "no-delimiter" in habits:
                iopub.send_multipart([b"x", b"y"])
            if "odd-contents" in habits:
                for odd, kind_of_odd in (
                    ({"data": [1]}, "display_data"), ({"data": {}, "transient": 3}, "display_data"),
                    ({}, "display_data"), ({"traceback": 3}, "error"), ({"execution_state": []}, "status"),
                    ({"execution_state": {}}, "status"), ({"data": 3}, "update_display_data"),
                    ({"data": {"text/plain": {"a": 1}}}, "execute_result"),
                ):  # fmt: skip
                    iopub.send_multipart([b"x", DELIMITER, *self._frames(kind_of_odd, odd, parent)])
            if "no-object" in habits:
                for parts in (
                    [b"3"] * 4,
                    [b"{}"] * 4,
                    [b"[]", b"{}", b"{}", b"{}"],
                    [*forged[1:4], b"[1]"],
                    [b"\xff"] * 4,
                ):
                    iopub.send_multipart([b"x", DELIMITER, self._signature(parts), *parts])
                deep = b"[" * 100_000
                iopub.send_multipart([b"x", DELIMITER, self._signature([*forged[1:4], deep]), *forged[1:4], deep])
        iopub.send_multipart([b"x", DELIMITER, *frames])
        if "repeated" in habits and kind == "stream":
            iopub.send_multipart([b"x", DELIMITER, *frames])

    def _send(self, socket: Any, who: list[bytes], kind: str, content: dict[str, Any], parent: Any) -> None:
        socket.send_multipart([*who, DELIMITER, *self._frames(kind, content, parent)])

    def _frames(self, kind: str, content: dict[str, Any], parent: Any) -> list[bytes]:
        header = {
            "msg_id": uuid.uuid4().hex, "msg_type": kind, "session": self._session, "username": "fake",
            "version": "5.3", "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip
        parts = [json.dumps(part).encode() for part in (header, parent, {}, content)]
        return [self._signature(parts), *parts]

    def _signature(self, parts: list[bytes]) -> bytes:
        return hmac.new(self._key, b"".join(parts), hashlib.sha256).hexdigest().encode()


def main() -> None:
    path, *habits = sys.argv[1:]
    if unknown := set(habits) - set(HABITS):
        sys.exit(f"no such habit: {', '.join(sorted(unknown))}")
    with open(path, encoding="utf-8") as file:
        connection = json.load(file)
    if not connection["key"]:
        sys.exit("the connection has no key")
    if "forks" in habits and os.fork():
        os._exit(0)
    if "keeps-sigint" not in habits:
        signal.signal(signal.SIGINT, _interrupt)
        # But while code runs. ZeroMQ's threads are started with it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    FakeKernel(connection, frozenset(habits)).serve()


if __name__ == "__main__":
    main()
