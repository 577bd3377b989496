"""A reflector whose first list was made by somebody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import CONFIGMAPS
from tools.testkit.fakes.apiserver import FakeApiServer

pytestmark = pytest.mark.looptime


async def test_a_list_that_somebody_else_made_is_the_first_one() -> None:
    """The resync's at the start: what changes after it comes by the watch, and what was in it is known."""
    server = FakeApiServer()
    for name in ("kept", "gone"):
        server.cluster.create(CONFIGMAPS, {"metadata": {"name": name}}, namespace="default")
    client = server.client()
    listed = await client.list(CONFIGMAPS)
    seen: list[tuple[str, str]] = []
    both = asyncio.Event()

    def note(kind: str, item: dict[str, Any]) -> None:
        seen.append((kind, item["metadata"]["name"]))
        if len(seen) == 2:
            both.set()

    made = Reflector(client, CONFIGMAPS, transform=dict, on_event=note)
    made.adopt(
        {
            ("default", item["metadata"]["name"]): (
                item["metadata"]["uid"],
                int(item["metadata"]["resourceVersion"]),
                {"metadata": item["metadata"]},
            )
            for item in listed.items
        },
        int(listed.resource_version),
    )  # fmt: skip
    assert made.synced.is_set()
    assert made.settled.is_set()
    before = len(server.log)
    server.cluster.delete(CONFIGMAPS, "gone", namespace="default")
    server.cluster.create(CONFIGMAPS, {"metadata": {"name": "new"}}, namespace="default")
    running = asyncio.create_task(made.run())
    async with asyncio.timeout(10):
        await both.wait()
    assert seen == [("DELETED", "gone"), ("ADDED", "new")]
    assert {entry.call.verb for entry in list(server.log)[before:]} <= {"watch"}
    # Later ones are its own.
    made.adopt({}, 1)
    assert set(made.objects) == {("default", "kept"), ("default", "new")}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
