"""What must hold of answers and processes while they are fuzzed. Must not send what is under test.

No 5xx but the documented ones, and those as the gateway's Message; no key in any answer, and nothing of engines in an
answer to somebody without a login; no traceback in a log; no process dies; memory stays under its limit; health is
answered within a second.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from tools.fuzz.findings import Findings
from tools.loopback.installation import Engine, Installation, Part
from tools.loopback.sockets import Answer, Target, send
from tools.loopback.watch import HEALTH, tracebacks, waited
from tools.testkit.gateway.harness import KEY, TOKEN

MIB = 1 << 20
# The chart's limits of gateway and operator.
MEMORY_MAX = 512 * MIB
HEALTH_MAX = 1.0
# Of the agent's log: a request that its code failed on (agent/http/server.py).
AGENT_ERROR = re.compile(r"ERROR.* (?:GET|POST|PUT|[A-Z]+) \S+: \w+(?:Error|Exception)[^\n]*")
# Who may answer what over 500: the gateway as its OpenAPI document says, as a Message; the operator while it does not
# lead, or its archive takes nothing; an agent nothing but "not implemented" of HTTP itself.
ALLOWED = {"gateway": {502, 503, 504}, "operator": {503, 507}, "health": {503}, "agent": {501, 503}}


# What is served there names engines' owners, and tickets as labels and exemplars: "of whom" is what it is asked for. It
# has a port of its own, which the network policy opens to networkPolicy.metricsFrom alone (threat-model.md, B7).
METRICS = "/metrics"


def _names(engine: Engine, route: str) -> tuple[str, ...]:
    """What an answer of that route to somebody without a login may not have of an engine."""
    never = (engine.name, engine.pod_uid, engine.address)
    return never if route.endswith(METRICS) else (*never, engine.uid, engine.user)


class ProcessEndedError(Exception):
    """A process of the installation is gone: nothing more can be fuzzed."""


@dataclass
class Oracle:
    """Judges one installation."""

    made: Installation
    findings: Findings
    engines: list[Engine] = field(default_factory=list)
    # The highest memory of each process, bytes; the longest wait for health, seconds.
    peaks: dict[str, int] = field(default_factory=dict)
    stalls: dict[str, float] = field(default_factory=dict)
    _read: dict[str, int] = field(default_factory=dict)
    _lag: float = 0.0

    def answer(self, side: str, route: str, sent: bytes, got: Answer, *, login: bool) -> None:
        """Judge what came back. `login`: whether what was sent has one that counts."""
        for status, body in answers(got.raw):
            if status >= 500 and status not in ALLOWED[side]:
                self.findings.add(route, f"HTTP {status}", got.raw[:2000].decode("latin-1"), sent)
            elif status >= 500 and side == "gateway" and b"HEAD " not in sent and not is_message(body):
                self.findings.add(route, f"HTTP {status} without a Message", got.raw[:2000].decode("latin-1"), sent)
        secrets = [TOKEN, KEY.decode(), *(engine.key for engine in self.engines)]
        for word in self._leaked(secrets, sent, got.raw):
            self.findings.add(route, f"an answer has the secret {word[:4]}…", got.raw[:2000].decode("latin-1"), sent)
        if not login:
            names = [text for e in self.engines for text in _names(e, route)]
            for word in self._leaked(names, sent, got.raw):
                self.findings.add(route, f"a stranger's answer has {word}", got.raw[:2000].decode("latin-1"), sent)

    @staticmethod
    def _leaked(words: Iterable[str], sent: bytes, raw: bytes) -> list[str]:
        """Those of `words` that came back and were not sent."""
        return [word for word in words if word.encode() in raw and word.encode() not in sent]

    async def watch(self) -> None:
        """Look at processes, logs and health until cancelled. Raises ProcessEndedError."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._processes())
            group.create_task(self._own_lag())
            group.create_task(self._health(self.made.gateway, self.made.gateway.port))
            group.create_task(self._health(self.made.operator, self.made.health_port))

    async def _processes(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(1.0)

    def look(self) -> None:
        """One look at processes and logs."""
        for part in self.made.parts.values():
            if not part.alive():
                log = part.log.read_text(errors="replace")
                self.findings.add(part.name, f"the process ended with {part.process.returncode}", log[-5000:])
                raise ProcessEndedError(f"{part.name} has ended: {log[-500:]}")
            peak = part.memory("VmHWM")
            self.peaks[part.name] = max(peak, self.peaks.get(part.name, 0))
            if peak > MEMORY_MAX:
                self.findings.add(part.name, "memory over its limit", f"{peak / MIB:.0f} MiB")
                part.forget_peak()
            found, self._read[part.name] = tracebacks(part.log, self._read.get(part.name, 0))
            for one in found:
                self.findings.add(part.name, traceback_kind(one), one)
        for folder in self.made.folder.glob("pod-*"):
            self._agent(folder.name, folder / "container.err", folder / "logs" / "stdout")

    def _agent(self, name: str, *logs: os.PathLike[str]) -> None:
        for path in logs:
            key = os.fspath(path)
            with suppress(OSError), open(path, "rb") as log:
                log.seek(self._read.get(key, 0))
                text = log.read(4 * MIB)
                self._read[key] = self._read.get(key, 0) + len(text)
                words = text.decode(errors="replace")
                # ipykernel has tracebacks of its own where it ends while a message is under way.
                if key.endswith("container.err") and "Traceback" in words and "linkis_ecm" in words:
                    self.findings.add("agent", traceback_kind(words), words[-5000:])
                for match in AGENT_ERROR.findall(words):
                    self.findings.add("agent", match.partition("ERROR")[2][:200], match)

    async def _own_lag(self) -> None:
        """How late this process itself is: what it measured meanwhile says nothing of others."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.05)
            self._lag = max(self._lag, time.perf_counter() - began - 0.05)

    async def _health(self, part: Part, port: int) -> None:
        """Times count without those in which this process was late, or the other one had no processor."""
        name, target = part.name, Target("127.0.0.1", port)
        while True:
            self._lag = 0.0
            before, began = waited([part.pid]), time.perf_counter()
            status = 0
            with suppress(OSError, TimeoutError):
                status = (await send(target, HEALTH, seconds=20)).status
            took = time.perf_counter() - began - max(self._lag, waited([part.pid]) - before)
            self.stalls[name] = max(took, self.stalls.get(name, 0.0))
            if (status != 200 and took > 0) or took > HEALTH_MAX:
                load = " ".join(f"{one:.0f}" for one in os.getloadavg())
                words = f"/healthz answered {status} after {took:.2f} s (load {load})"
                self.findings.add(name, "/healthz late" if status == 200 else f"/healthz {status}", words)
            await asyncio.sleep(0.3)


def answers(raw: bytes) -> list[tuple[int, bytes]]:
    """Status and what follows the head, of the first answers in what came: several requests may have been sent."""
    raw = raw[: 256 << 10]
    found = re.finditer(rb"(?:^|\r\n\r\n|\})HTTP/1\.[01] (\d{3}) ", raw)
    return [(int(match[1]), raw[match.end() :].partition(b"\r\n\r\n")[2]) for match in found]


def is_message(body: bytes) -> bool:
    """Whether the gateway's Message begins so: what follows may be cut, or another answer."""
    return body.startswith(b'{"method":') and b'"status":' in body and b'"message":' in body


def traceback_kind(text: str) -> str:
    """A traceback in a line: where it was raised, and what."""
    lines = [line for line in text.splitlines() if line.strip()]
    frames = re.findall(r'File "[^"]*/((?:linkis_ecm|aiohttp|asyncio|h11)[^"]*)", line (\d+), in (\S+)', text)
    where = f"{frames[-1][0]} in {frames[-1][2]}" if frames else "?"
    return f"traceback at {where}: {lines[-1][:200] if lines else ''}"
