"""The behaviours of `tools.testkit.behaviours` on the real cluster; the simulation has them in virtual time."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from e2e.shared.operators import kill_operator
from tools.testkit.behaviours import BEHAVIOURS, Row
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.waiting import NAMESPACE, RELEASE_NAMESPACE, Gate, pods, record
from tools.testkit.gateway.client import Gateway

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
ENGINE = {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn"}
# Plugins are of the whole cluster: each release has its own.
NO_IMAGE_NAME = f"no-image-of-{RELEASE_NAMESPACE}"
NO_IMAGE = {
    "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin", "metadata": {"name": NO_IMAGE_NAME},
    "spec": {
        "engineType": "python", "engineVersion": "0", "image": "127.0.0.1:1/no-such-image:1",
        "runTypes": ["python"], "defaultResources": {"cpu": "100m", "memory": "128Mi"},
    },
}  # fmt: skip


class Real:
    """`tools.testkit.behaviours.World` over kubectl, the gateway and the operator's own view of its database."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._names: set[str] = set()
        self._tasks: dict[str, tuple[Gate, threading.Thread]] = {}

    async def create(self, name: str, trouble: str = "", **spec: Any) -> str:
        body: dict[str, Any] = {"engineType": "python", "user": "hadoop"} | spec
        if trouble == "unschedulable":
            body["podTemplate"] = {"spec": {"nodeSelector": {"linkis.example/room": "none"}}}
        elif trouble == "image":
            body["plugin"] = NO_IMAGE_NAME
            del body["engineType"]
        self._names.add(name)
        made = kubectl.must(
            "create", "-n", NAMESPACE, "-o", "json", "-f", "-",
            stdin=json.dumps(ENGINE | {"metadata": {"name": name}, "spec": body}),
        )  # fmt: skip
        return str(json.loads(made)["metadata"]["uid"])

    async def edit(self, name: str, **spec: Any) -> None:
        kubectl.must("patch", "ec", name, "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": spec}))

    async def delete(self, name: str) -> None:
        kubectl.must("delete", "ec", name, "-n", NAMESPACE)

    async def delete_pod(self, name: str) -> None:
        (pod,) = pods(name)
        kubectl.must("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--wait=false")

    async def begin_task(self, name: str) -> None:
        found = await self.engine(name)
        assert found is not None
        caller, gate = self._gateway.as_user("hadoop"), Gate()
        ticket = found["status"]["ticketId"]

        def run() -> None:
            with caller:
                caller.execute(ticket, gate.code)

        # A daemon: its engine is deleted at the end whatever it does.
        thread = threading.Thread(target=run, daemon=True)
        self._tasks[name] = gate, thread
        thread.start()

    async def end_task(self, name: str) -> None:
        gate, thread = self._tasks.pop(name)
        gate.open(name)
        await asyncio.to_thread(thread.join, 60)
        assert not thread.is_alive(), "the task was not answered within 60 s of its end"

    async def kill_operator(self) -> None:
        kill_operator()

    async def engine(self, name: str) -> dict[str, Any] | None:
        return kubectl.find("ec", name, NAMESPACE)

    async def pods(self, name: str) -> list[dict[str, Any]]:
        return pods(name)

    async def row(self, ticket: str) -> Row | None:
        found = record(ticket)
        if found is None:
            return None
        row = found["record"]
        times = (row["request_times"], row["used_times"], row["release_times"])
        states: list[str] = []
        for step in found["transitions"]:
            if not states or states[-1] != step["state"]:
                states.append(step["state"])
        return Row(row["status"], found["final"], found["reason"], row["label_value"], times, tuple(states))

    async def until(self, what: str, probe: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        deadline = asyncio.get_running_loop().time() + seconds
        while not (answer := await probe()):
            assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {seconds} s"
            await asyncio.sleep(0.1)
        return answer

    def clean(self) -> None:
        kubectl.must("delete", "ec", *self._names, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")
        for _, thread in self._tasks.values():
            thread.join(30)


@pytest.fixture(scope="module", autouse=True)
def plugin(installation: Any) -> Iterator[None]:
    kubectl.must("apply", "-f", "-", stdin=json.dumps(NO_IMAGE))
    yield
    kubectl.run("delete", "ecp", NO_IMAGE_NAME, "--ignore-not-found")


@pytest.fixture
def world(installation: Any, gateway: Gateway) -> Iterator[Real]:
    made = Real(gateway)
    yield made
    made.clean()


# The one that kills the operator wants a release that nobody else uses meanwhile.
KILLS = BEHAVIOURS.keys() & {"a_killed_operator_loses_nothing_and_writes_nothing_anew"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.release] if name in KILLS else []) for name in BEHAVIOURS]
)
async def test_behaviour(world: Real, name: str) -> None:
    await BEHAVIOURS[name](world)
