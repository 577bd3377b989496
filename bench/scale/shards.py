"""`python -m bench.scale ENGINES --shards 2`: two operators with half of the namespaces each, beside one with all.

In one run, alternating, over one API server: what each operator uses of a processor until all engines are Idle, beyond
what it uses while they wait, and how long that takes. The engines are there before, and wait for their plugin, whose
creation starts them all: the benchmark's own pace is no part of it. Each operator has a SQLite file of its own: the
database is not what is measured. On a machine whose cores the API server and kwok take, two operators are no faster:
what the busier of them uses says what they would be.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import secrets
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures.table import Table
from bench.scale.parts import (
    PLUGIN_BODY,
    PODS_PER_NODE,
    Agents,
    OperatorProcess,
    cpu_seconds,
    engine,
    node,
)
from bench.scale.probes import Arrivals, is_idle, leads, make_each, until
from linkis_ecm.kube.client import KubeClient, Object
from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import CONFIGMAPS, ENGINECONNS, NAMESPACES, NODES, PLUGINS, PODS
from linkis_ecm.model.agent_key import master_key

HOME = "ecm-scale-home"
CLAIMS = "ecm-scale-shards"
RATIO_GOAL = 1.7
# One with one operator and one with several, so often.
PAIRS = 2
# Seconds in which an operator whose engines wait is looked at first: that much a shard uses however few engines start.
# The rest is what their starts cost.
QUIET = 10.0


def lease(number: int) -> str:
    return f"bench-{number}"


class Shard(OperatorProcess):
    """An operator with these namespaces, and the neighbours that have the others."""

    def __init__(self, folder: Path, key: bytes, kubeconfig: Path, number: int, given: list[list[str]]) -> None:
        folder.mkdir(parents=True)
        super().__init__(folder, key, kubeconfig)
        self.spaces = given[number]
        self.agents = Agents(master_key(key), self.report_port)
        self._env |= {
            "ECM_POD_NAMESPACE": HOME, "ECM_POD_NAME": f"pod-{number}", "ECM_WATCH_NAMESPACES": ",".join(self.spaces),
            "ECM_LEASE_NAME": lease(number), "ECM_SHARDS_CONFIGMAP": CLAIMS,
        }  # fmt: skip
        if len(given) > 1:
            others = {lease(one): spaces for one, spaces in enumerate(given) if one != number}
            self._env |= {"ECM_SHARD_NEIGHBOURS": json.dumps(others)}


@dataclass(frozen=True)
class Round:
    """Of one run: seconds until all engines were Idle, the processor time of each operator, and the cores that it used
    before it had engines."""

    seconds: float
    cpu: list[float]
    idle: list[float]
    others: dict[str, float]

    @property
    def for_engines(self) -> list[float]:
        """Seconds of each operator's processor time that it would not have used without engines."""
        return [used - idle * self.seconds for used, idle in zip(self.cpu, self.idle, strict=True)]


def _waits(item: Object) -> bool:
    return bool((item.get("status") or {}).get("reason") == "PluginMissing")


async def run_round(
    client: KubeClient, shards: list[Shard], count: int, others: dict[str, int], plugin: str
) -> Round:  # fmt: skip
    """`count` engines in all namespaces of these operators, until all are Idle."""
    found, waiting = Arrivals(is_idle), Arrivals(_waits)

    def on_engine(kind: str, item: Object) -> None:
        found.on_event(kind, item)
        waiting.on_event(kind, item)

    watchers = []
    for shard in shards:
        for one in shard.spaces:
            watchers += [
                Reflector(client, PODS, namespace=one, transform=dict, on_event=shard.agents.pod_changed),
                Reflector(client, ENGINECONNS, namespace=one, transform=dict, on_event=on_engine),
            ]
    spaces = [one for shard in shards for one in shard.spaces]

    def body(number: int) -> dict[str, Any]:
        made = engine(number)
        metadata = made["metadata"] | {"namespace": spaces[number % len(spaces)]}
        return made | {"metadata": metadata, "spec": made["spec"] | {"plugin": plugin}}

    tasks = [asyncio.create_task(one.run()) for one in watchers]
    tasks += [asyncio.create_task(shard.agents.run()) for shard in shards]
    try:
        for shard in shards:
            shard.start()
        for shard in shards:
            await until("the operator serves", lambda shard=shard: _serves(shard), 180)  # type: ignore[misc]
        pids = others | {str(n): _pid(shard) for n, shard in enumerate(shards)}
        await make_each(client, ENGINECONNS, count, body)
        await until("all engines wait for their plugin", lambda: waiting.has_arrived(count))
        before = [shard.cpu for shard in shards]
        await asyncio.sleep(QUIET)
        idle = [(shard.cpu - was) / QUIET for shard, was in zip(shards, before, strict=True)]
        used = {name: cpu_seconds(pid) for name, pid in pids.items()}
        begun = time.monotonic()
        await client.create(PLUGINS, PLUGIN_BODY | {"metadata": {"name": plugin}})
        await until("all engines are Idle", lambda: found.has_arrived(count))
        seconds = time.monotonic() - begun
        for shard in shards:
            await until("all rows are written", lambda shard=shard: shard.metrics().get("ecm_sink_depth") == 0)  # type: ignore[misc]
        used = {name: cpu_seconds(pid) - used[name] for name, pid in pids.items()}
        cpu = [used.pop(str(n)) for n in range(len(shards))]
        return Round(seconds, cpu, idle, used)
    finally:
        for shard in shards:
            shard.end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _pid(shard: Shard) -> int:
    assert shard.process is not None
    return shard.process.pid


