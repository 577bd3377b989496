"""The gateway's port with TLS: a real agent behind it, a pair that changes under load, and strangers' handshakes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from linkis_ecm.gateway.tls import CHECK_SECONDS, CertificateError, ServerCertificate
from linkis_ecm.process.ports.listener import BUFFER_BYTES, HANDSHAKE_SECONDS
from tests.gateway.raw import Raw, head_of
from tools.cluster.pki import Authority, Pair
from tools.testkit.agents.process import AgentProcess, until
from tools.testkit.big_files import write_zeros
from tools.testkit.clocks import LoopClock
from tools.testkit.gateway.harness import BASE, PATIENCE, TOKEN, Harness
from tools.testkit.gateway.real_agents import engine_at

Make = Callable[..., Awaitable[Harness]]
MIB = 1 << 20
LOG_TYPE = "yarnApp"


class Secret:
    """A mounted Secret as the kubelet has it: two links to `..data`, which is a link to a folder of the day."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "pki")
        self.folder = folder / "secret"
        self.folder.mkdir()
        self.days = 0
        self.cert, self.key = self.folder / "tls.crt", self.folder / "tls.key"
        for path in (self.cert, self.key):
            path.symlink_to(Path("..data") / path.name)
        self.renew()

    def issue(self) -> Pair:
        self.days += 1
        return self.authority.issue(f"gateway-{self.days}", common_name="gateway", addresses=["127.0.0.1"])

    def renew(self) -> bytes:
        """Another pair; gives its certificate in DER form."""
        pair = self.issue()
        certificate = pair.certificate.read_bytes()
        self.put(certificate, pair.key.read_bytes())
        return ssl.PEM_cert_to_DER_cert(certificate.decode())

    def put(self, certificate: bytes | None, key: bytes | None) -> None:
        self.days += 1
        day = self.folder / f"..day-{self.days}"
        day.mkdir()
        for path, content in ((self.cert, certificate), (self.key, key)):
            if content is not None:
                (day / path.name).write_bytes(content)
        new = self.folder / "..new"
        new.symlink_to(day.name)
        os.replace(new, self.folder / "..data")

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.pair.certificate))

    def settings(self) -> dict[str, Any]:
        return {"tls_cert_file": str(self.cert), "tls_key_file": str(self.key), "trust": self.trust()}

    def loaded(self, **more: Any) -> ServerCertificate:
        return ServerCertificate(str(self.cert), str(self.key), **more)


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    return Secret(tmp_path)


@pytest.fixture
async def gw(make: Make, secret: Secret) -> Harness:
    return await make(**secret.settings())


async def secure(gw: Harness, secret: Secret, *, limit: int = 1 << 16) -> Raw:
    return Raw(*await asyncio.open_connection("127.0.0.1", gw.port, ssl=secret.trust(), limit=limit))


async def text_of(gw: Harness, path: str) -> str:
    return (await gw.call("GET", path, token=None, user=None)).raw.decode()


def shown(raw: Raw) -> bytes:
    """The certificate that the gateway showed on a connection."""
    found: bytes = raw.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return found


# -- with a real agent -----------------------------------------------------------------------------------------------


async def test_calls_health_and_metrics_are_served_over_tls(gw: Harness, engine: dict[str, Any]) -> None:
    assert gw.url.startswith("https://")
    assert (await gw.execute(engine, "6 * 7")).data["status"] == "Succeed"
    assert await text_of(gw, "/healthz") == "ok"
    assert await text_of(gw, "/readyz") == "ok"
    lines = dict(line.rsplit(" ", 1) for line in (await text_of(gw, "/metrics")).splitlines() if line[0] != "#")
    expires = float(lines["ecm_gateway_tls_certificate_expiry_timestamp_seconds"])
    assert abs(expires - (datetime.now(UTC) + timedelta(days=90)).timestamp()) < 3600
    begins = float(lines["ecm_gateway_tls_certificate_start_timestamp_seconds"])
    assert abs(begins - datetime.now(UTC).timestamp()) < 2 * 86400


