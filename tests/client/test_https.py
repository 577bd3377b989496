"""A gateway with a certificate of a company's own authority, by both clients."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.client import EcmClient, EcmError
from tests.client.support import Both
from tools.cluster.pki import Authority
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.harness import TOKEN, Harness
from tools.testkit.gateway.real_agents import engine_at


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@pytest.fixture
async def gw(make: Callable[..., Awaitable[Harness]], authority: Authority) -> Harness:
    pair = authority.issue("gateway", common_name="gateway", addresses=["127.0.0.1"])
    return await make(tls_cert_file=str(pair.certificate), tls_key_file=str(pair.key))


def trusting(authority: Authority) -> dict[str, Any]:
    return {"token": TOKEN, "environment": {"LINKIS_ECM_CA_FILE": str(authority.pair.certificate)}}


async def test_code_results_and_logs_come_over_https(
    gw: Harness, authority: Authority, agent: AgentProcess, client_at: Callable[..., Both], tmp_path: Path
) -> None:
    engine_id = engine_at(gw, agent)["metadata"]["uid"]
    call = client_at(gw.url, **trusting(authority))
    result = await call("execute_code", engine_id, "print('over tls'); 6 * 7")
    assert result.status == "Succeed"
    task = await call("submit_code", engine_id, "print('event')")
    events = await call("task_events", engine_id, task.task_id)
    assert "event" in str([event.data for event in events])
    target = tmp_path / "log"
    await call("download_engine_log", engine_id, target)
    assert b"over tls" in target.read_bytes()


async def test_an_authority_that_is_not_named_is_not_trusted(
    gw: Harness, tmp_path: Path, client_at: Callable[..., Both]
) -> None:
    for environment in ({}, trusting(Authority(tmp_path / "other"))["environment"]):
        with pytest.raises(EcmError, match="certificate verify failed"):
            await client_at(gw.url, token=TOKEN, environment=environment, patience=0.0)("list_engines")


async def test_what_is_passed_in_counts_instead_of_the_environment(
    gw: Harness, authority: Authority, tmp_path: Path, client_at: Callable[..., Both]
) -> None:
    context = ssl.create_default_context(cafile=str(authority.pair.certificate))
    other = trusting(Authority(tmp_path / "other"))
    assert (await client_at(gw.url, **other, verify=context)("list_engines")).total == 0


@pytest.mark.parametrize(("content", "why"), [(None, "No such file or directory"), ("hello", "no certificate in PEM")])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None, why: str) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=rf"LINKIS_ECM_CA_FILE cannot be used \(.*{why}.*\): write the file"):
        EcmClient("https://gateway", token="t", user="alice", environment={"LINKIS_ECM_CA_FILE": str(path)})
