"""`python -m bench.races`: 200 engines race for the members of a warm pool while operators are killed.

In waves of 40 over a pool of 20, made at the API server; in each wave two operators die by kill -9, as soon as so many
members are claimed. Then each engine must be Idle with one pod and answer with its own variable from that pod, and no
pod may ever have had two engines (bench/races/ledger.py). Runs inside the node's network namespace; all that it makes
it takes away. Exit code 1 where a promise is broken. Must not measure time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from bench import clean
from bench.__main__ import service_address
from bench.clean import NAMESPACE
from bench.figures.table import Table
from bench.races.ledger import Ledger
from bench.warm import ENGINES, SETTINGS, SIZE, filled, plugin, pool, settled
from tools.cluster import tools
from tools.testkit.cluster import kubectl, processes
from tools.testkit.cluster.installation import RELEASE
from tools.testkit.cluster.waiting import is_ready, operator_pods
from tools.testkit.gateway.client import Gateway, texts

WAVES, ENGINES_OF_WAVE, MEMBERS = 5, 40, 20
# In each wave an operator dies as soon as so many of its members are claimed, and its successor at the second number.
KILLS = ((1, 8), (2, 12), (4, 14), (7, 16), (10, 18))
# Forty kernels that boot on two cores, and two operators that start.
WAVE_SECONDS = 240.0
LOOK = 0.005
VARIABLE = "RACE"
PATHS = {
    "pods": f"/api/v1/namespaces/{ENGINES}/pods",
    "engineconns": f"/apis/linkis.apache.org/v1alpha1/namespaces/{ENGINES}/engineconns",
}


@asynccontextmanager
async def watched(session: aiohttp.ClientSession, api: str, ledger: Ledger) -> AsyncIterator[asyncio.Future[Any]]:
    """The ledger has what the API server has, and each change from then on. The value ends when a watch does."""
    takers: dict[str, Callable[[str, dict[str, Any]], None]] = {"pods": ledger.pod, "engineconns": ledger.engine}
    followers = []
    for name, take in takers.items():
        async with session.get(f"{api}{PATHS[name]}") as answer:
            listed = await answer.json()
        for one in listed["items"]:
            take("ADDED", one)
        followers.append(follow(session, f"{api}{PATHS[name]}", listed["metadata"]["resourceVersion"], take))
    following = asyncio.gather(*followers)
    try:
        yield following
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def follow(
    session: aiohttp.ClientSession, url: str, version: str, take: Callable[[str, dict[str, Any]], None]
) -> None:
    """One watch, gone on with where it ended: none of its events is missed. Raises SystemExit where that cannot be.

    The API server ends watches of a resource whose CRD was just applied.
    """
    timeout = aiohttp.ClientTimeout(total=None)
    while True:
        query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "3600"}
        async with session.get(url, params=query, timeout=timeout) as answer:
            if answer.status != 200:
                raise SystemExit(f"{url} cannot be watched from {version}: {answer.status}")
            while line := await answer.content.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise SystemExit(f"{url} cannot be watched from {version}: {event['object'].get('message')}")
                take(event["type"], event["object"])
                version = event["object"]["metadata"]["resourceVersion"]


async def create(session: aiohttp.ClientSession, api: str, name: str) -> None:
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
        "spec": {
            "engineType": "python", "user": f"user-of-{name}", "resources": SIZE,
            "env": [{"name": VARIABLE, "value": name}],
        },
    }  # fmt: skip
    async with session.post(f"{api}{PATHS['engineconns']}", json=body) as answer:
        if answer.status != 201:
            raise SystemExit(f"the API server answered {answer.status}: {await answer.text()}")


def kill(pod: dict[str, Any]) -> None:
    """kill -9 of the operator's process; then its pod, too: the kubelet would wait ever longer with the container."""
    if tools.backend() == "node":
        processes.kill(pod["metadata"]["uid"], b"linkis_ecm operator")
    name = pod["metadata"]["name"]
    kubectl.must("delete", "pod", name, "-n", NAMESPACE, "--grace-period=0", "--force", "--wait=false")


async def ready_operator() -> dict[str, Any]:
    """The one pod of the operator, which leads or is about to."""
    deadline = time.monotonic() + 120
    while True:
        found = await asyncio.to_thread(operator_pods, NAMESPACE)
        if len(found) == 1 and is_ready(found[0]):
            return found[0]
        if time.monotonic() > deadline:
            raise SystemExit(f"no operator is ready: {[one['metadata']['name'] for one in found]}")
        await asyncio.sleep(0.2)


