"""A namespace whose watches are refused ends neither the operator's process nor the watches of the others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from linkis_ecm.kube.resources import ENGINECONNS, PODS
from linkis_ecm.store.migrate import upgrade
from tools.testkit.fakes.apiserver import FakeApiServer, write_kubeconfig
from tools.testkit.fakes.cluster import FakeCluster
from tools.testkit.fakes.faults import Call, Fault
from tools.testkit.servers.ports import reserved

# One process for all: its start is most of what each of them costs.
pytestmark = pytest.mark.asyncio(loop_scope="module")
# The start of a process takes 2 s here, and ten times as long on a busy machine.
PATIENCE = 60.0


class Running:
    """An operator process of two namespaces, `one` and `two`, over a fake API server."""

    def __init__(self, api: FakeApiServer, process: asyncio.subprocess.Process, metrics: str, log: Path) -> None:
        self.api, self.process, self._metrics, self._log = api, process, metrics, log
        self._numbers = itertools.count()

    async def until(self, what: str, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds():
                    assert self.process.returncode is None, self.log
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"not {what}:\n{self.log}")

    async def until_metric(self, line: str) -> None:
        text = ""
        try:
            async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
                while line not in text.splitlines():
                    assert self.process.returncode is None, self.log
                    await asyncio.sleep(0.05)
                    with contextlib.suppress(aiohttp.ClientConnectionError):
                        async with session.get(self._metrics) as answer:
                            text = await answer.text()
        except TimeoutError:
            pytest.fail(f"not {line}:\n{self.log}")

    async def until_served(self, namespace: str) -> None:
        """Create an engine, and wait until the operator has written its status."""
        name = f"e{next(self._numbers)}"
        body: dict[str, Any] = {
            "apiVersion": ENGINECONNS.api_version, "kind": ENGINECONNS.kind, "metadata": {"name": name},
            "spec": {"engineType": "python", "user": "hadoop", "desiredState": "Stopped"},
        }  # fmt: skip
        self.api.cluster.create(ENGINECONNS, body, namespace=namespace)
        await self.until(
            f"{namespace}/{name} has a status",
            lambda: "status" in self.api.cluster.get(ENGINECONNS, name, namespace=namespace),
        )

    def watches(self) -> list[Call]:
        return [one.call for one in self.api.log if one.call.verb == "watch" and one.call.resource is ENGINECONNS]

    @property
    def log(self) -> str:
        return self._log.read_text()[-6000:]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    tmp_path = tmp_path_factory.mktemp("operator")
    (tmp_path / "key").write_bytes(b"k" * 32)
    url = f"sqlite:///{tmp_path}/ecm.sqlite3"
    upgrade(url)
    api, log = FakeApiServer(FakeCluster(namespaces=("one", "two", "own"))), tmp_path / "log"
    with reserved() as first, reserved() as second, log.open("wb") as out:
        port, other = first.getsockname()[1], second.getsockname()[1]
        async with api.serve() as server:
            settings = {
                "KUBECONFIG": str(write_kubeconfig(tmp_path / "kubeconfig", server)), "ECM_DATABASE_URL": url,
                "ECM_TOKEN_KEY_FILE": str(tmp_path / "key"), "ECM_ARCHIVE_URL": f"file://{tmp_path}/archive",
                "ECM_NAMESPACE": "one", "ECM_WATCH_NAMESPACES": "one,two", "ECM_INSTANCE": "ecm:9102",
                "ECM_REPORT_URL": "http://127.0.0.1:9103", "ECM_REPORT_PORT": str(other),
                "ECM_HEALTH_PORT": str(port), "ECM_POD_NAMESPACE": "own", "ECM_CANARY": "0",
            }  # fmt: skip
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "linkis_ecm", "operator", env={**os.environ, **settings}, stdout=out, stderr=out
            )
            made = Running(api, process, f"http://127.0.0.1:{port}/metrics", log)
            try:
                await made.until_metric("ecm_leading 1.0")
                await made.until("two watches", lambda: len(made.watches()) >= 2)
                yield made
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(process.wait(), PATIENCE) == 0, made.log


@pytest_asyncio.fixture(loop_scope="module")
async def running(operator: Running) -> AsyncIterator[Running]:
    """With both namespaces served, before a test and after it."""
    yield operator
    operator.api.faults.clear()
    await operator.until_metric("ecm_namespaces_unserved 0.0")


def refuse(api: FakeApiServer, status: int, *verbs: str) -> None:
    """The API server's answer for the engines and pods of the namespace `two`; its watches end."""

    def there(call: Call) -> bool:
        return call.namespace == "two" and call.resource in (ENGINECONNS, PODS) and (not verbs or call.verb in verbs)

    api.faults.add(Fault(when=there, times=None, status=status, message="no rights in the namespace two"))
    api.watches.end(ENGINECONNS)


@pytest.mark.parametrize("status", [403, 404])
async def test_the_process_goes_on_and_serves_the_namespace_again(running: Running, status: int) -> None:
    refuse(running.api, status)
    await running.until_metric("ecm_namespaces_unserved 1.0")
    await running.until_served("one")
    running.api.faults.clear()
    await running.until_metric("ecm_namespaces_unserved 0.0")
    await running.until_served("two")
    await running.until_served("one")


async def test_where_lists_are_served_and_watches_are_not_the_other_namespace_goes_on(running: Running) -> None:
    refuse(running.api, 403, "watch")
    await running.until_metric("ecm_namespaces_unserved 1.0")
    await running.until_served("one")
    running.api.faults.clear()
    await running.until_served("two")


async def test_a_list_that_was_too_old_begins_again(running: Running) -> None:
    seen = len(running.watches())
    running.api.faults.add(Fault(verb="watch", resource=ENGINECONNS, status=410, reason="Expired"))
    running.api.watches.end(ENGINECONNS)
    await running.until("watches again", lambda: len(running.watches()) >= seen + 3)
    await running.until_served("one")
    await running.until_served("two")
