"""Fuzzes the agent protocol: an agent that answers gateway and operator with mutated statuses, results, events, logs.

And its side towards the operator: mutated reports and uploads with the right key. Must not judge.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import Any

from tools.fuzz import corpus, mutate
from tools.fuzz.findings import Findings
from tools.loopback.hostile_agent import Asked, Behaviour
from tools.loopback.installation import Engine
from tools.loopback.sockets import request

TASK: dict[str, Any] = {
    "taskId": "t", "status": "Succeed", "executionCount": 1, "acceptedAt": 1.0, "startedAt": 1.0, "endedAt": 2.0,
    "progress": 1.0, "progressMessage": "",
}  # fmt: skip
TABLE: dict[str, Any] = {
    "type": "table", "columns": [{"name": "a", "type": "int64"}, {"name": "b", "type": "string"}],
    "rows": [[1, "x"], [None, "y"]], "totalRows": 2, "truncated": False,
}  # fmt: skip
OUTPUTS: list[Any] = [
    {"type": "text", "name": "stdout", "text": "a"}, TABLE, {"type": "html", "html": "<b>"},
    {"type": "error", "name": "ValueError", "value": "x", "traceback": ["a"]},
    {"type": "table", "columns": TABLE["columns"], "resultId": "0" * 32, "totalRows": 10**6, "bytes": 1000},
]  # fmt: skip
EVENTS: list[Any] = [
    {"event": "status", "id": "1.0", **TASK, "status": "Running"},
    {"event": "output", "id": "1.1", "index": 0, "output": OUTPUTS[0]},
    {"event": "progress", "id": "1.2", "progress": 0.5, "progressMessage": "half"},
    {"event": "end", "id": "2.0", **TASK},
]  # fmt: skip
_SIZES = (b"0", b"5", b"-1", b"99999999999999999999", b"1e3", b"0x5", b"", b"9007199254740993", b"\xff")


_STATUSES = (
    b"200 OK", b"202 Accepted", b"204 No Content", b"301 Moved", b"400 Bad", b"401 No", b"404 No", b"409 No",
    b"410 Gone", b"429 No", b"500 No", b"503 No", b"999 X", b"100 Continue",
)  # fmt: skip


def replies(engine: Engine, rng: random.Random, findings: Findings, counts: Counter[str]) -> Behaviour:
    """How it answers."""

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        counts[asked.path.split("/")[2] if asked.path.startswith("/v1/") else "other"] += 1
        data = answer_to(asked, engine, rng)
        findings.sent(f"answer to {asked.path}", data)
        writer.write(data)
        await writer.drain()
        if rng.random() < 0.1:
            await asyncio.sleep(rng.choice((0.1, 1.0)))
        writer.close()

    return reply


def answer_to(asked: Asked, engine: Engine, rng: random.Random) -> bytes:
    """A valid answer's likeness: JSON, lines or bytes, in a head that is mutated now and then."""
    path, headers = asked.path, [b"Content-Type: application/json"]
    if path == "/v1/status":
        body = _json(rng, corpus.full_report(engine))
    elif path.endswith("/events"):
        lines = rng.sample(EVENTS, rng.randrange(1, len(EVENTS) + 1)) * rng.choice((1, 1, 3, 50))
        body = b"\n".join(_json(rng, line) for line in lines) + rng.choice((b"\n", b"", b"\n\n\n"))
        headers = [b"Content-Type: application/x-ndjson"]
    elif path.endswith("/lines"):
        body = _json(rng, {"logs": ["a", "b"], "endLine": 2, "rows": 2, "fromLine": 1, "logPath": "/x"})
    elif path.startswith(("/v1/logs/", "/v1/results/")):
        body = rng.choice((b"", b"a\n", b"2\na\n", b"\xff\xfe\n" * 100, rng.randbytes(3000), b"9" * 5000))
        headers = [
            b"X-Log-Size: " + rng.choice((b"%d" % len(body), *_SIZES)),
            b"X-Log-File: " + rng.choice((b"1", b"\xff", b"")),
            b"X-Log-Offset: " + rng.choice((b"0", *_SIZES)),
        ]  # fmt: skip
    elif "/outputs/" in path:
        which = rng.choice(OUTPUTS)
        body = _json(rng, {"taskId": "t", "index": 0, "outputs": 1, "output": which})
    elif path.endswith(("/execute", "/result")):
        body = _json(rng, TASK | {"outputs": rng.sample(OUTPUTS, rng.randrange(len(OUTPUTS) + 1))})
    elif path == "/v1/tasks":
        body = _json(rng, {"tasks": [TASK] * rng.choice((0, 1, 3, 500))})
    else:
        body = _json(rng, TASK)
    return _framed(rng, headers, body)


def _json(rng: random.Random, content: Any) -> bytes:
    return json.dumps(content).encode() if rng.random() < 0.25 else mutate.json_bytes(rng, content)


def _framed(rng: random.Random, headers: list[bytes], body: bytes) -> bytes:
    status = rng.choice(_STATUSES) if rng.random() < 0.5 else b"200 OK"
    if rng.random() < 0.3:
        half = len(body) // 2
        chunks = [b"%x\r\n" % len(piece) + piece + b"\r\n" for piece in (body[:half], body[half:]) if piece]
        framed = b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"
    else:
        framed = b"Content-Length: %d\r\n\r\n" % len(body) + body
    data = b"\r\n".join([b"HTTP/1.1 " + status, *headers, b""]) + framed
    return mutate.request(rng, data) if rng.random() < 0.25 else data


def reports(engine: Engine, rng: random.Random) -> bytes:
    """A report's body with mutations, in a request that is right."""
    raw = mutate.json_bytes(rng, corpus.full_report(engine, rng.choice(("Idle", "Busy", "Starting", "Failed"))))
    headers = {"Authorization": f"Bearer {engine.key}", "Content-Type": "application/json"}
    return request("POST", "/v1/report", headers=headers, body=raw)
