"""A client of the gateway for tests, demo and benchmark, on http.client: one connection, bounded waits.

Must not hide an error: what the gateway answered is returned as it came, with its HTTP status.
"""

from __future__ import annotations

import http.client
import json
import select
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

BASE = "/api/rest_j/v1/engineconnManager"


@dataclass(frozen=True)
class Reply:
    """An answer: the HTTP status, its headers in lower case, and Linkis's Message where it was JSON."""

    http: int
    headers: dict[str, str]
    body: dict[str, Any]
    raw: bytes = b""

    @property
    def ok(self) -> bool:
        return self.http == 200 and self.body.get("status") == 0

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def data(self) -> dict[str, Any]:
        """The Message's data; raises AssertionError with the gateway's words where the call failed."""
        assert self.ok, f"HTTP {self.http}: {self.message or self.raw[:500]!r}"
        data: dict[str, Any] = self.body["data"]
        return data


def _is_dropped(connection: http.client.HTTPConnection) -> bool:
    """Whether the gateway has closed a connection that nobody used: there is something to read, its end."""
    return connection.sock is not None and bool(select.select([connection.sock], [], [], 0)[0])


@dataclass
class Gateway:
    """Calls as one user. `with` closes the connection."""

    host: str
    port: int
    token: str
    user: str = "hadoop"
    seconds: float = 90
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def as_user(self, user: str, token: str | None = None) -> Gateway:
        """The same gateway, called by somebody else."""
        return Gateway(self.host, self.port, self.token if token is None else token, user, self.seconds)

    def request(self, method: str, path: str, body: Any = None) -> Reply:
        """One call; bytes are sent as they are, everything else as JSON."""
        headers = {"Token-Code": self.token, "Token-User": self.user}
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if self._connection is None or _is_dropped(self._connection):
            self.close()
            self._connection = http.client.HTTPConnection(self.host, self.port, timeout=self.seconds)
        try:
            self._connection.request(method, path, data, headers)
            answer = self._connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        found = {name.lower(): value for name, value in answer.getheaders()}
        loaded = json.loads(raw) if found.get("content-type", "").startswith("application/json") else {}
        return Reply(answer.status, found, loaded, raw)

    def create(self, **spec: Any) -> Reply:
        """createEngineConnection; waits until the engine is ready unless told otherwise."""
        body = {"engineType": "python", "timeoutSeconds": 80, "ticketId": str(uuid.uuid4())} | spec
        return self.request("POST", f"{BASE}/createEngineConnection", body)

    def execute(self, engine: str, code: str, **more: Any) -> Reply:
        body = {"engineId": engine, "code": code, "runType": "python"} | more
        return self.request("POST", f"{BASE}/executeCode", body)

    def status(self, engine: str) -> Reply:
        return self.request("GET", f"{BASE}/getEngineStatus?{urlencode({'engineId': engine})}")

    def terminate(self, engine: str) -> Reply:
        return self.request("POST", f"{BASE}/terminateEngine", {"engineId": engine})

    def engines(self, **query: Any) -> Reply:
        return self.request("GET", f"{BASE}/listEngines?{urlencode(query)}")

    def logs(self, engine: str, **query: Any) -> Reply:
        return self.request("GET", f"{BASE}/getEngineLogs?{urlencode({'engineId': engine} | query)}")

    def download(self, **query: Any) -> Reply:
        """downloadEngineLog, read whole: for small logs."""
        return self.request("GET", f"{BASE}/downloadEngineLog?{urlencode(query)}")

    def stream(self, **query: Any) -> Iterator[bytes]:
        """downloadEngineLog in pieces, over a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.seconds)
        try:
            headers = {"Token-Code": self.token, "Token-User": self.user}
            connection.request("GET", f"{BASE}/downloadEngineLog?{urlencode(query)}", headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            while piece := answer.read(1 << 20):
                yield piece
        finally:
            connection.close()


def texts(result: dict[str, Any], kind: str = "text") -> str:
    """The joined text of a result's outputs of that type."""
    return "".join(output.get("text", "") for output in result["outputs"] if output["type"] == kind)
