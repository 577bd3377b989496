"""Wrong or missing DNS at the start: the operator needs it for nothing of its own, and says it before it is ready."""

from __future__ import annotations

import asyncio
import logging
import socket

import aiohttp
import kopf
import pytest

from linkis_ecm.controller import handlers
from linkis_ecm.controller.selfchecks.names import NameCheck
from linkis_ecm.kube.errors import Unreachable
from linkis_ecm.store.database import DatabaseError, check, open_engine

URL = "http://linkis-ecm-operator.linkis-ecm.svc:9103"


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "Temporary failure"),
        (OSError("network is unreachable"), "network is unreachable"),
        (None, "no answer within 5 s"),
    ],
)
async def test_until_dns_answers_once_the_sentence_names_the_host_and_the_value_to_check(
    failure: OSError | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = True

    async def resolve(host: str) -> object:
        assert host == "linkis-ecm-operator.linkis-ecm.svc"
        if not broken:
            return ["10.0.0.1"]
        if failure is None:
            await asyncio.sleep(3600)
        raise failure or OSError

    names = NameCheck(URL, resolve=resolve)
    assert names.problem
    running = asyncio.create_task(names.run())
    await asyncio.sleep(30)
    assert names.problem.startswith("DNS does not answer for linkis-ecm-operator.linkis-ecm.svc, under which engines")
    assert words in names.problem
    assert "networkPolicy.dns" in names.problem
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    broken = False
    await running
    assert names.problem == ""


@pytest.mark.parametrize("url", ["http://127.0.0.1:9103", "http://[::1]:9103"])
def test_an_address_needs_no_name(url: str) -> None:
    assert NameCheck(url).problem == ""


@pytest.mark.parametrize(
    ("host", "port", "server"),
    [
        ("10.96.0.1", "443", "https://10.96.0.1:443"),
        ("fd00::1", "6443", "https://[fd00::1]:6443"),
        ("10.96.0.1", None, "https://10.96.0.1:443"),
        (None, None, "https://kubernetes.default.svc"),
    ],
)
def test_kopf_dials_the_address_that_the_pod_was_given(
    host: str | None, port: str | None, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("HOST", host), ("PORT", port)):
        if value is None:
            monkeypatch.delenv(f"KUBERNETES_SERVICE_{name}", raising=False)
        else:
            monkeypatch.setenv(f"KUBERNETES_SERVICE_{name}", value)
    found = handlers.by_address(kopf.ConnectionInfo(server="https://kubernetes.default.svc", token="t"))
    assert (found.server, found.token) == (server, "t")
    assert handlers.by_address(None) is None


@pytest.mark.parametrize(("engines", "kinds"), [(True, "EngineConns"), (False, "EngineConnPlugins")])
@pytest.mark.parametrize("error", [aiohttp.ClientConnectionError("refused"), TimeoutError()])
async def test_a_watch_that_gets_no_answer_ends_in_a_sentence(
    error: Exception, engines: bool, kinds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def operator(**_: object) -> None:
        raise error

    monkeypatch.setattr(kopf, "operator", operator)

    async def stopping() -> None:
        """Nothing is held."""

    with pytest.raises(Unreachable, match=rf"gives no watch of {kinds} \(.*networkPolicy\.apiServer"):
        await handlers.run(lambda *_: None, engines=engines, stopping=stopping)


def test_a_database_host_without_an_address_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(DatabaseError, match=r"Name or service not known.*check its name.*networkPolicy\.dns"):
        check(open_engine("mysql+pymysql://u:p@db.nowhere:3306/x"))
