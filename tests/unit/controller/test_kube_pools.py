"""Connections to the API server: neither slow calls nor many watches keep the Lease's renewal, or a call, from one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from kubernetes.aio.client.configuration import Configuration

from linkis_ecm.kube.client import KubeClient
from linkis_ecm.kube.errors import Unreachable
from linkis_ecm.kube.lease import Lease
from linkis_ecm.kube.resources import CONFIGMAPS, ENGINECONNS, LEASES, PODS
from linkis_ecm.kube.transport import RestTransport
from tools.testkit.fakes.apiserver import FakeApiServer
from tools.testkit.fakes.faults import Fault

# The pool of the kubernetes package has 100 connections.
POOL = 100


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110 - of servers in other tasks
            await asyncio.sleep(0.01)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[KubeClient]:
    async with KubeClient(RestTransport(Configuration(host=url))) as client:
        yield client


async def test_a_lease_is_kept_while_status_patches_take_every_connection_for_30_s() -> None:
    """The operator's half of finding S32: a renewal has connections of its own."""
    server = FakeApiServer()
    slow = server.faults.add(Fault(verb="patch", resource=ENGINECONNS, times=None, latency=600.0))
    ended = 0

    def stopped() -> None:
        nonlocal ended
        ended += 1

    async with server.serve() as url, connected(url) as client, connected(url) as own:
        patches = [
            asyncio.create_task(
                client.patch(ENGINECONNS, f"e{n}", {}, namespace="default", subresource="status", timeout=600)
            )
            for n in range(POOL + 20)
        ]
        await until(lambda: slow.played >= POOL)
        # It is renewed soon, and its deadline is one that no busy machine reaches.
        lease = Lease(
            own, namespace="default", name="ecm", identity="one", on_stopped=stopped,
            duration=80.0, renew_deadline=50.0, retry_period=0.05,
        )  # fmt: skip
        running = asyncio.create_task(lease.run())
        await until(lambda: lease.held)
        version = server.cluster.get(LEASES, "ecm", namespace="default")["metadata"]["resourceVersion"]
        with pytest.raises(Unreachable):  # on the others' connections it would be lost
            await client.get(LEASES, "ecm", namespace="default", timeout=1.0)

        def renewed() -> bool:
            found = server.cluster.get(LEASES, "ecm", namespace="default")
            return bool(found["metadata"]["resourceVersion"] != version)

        await until(renewed)
        assert lease.held
        assert not ended
        for task in (running, *patches):
            task.cancel()
        await asyncio.gather(running, *patches, return_exceptions=True)


async def test_watches_take_no_connection_of_the_calls() -> None:
    """A hundred namespaces have a hundred watches."""
    server = FakeApiServer()
    begun = server.faults.add(Fault(verb="watch", times=None))
    async with server.serve() as url, connected(url) as client:

        async def watch() -> None:
            async for _ in client.watch(PODS, resource_version=server.cluster.version):
                pass

        watches = [asyncio.create_task(watch()) for _ in range(POOL + 20)]
        await until(lambda: begun.played >= POOL + 20)
        await client.create(CONFIGMAPS, {"metadata": {"name": "c"}}, namespace="default", timeout=10)
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
