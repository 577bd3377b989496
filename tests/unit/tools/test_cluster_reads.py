"""The tests' own reads of an API server: by the kubeconfig's certificate, over one connection, anew after its end."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools.cluster.pki import Authority, write_kubeconfig
from tools.testkit.cluster import api, kubectl

PODS = [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]
ENGINE = {"kind": "EngineConn", "metadata": {"name": "e"}}


class Server(ThreadingHTTPServer):
    """Wants a client's certificate; remembers who asked for what, and by how many connections."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []
        self.connections = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        assert isinstance(self.connection, ssl.SSLSocket)
        ((subject,),) = [one for one in (self.connection.getpeercert() or {})["subject"] if one[0][0] == "commonName"]
        self.server.asked.append((subject[1], self.path))
        path = self.path.partition("?")[0]
        found = {
            "/api/v1/namespaces/n/pods": {"items": PODS},
            "/apis/linkis.apache.org/v1alpha1/namespaces/n/engineconns/e": ENGINE,
        }.get(path)
        status = 500 if "broken" in path else 200 if found else 404
        body = json.dumps(found or {"message": "not so"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        # As a server does that shuts down: without a word in the answer.
        self.close_connection = "last" in self.path

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    authority = Authority(tmp_path / "pki")
    pair = authority.issue("server", common_name="server", addresses=["127.0.0.1"])
    client = authority.issue("client", common_name="tests")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(authority.pair.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with Server() as made:
        made.socket = context.wrap_socket(made.socket, server_side=True)
        url = f"https://127.0.0.1:{made.server_address[1]}"
        path = write_kubeconfig(tmp_path / "config", server=url, authority=authority.pair.certificate, client=client)
        monkeypatch.setattr(kubectl, "kubeconfig", lambda: path)
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_objects_are_read_by_the_users_certificate_over_one_connection(server: Server) -> None:
    assert kubectl.find("ec", "e", "n") == ENGINE
    assert kubectl.find("ec", "other", "n") is None
    assert kubectl.listed("pods", "n", "app=x,tier in (a)") == PODS
    assert server.asked == [
        ("tests", "/apis/linkis.apache.org/v1alpha1/namespaces/n/engineconns/e"),
        ("tests", "/apis/linkis.apache.org/v1alpha1/namespaces/n/engineconns/other"),
        ("tests", "/api/v1/namespaces/n/pods?labelSelector=app%3Dx%2Ctier+in+%28a%29"),
    ]
    assert server.connections == 1


def test_another_connection_is_made_where_the_server_has_ended_one(server: Server) -> None:
    for _ in range(3):
        assert kubectl.listed("pods", "n", "last") == PODS
    assert server.connections == 3


def test_a_refusal_and_a_server_that_is_away_are_errors_and_not_nothing(server: Server) -> None:
    with pytest.raises(RuntimeError, match="500 not so"):
        kubectl.find("ec", "broken", "n")
    server.shutdown()
    server.server_close()
    api._LOCAL.held[1].close()
    with pytest.raises(RuntimeError, match="refused"):
        kubectl.find("ec", "e", "n")


def test_a_kubeconfig_without_a_certificate_is_left_to_kubectl(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(json.dumps({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:1", "certificate-authority-data": "eA=="}}],
        "users": [{"name": "u", "user": {"exec": {"command": "login"}}}],
    }))  # fmt: skip
    assert not api.usable(path)