async def test_a_long_log_and_its_parts_come_whole_on_one_connection(
    gw: Harness, secret: Secret, engine: dict[str, Any], agent: AgentProcess
) -> None:
    data = os.urandom(MIB) * 12
    (agent.log_dir / LOG_TYPE).write_bytes(data)
    raw = await secure(gw, secret, limit=MIB)
    query = gw.download_query(engine, LOG_TYPE)
    for asked, begin, end in (
        ("", 0, len(data)), ("Range: bytes=1000003-\r\n", 1_000_003, len(data)),
        ("Range: bytes=5-99\r\n", 5, 100), ("", 0, len(data)),
    ):  # fmt: skip
        await raw.send(head_of("GET", "downloadEngineLog", query, headers=asked))
        status, headers = await raw.head()
        assert (status, headers["content-length"]) == (206 if asked else 200, str(end - begin))
        assert await raw.reader.readexactly(end - begin) == data[begin:end]
    raw.vanish()
    packed = await gw.get("downloadEngineLog", query, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"


async def test_task_events_come_while_the_task_runs(gw: Harness, engine: dict[str, Any], tmp_path: Path) -> None:
    enough = tmp_path / "enough"
    code = (
        f"import os, time\nprint('begun')\nwhile not os.path.exists({str(enough)!r}): time.sleep(0.01)\nprint('over')"
    )
    task = (await gw.execute(engine, code, wait=False)).data["taskId"]
    query = {"engineId": engine["metadata"]["uid"], "taskId": task}
    got = b""
    async with (
        asyncio.timeout(PATIENCE),
        gw.session.get(f"{gw.url}{BASE}/taskEvents", params=query,
                       headers={"Token-Code": TOKEN, "Token-User": "alice"}) as answer,
    ):  # fmt: skip
        async for chunk in answer.content.iter_any():
            got += chunk
            if b"begun" in got:
                enough.touch()
    assert b"over" in got
    assert b"Succeed" in got


async def test_a_client_that_vanishes_lets_go_of_the_log_and_a_slow_one_is_cut(
    make: Make, secret: Secret, agent: AgentProcess
) -> None:
    gw = await make(**secret.settings(), client_seconds=0.3)
    engine = engine_at(gw, agent)
    write_zeros(agent.log_dir / LOG_TYPE, 64 * MIB)
    ask = head_of("GET", "downloadEngineLog", gw.download_query(engine, LOG_TYPE))
    for vanishes in (True, False):
        raw = await secure(gw, secret)
        await raw.send(ask)
        assert (await raw.head())[0] == 200
        if vanishes:
            raw.vanish()
        await asyncio.to_thread(until, lambda: agent.status()["active"] == "")
        if not vanishes:
            assert len(await raw.rest()) < 64 * MIB, "half a log does not look whole"
    assert (await gw.get("downloadEngineLog", gw.download_query(engine, LOG_TYPE), headers={"Range": "bytes=0-9"})).raw


async def test_a_log_whose_agent_breaks_off_ends_in_a_broken_connection(gw: Harness) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        size = 8 * MIB
        answer = web.StreamResponse(headers={"X-Log-Size": str(size), "X-Log-File": "1", "Content-Length": str(size)})
        await answer.prepare(request)
        await answer.write(b"x" * MIB)
        assert request.transport is not None
        request.transport.close()
        return answer

    _, engine = await gw.served(half)
    with pytest.raises(aiohttp.ClientError):
        await gw.get("downloadEngineLog", gw.download_query(engine))
    assert 'ecm_gateway_responses_aborted_total{side="engine"} 1.0' in await text_of(gw, "/metrics")


# -- a pair that changes ---------------------------------------------------------------------------------------------


async def test_100_calls_while_the_pair_is_swapped_and_none_fails(
    gw: Harness, secret: Secret, engine: dict[str, Any]
) -> None:
    assert gw.certificate is not None
    looks: asyncio.Queue[float] = asyncio.Queue()
    watch = asyncio.create_task(gw.certificate.watch(lambda _: looks.get()))
    before = await secure(gw, secret)
    query = {"engineId": engine["metadata"]["uid"]}
    login = {"Token-Code": TOKEN, "Token-User": "alice"}

    async def call(session: aiohttp.ClientSession) -> int:
        async with session.get(f"{gw.url}{BASE}/getEngineStatus", params=query, headers=login) as answer:
            return answer.status

    async def shows(renewed: bytes) -> None:
        while True:
            raw = await secure(gw, secret)
            raw.vanish()
            if shown(raw) == renewed:
                return

    # Each call has a connection of its own: each makes a handshake.
    connector = aiohttp.TCPConnector(ssl=secret.trust(), force_close=True, limit=5)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.timeout(PATIENCE):
        for _ in range(10):
            calls = [asyncio.create_task(call(session)) for _ in range(10)]
            renewed = secret.renew()
            looks.put_nowait(CHECK_SECONDS)
            assert await asyncio.gather(*calls) == [200] * 10
            await shows(renewed)
    watch.cancel()
    await before.send(head_of("GET", "getEngineStatus", query))
    assert (await before.head())[0] == 200, "a connection of before goes on"
    before.vanish()
    assert 'ecm_gateway_tls_reloads_total{result="success"} 10.0' in await text_of(gw, "/metrics")


@pytest.mark.parametrize("kind", ["another's key", "half a key", "no key", "no certificate", "expired"])
def test_a_changed_pair_that_cannot_be_used_leaves_the_one_before_and_is_logged_once(
    secret: Secret, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    results: list[str] = []
    now = [datetime.now(UTC)]
    certificate = secret.loaded(on_reload=results.append, now=lambda: now[0])
    expires = certificate.expires
    certificate.refresh()
    assert results == [], "nothing has changed"
    pair, other = secret.issue(), secret.issue()
    cert, key = pair.certificate.read_bytes(), pair.key.read_bytes()
    match kind:
        case "another's key":
            key = other.key.read_bytes()
        case "half a key":
            key = key[: len(key) // 2]
        case "expired":
            now[0] += timedelta(days=91)
    secret.put(None if kind == "no certificate" else cert, None if kind == "no key" else key)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            certificate.refresh()
    (record,) = caplog.records
    assert "the certificate before it stays in use" in record.message
    assert "ECM_TLS_" in record.message
    assert "PRIVATE KEY" not in record.message
    assert (results, certificate.expires) == (["failure"], expires)
    now[0] = datetime.now(UTC)
    secret.renew()
    certificate.refresh()
    assert results == ["failure", "success"]


async def test_the_certificate_before_is_shown_while_the_new_pair_is_broken(gw: Harness, secret: Secret) -> None:
    assert gw.certificate is not None
    raw = await secure(gw, secret)
    pair, other = secret.issue(), secret.issue()
    secret.put(pair.certificate.read_bytes(), other.key.read_bytes())
    gw.certificate.refresh()
    again = await secure(gw, secret)
    assert shown(again) == shown(raw)
    for one in (raw, again):
        one.vanish()
    assert 'ecm_gateway_tls_reloads_total{result="failure"} 1.0' in await text_of(gw, "/metrics")


def test_files_that_change_between_two_reads_are_no_failure(
    secret: Secret, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    results: list[str] = []
    certificate = secret.loaded(on_reload=results.append)
    pair, other = secret.issue(), secret.issue()
    secret.put(pair.certificate.read_bytes(), other.key.read_bytes())
    load = certificate._load

    def late(chain: bytes) -> Any:
        monkeypatch.undo()
        try:
            return load(chain)
        finally:
            secret.renew()

    monkeypatch.setattr(certificate, "_load", late)
    certificate.refresh()
    assert (results, caplog.records) == ([], [])
    certificate.refresh()
    assert results == ["success"]


# -- a pair that is refused at the start -----------------------------------------------------------------------------


def encrypted(key: bytes) -> bytes:
    found = serialization.load_pem_private_key(key, None)
    return found.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("no certificate", r"ECM_TLS_CERT_FILE .*/tls\.crt cannot be read \(No such file or directory\): mount"),
        ("empty", r"ECM_TLS_CERT_FILE .*/tls\.crt is empty: mount"),
        ("too long", r"ECM_TLS_CERT_FILE .*/tls\.crt has more than 1048576 bytes: mount"),
        ("no PEM", r"ECM_TLS_CERT_FILE .*/tls\.crt has no certificate in PEM form: write"),
        ("no key", r"ECM_TLS_KEY_FILE .*/tls\.key cannot be read \(No such file or directory\): mount"),
        ("key is none", r"ECM_TLS_KEY_FILE .*/tls\.key has no key in PEM form that fits the certificate.*: write"),
        ("another's key", r"ECM_TLS_KEY_FILE .*/tls\.key is not the key of the certificate in ECM_TLS_CERT_FILE: take"),
        ("encrypted", r"ECM_TLS_KEY_FILE .*/tls\.key is encrypted: write the key without a password"),
        ("expired", r"ECM_TLS_CERT_FILE .*/tls\.crt has a certificate that expired 20\d\d-.* UTC: renew it"),
    ],
)
def test_a_pair_that_cannot_be_used_is_refused_with_one_sentence(secret: Secret, kind: str, says: str) -> None:
    pair, other = secret.issue(), secret.issue()
    cert: bytes | None = pair.certificate.read_bytes()
    key: bytes | None = pair.key.read_bytes()
    assert key is not None
    match kind:
        case "no certificate":
            cert = None
        case "empty":
            cert = b""
        case "too long":
            cert = b"x" * (MIB + 1)
        case "no PEM":
            cert = b"hello"
        case "no key":
            key = None
        case "key is none":
            key = b"hello"
        case "another's key":
            key = other.key.read_bytes()
        case "encrypted":
            key = encrypted(key)
    secret.put(cert, key)
    ahead = timedelta(days=91 if kind == "expired" else 0)
    with pytest.raises(CertificateError, match=says) as caught:
        secret.loaded(now=lambda: datetime.now(UTC) + ahead)
    assert "\n" not in str(caught.value)


# -- strangers -------------------------------------------------------------------------------------------------------


def client_hello(version: int) -> bytes:
    """The first message of a handshake by hand, as OpenSSL of today makes none below 1.2: at most this version."""
    ciphers = b"\xc0\x2b\xc0\x09\x00\x2f"  # ECDHE with ECDSA and AES-GCM; such with CBC; RSA with CBC
    # The curve P-256, and signatures by ECDSA with it and SHA-256.
    extensions = b"\x00\x0a\x00\x04\x00\x02\x00\x17" + b"\x00\x0d\x00\x04\x00\x02\x04\x03"
    body = version.to_bytes(2) + os.urandom(32) + b"\x00" + len(ciphers).to_bytes(2) + ciphers + b"\x01\x00"
    body += len(extensions).to_bytes(2) + extensions
    message = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + len(message).to_bytes(2) + message


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0302])
async def test_versions_below_1_2_are_refused(gw: Harness, version: int) -> None:
    raw = Raw(*await asyncio.open_connection("127.0.0.1", gw.port))
    await raw.send(client_hello(version))
    assert await raw.rest() == b""
    raw.vanish()
    raw = Raw(*await asyncio.open_connection("127.0.0.1", gw.port))
    await raw.send(client_hello(0x0303))
    async with asyncio.timeout(PATIENCE):
        assert await raw.reader.readexactly(3) == b"\x16\x03\x03", "the same of version 1.2 is answered"
    raw.vanish()