class Race:
    """All waves over one ledger."""

    def __init__(self, session: aiohttp.ClientSession, api: str, gateway: Gateway, ledger: Ledger) -> None:
        self._session = session
        self._api = api
        self._gateway = gateway
        self._ledger = ledger
        self.kills = 0
        self.faults: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.because: Counter[str] = Counter()

    async def wave(self, number: int, watches: asyncio.Future[Any]) -> None:
        """40 engines at once over a pool of 20, and two operators that die."""
        await filled(MEMBERS)
        await ready_operator()
        names = [f"race-{number}-{uuid.uuid4().hex[:6]}" for _ in range(ENGINES_OF_WAVE)]
        before, deadline = self._ledger.claimed, time.monotonic() + WAVE_SECONDS

        def is_over() -> bool:
            return watches.done() or self._ledger.idle().keys() >= set(names) or time.monotonic() > deadline

        killer = asyncio.create_task(self._kill(before, KILLS[number], is_over))
        await asyncio.gather(*(create(self._session, self._api, name) for name in names))
        while not is_over():
            await asyncio.sleep(0.05)
        await killer
        if watches.done():
            watches.result()
        await ready_operator()
        self.faults += self._ledger.faults(names) + await asyncio.to_thread(self._own_answers, names)
        kinds, because = self._ledger.starts(names)
        self.kinds += kinds
        self.because += because
        await settled()

    async def _kill(self, before: int, moments: tuple[int, ...], is_over: Callable[[], bool]) -> None:
        for claims in moments:
            operator = await ready_operator()
            while self._ledger.claimed - before < claims and not is_over():
                await asyncio.sleep(LOOK)
            if is_over():
                return
            await asyncio.to_thread(kill, operator)
            self.kills += 1

    def _own_answers(self, names: list[str]) -> list[str]:
        """Each engine is asked for its variable and for its host: another one's are a fault."""
        code = f"import os, socket; print(os.environ['{VARIABLE}'], socket.gethostname())"
        idle, found = self._ledger.idle(), []
        for name in names:
            if name not in idle:
                continue  # a fault already
            said = texts(self._gateway.execute(idle[name], code).data).split()
            if said != [name, self._ledger.pod_of(name)]:
                found.append(f"Engine {name} answers as {said}; its pod is {self._ledger.pod_of(name)}.")
        return found


async def empty() -> int:
    """Pods that are left a minute after the pool was ended and all engines were deleted."""
    deadline = time.monotonic() + 60
    while left := await asyncio.to_thread(kubectl.listed, "pods", ENGINES):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    return len(left)


async def run(api: str, gateway: Gateway, waves: int, table: Table) -> None:
    ledger, began = Ledger(), time.monotonic()
    connector = aiohttp.TCPConnector(limit=0)
    # A watch's line is a whole object.
    async with (
        aiohttp.ClientSession(connector=connector, read_bufsize=1 << 22) as session,
        watched(session, api, ledger) as watches,
    ):
        pool(MEMBERS)
        race = Race(session, api, gateway, ledger)
        for number in range(waves):
            await race.wave(number, watches)
            faults = [*ledger.double_claims(), *race.faults]
            told = f"{dict(race.kinds)}, {race.kills} killed, {len(faults)} faults"
            print(f"  wave {number + 1} of {waves}: {told}", flush=True)
        pool(0)
        left = await empty()
        # Of all pods that there ever were, those of engines that ended meanwhile too.
        double = ledger.double_claims()
        for fault in [*double, *race.faults]:
            print(f"  {fault}", flush=True)
        asked = waves * ENGINES_OF_WAVE
        table.tell("engines that raced, over members of a pool", f"{asked} over {waves * MEMBERS}")
        table.tell("operators killed by kill -9 meanwhile", str(race.kills))
        table.tell("pods that two engines were given", str(len(double)), "0", met=not double)
        table.tell("engines lost, or with another pod or answer", str(len(race.faults)), "0", met=not race.faults)
        table.tell("started warm, cold", f"{race.kinds['warm']}, {race.kinds['cold']}")
        for sentence, times in race.because.most_common():
            table.tell(f"  {sentence}", str(times))
        table.tell("pods left at the end", str(left), "0", met=not left)
        table.tell("it took", f"{time.monotonic() - began:.0f} s")


def main(waves: int) -> int:
    table = Table(70, 14, 6)
    with clean.release(*SETTINGS) as release:
        print(f"  plugin {plugin()}", flush=True)
        address = service_address(f"{RELEASE}-gateway")
        with clean.api_proxy() as api, Gateway(address, 9102, release.token) as gateway:
            asyncio.run(run(api, gateway, waves, table))
    return table.finish()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.races", description=__doc__)
    parser.add_argument("--inside", action="store_true", help="it runs in the node's network namespace already")
    parser.add_argument("--waves", type=int, default=WAVES, choices=range(1, WAVES + 1), help="of 40 engines each")
    given = parser.parse_args()
    if given.inside:
        sys.exit(main(given.waves))
    tools.up()
    sys.exit(clean.run_inside("bench.races", ["--inside", f"--waves={given.waves}"], seconds=1500))