def _serves(shard: Shard) -> bool:
    return leads(shard) and shard.metrics().get("ecm_namespaces_waiting") == 0


async def measure(options: argparse.Namespace, folder: Path, kubeconfig: Path, others: dict[str, int]) -> int:
    """Rounds with one operator and with `options.shards`, alternating. Returns the exit code."""
    count, number = options.engines, options.shards
    table = Table(68, 14, 12)
    key = base64.b64encode(secrets.token_bytes(48))
    rounds: dict[int, list[Round]] = {1: [], number: []}
    async with await KubeClient.connect(str(kubeconfig)) as client:
        await client.create(NAMESPACES, _namespace(HOME))
        claims = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CLAIMS}}
        await client.create(CONFIGMAPS, claims, namespace=HOME)
        await make_each(client, NODES, 2 * PAIRS * count // PODS_PER_NODE + 2, node)
        for again in range(PAIRS):
            for several in (1, number):
                # New namespaces each time: what is in those of before nobody watches.
                spaces = [f"ecm-scale-{again}-{several}-{one}" for one in range(number)]
                for one in spaces:
                    await client.create(NAMESPACES, _namespace(one))
                given = [spaces] if several == 1 else [[one] for one in spaces]
                shards = [
                    Shard(folder / f"{again}-{several}-{n}", key, kubeconfig, n, given) for n in range(len(given))
                ]
                rounds[several].append(await run_round(client, shards, count, others, f"kwok-{again}-{several}"))
                _tell_round(table, several, rounds[several][-1], count)
    _tell(table, rounds, number)
    return table.finish()


def _tell_round(table: Table, several: int, found: Round, count: int) -> None:
    what = "one operator" if several == 1 else f"{several} shards"
    table.tell(f"{what}: all {count} Idle after", f"{found.seconds:.1f} s")
    table.tell("  processor time of each", f"{', '.join(f'{one:.2f}' for one in found.cpu)} s")
    table.tell("  of it for engines", f"{', '.join(f'{one:.2f}' for one in found.for_engines)} s")
    table.tell("  cores that all others took", f"{sum(found.others.values()) / found.seconds:.2f}")


def _tell(table: Table, rounds: dict[int, list[Round]], number: int) -> None:
    def median(several: int, figure: Callable[[Round], float]) -> float:
        return statistics.median(figure(one) for one in rounds[several])

    busiest = median(1, lambda one: max(one.for_engines)) / median(number, lambda one: max(one.for_engines))
    table.judge(
        "shards-cpu",
        f"processor time for engines: one operator's to the busiest of {number}",
        busiest,
        at_least=RATIO_GOAL if number == 2 else None,
        more_is_better=True,
    )
    table.tell(
        f"  all {number} together to one operator's",
        f"{median(number, lambda one: sum(one.cpu)) / median(1, lambda one: sum(one.cpu)):.2f}",
    )
    table.tell(
        "engines a second, of shards to one operator",
        f"{median(1, lambda one: one.seconds) / median(number, lambda one: one.seconds):.2f}",
        "cores allow?",
    )