async def test_the_lowest_version_can_be_1_3_and_a_renewed_pair_keeps_it(make: Make, secret: Secret) -> None:
    gw = await make(**secret.settings(), tls_min_version="1.3")
    assert gw.certificate is not None
    old = secret.trust()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for _ in range(2):
        assert await text_of(gw, "/healthz") == "ok"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", gw.port, ssl=old)
        secret.renew()
        gw.certificate.refresh()


async def test_plain_http_gets_no_answer_of_the_gateways_and_no_error_in_its_log(
    gw: Harness, secret: Secret, engine: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    raw = Raw(*await asyncio.open_connection("127.0.0.1", gw.port))
    await raw.send(head_of("GET", "getEngineStatus", {"engineId": engine["metadata"]["uid"]}))
    assert b"HTTP" not in await raw.rest()
    assert await text_of(gw, "/healthz") == "ok"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_200_half_handshakes_stop_nobody_and_are_cut_after_their_time(gw: Harness, clock: LoopClock) -> None:
    strangers = []
    for number in range(200):
        raw = Raw(*await asyncio.open_connection("127.0.0.1", gw.port))
        if number % 2:
            await raw.send(client_hello(0x0303)[:20])
        strangers.append(raw)
    body = json.dumps({"engineId": "none"})
    answer = await gw.call("POST", f"{BASE}/executeCode", data=body, headers={"Content-Type": "application/json"})
    assert answer.http == 400
    clock.forward(HANDSHAKE_SECONDS + 1)
    for raw in strangers:
        assert await raw.rest() == b""
        raw.vanish()
    assert await text_of(gw, "/healthz") == "ok"


async def test_a_connection_costs_a_small_buffer(gw: Harness, secret: Secret) -> None:
    """asyncio's own is 256 KiB for each connection, before any login."""
    raw = await secure(gw, secret)
    (handler,) = await asyncio.to_thread(until, lambda: gw.runner.server.connections)
    assert len(handler.transport._ssl_protocol._ssl_buffer) == BUFFER_BYTES
    raw.vanish()
