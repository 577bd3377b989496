"""Reads of the API server over one connection: what tests look at some times a second. Must not change anything there.

A process of kubectl costs 60 ms of CPU time for each look, of which a dozen waits at a time leave little to what they
wait for. Only with a client certificate in the kubeconfig, as the test node and kind have it: `usable`.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import yaml

# The kinds that waits look at, by the names that kubectl takes.
_CORE, _OURS = "/api/v1", "/apis/linkis.apache.org/v1alpha1"
KINDS = {"pod": (_CORE, "pods"), "pods": (_CORE, "pods"), "ec": (_OURS, "engineconns")}
SECONDS = 30.0
_LOCAL = threading.local()


@dataclass(frozen=True)
class _Access:
    host: str
    port: int
    context: ssl.SSLContext


@cache
def _access(kubeconfig: str) -> _Access | None:
    """From the text of a kubeconfig; None where its user has no certificate of his own in it."""
    loaded = yaml.safe_load(kubeconfig)
    chosen = next(one["context"] for one in loaded["contexts"] if one["name"] == loaded["current-context"])
    cluster = next(one["cluster"] for one in loaded["clusters"] if one["name"] == chosen["cluster"])
    user = next(one["user"] for one in loaded["users"] if one["name"] == chosen["user"])
    authority = cluster.get("certificate-authority-data")
    if not authority or "client-certificate-data" not in user or "client-key-data" not in user:
        return None
    context = ssl.create_default_context(cadata=base64.b64decode(authority).decode())
    with tempfile.NamedTemporaryFile() as file:  # readable by its owner alone
        file.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
        file.flush()
        context.load_cert_chain(file.name)
    server = urlsplit(cluster["server"])
    return _Access(str(server.hostname), server.port or 443, context)


def usable(kubeconfig: Path) -> bool:
    """Whether `read` can log in by this kubeconfig."""
    return _access(kubeconfig.read_text()) is not None


def path_of(kind: str, namespace: str, name: str = "", *, labels: str = "") -> str:
    """The path of one object, or of all of a kind in a namespace, by labels where that is asked."""
    root, plural = KINDS[kind]
    path = f"{root}/namespaces/{quote(namespace)}/{plural}"
    if name:
        return f"{path}/{quote(name)}"
    return f"{path}?{urlencode({'labelSelector': labels})}" if labels else path


def read(kubeconfig: Path, path: str) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the body of a GET. Raises OSError where the server is away or its answer is broken."""
    access = _access(kubeconfig.read_text())
    assert access is not None
    held: tuple[_Access, http.client.HTTPSConnection] | None = getattr(_LOCAL, "held", None)
    if held is not None and held[0] is access:
        try:
            return _get(held[1], path)
        except (OSError, http.client.HTTPException):
            # The server may end a connection between two requests, and has been started anew in some tests.
            held[1].close()
    connection = http.client.HTTPSConnection(access.host, access.port, timeout=SECONDS, context=access.context)
    _LOCAL.held = access, connection
    try:
        return _get(connection, path)
    except http.client.HTTPException as error:
        raise OSError(f"the API server's answer is broken: {error!r}") from error


def _get(connection: http.client.HTTPSConnection, path: str) -> tuple[int, dict[str, Any]]:
    connection.request("GET", path, headers={"Accept": "application/json"})
    answer = connection.getresponse()
    body: dict[str, Any] = json.loads(answer.read())
    return answer.status, body
