"""`python -m bench.scale [engines]`: 10,000 engines on kwok's nodes, with a real API server, operator and database.

The control plane is this run's own, on loopback (control_plane.py): no cluster and no root are needed, and nothing is
left. kwok stands in for the kubelet, this program for the agents: it reports each pod that runs as Idle. Measured: how
fast engines become pods and Idle, beside raw pods of the same run that are made by as many writers and watched by as
many watchers; the operator's processor time and memory; how long the successor of a killed operator takes until it is
in step, with how many writes. `--profile FILE` runs the first operator under cProfile, which makes all of it slower.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import pstats
import secrets
import signal
import sys
import time
from pathlib import Path

from bench import arguments
from bench.clean import end_on_signals, scratch
from bench.figures.table import Table
from bench.scale import shards
from bench.scale.control_plane import control_plane
from bench.scale.parts import (
    NAMESPACE,
    PLUGIN_BODY,
    PODS_PER_NODE,
    RAW,
    Agents,
    OperatorProcess,
    cpu_seconds,
    engine,
    engine_pod,
    kwok,
    node,
)
from bench.scale.probes import Arrivals, is_idle, is_ready, leads, make_each, until
from linkis_ecm.kube.client import KubeClient, Object
from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import ENGINECONNS, NAMESPACES, NODES, PLUGINS, PODS
from linkis_ecm.model.agent_key import master_key
from tools.cluster import binaries
from tools.cluster.progress import run

ENGINES = 10_000
RAW_PODS = 2_000
RATE_GOAL, RATIO_GOAL, IDLE_GOAL = 80.0, 0.8, 1.2
CPU_GOAL = 0.005
MIB = 1 << 20
MEMORY_GOAL = 512 * MIB
SYNC_GOAL = 10.0
# Seconds after the successor's start in which it must write nothing.
QUIET = 15.0
CRDS = Path(__file__).parents[2] / "crds"


def rate(times: dict[str, float], begun: float) -> float:
    """Objects a second, until the last of them."""
    return len(times) / (max(times.values()) - begun)


async def raw_pods(client: KubeClient, count: int) -> tuple[float, float]:
    """Raw pods a second: made, and Ready. Watched by two, as the engines' pods are."""
    pods = Arrivals(is_ready)
    watchers = [
        Reflector(client, PODS, namespace=RAW, transform=dict, on_event=on_event)
        for on_event in (pods.on_event, lambda *_: None)
    ]
    tasks = [asyncio.create_task(one.run()) for one in watchers]
    try:
        for one in watchers:
            await one.synced.wait()
        begun = time.monotonic()
        await make_each(client, PODS, count, lambda n: engine_pod(f"raw-{n}"))
        await until("all raw pods are Ready", lambda: pods.has_arrived(count))
        return rate(pods.seen, begun), rate(pods.arrived, begun)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def engines(client: KubeClient, operator: OperatorProcess, agents: Agents, count: int, others: dict[str, int],
                  raw: tuple[float, float], table: Table) -> None:  # fmt: skip
    """The measurement itself. `others`: process ids, for what each one used."""
    tell = table.tell
    pods, found = Arrivals(is_ready), Arrivals(is_idle)

    def on_pod(kind: str, pod: Object) -> None:
        pods.on_event(kind, pod)
        agents.pod_changed(kind, pod)

    watchers = [
        Reflector(client, PODS, namespace=NAMESPACE, transform=dict, on_event=on_pod),
        Reflector(client, ENGINECONNS, namespace=NAMESPACE, transform=dict, on_event=found.on_event),
    ]
    tasks = [asyncio.create_task(work) for work in (*(one.run() for one in watchers), agents.run())]
    try:
        operator.start()
        await until("the operator leads", lambda: leads(operator), 120)
        assert operator.process is not None
        used = {name: cpu_seconds(pid) for name, pid in (others | {"the operator": operator.process.pid}).items()}
        begun = time.monotonic()
        made = await make_each(client, ENGINECONNS, count, engine)
        await until("all engines are Idle", lambda: found.has_arrived(count))
        took = time.monotonic() - begun
        await until("all rows are written", lambda: operator.metrics().get("ecm_sink_depth") == 0)
        used = {name: cpu_seconds(pid) - used[name]
                for name, pid in (others | {"the operator": operator.process.pid}).items()}  # fmt: skip
        tell(f"EngineConns created by the bench, {count}", f"{made:.0f} /s")
        created = rate(pods.seen, begun)
        tell("engines that became pods", f"{created:.0f} /s", f"≥ {RATE_GOAL:.0f}")
        # Either goal is enough: on a machine that reaches the rate, the ratio has none.
        ratio_goal = RATIO_GOAL if created < RATE_GOAL else None
        table.judge(
            "pods-made",
            "  pods of engines to raw pods made",
            created / raw[0],
            at_least=ratio_goal,
            more_is_better=True,
            floor=raw[0],
            floor_unit="/s",
        )
        tell("all engines Idle after", f"{took:.0f} s")
        ratio = took / (count / raw[1])
        table.judge(
            "all-idle",
            "  all Idle to as many raw pods Ready",
            ratio,
            at_most=IDLE_GOAL,
            floor=count / raw[1],
            floor_unit="s",
        )
        for name, seconds in sorted(used.items(), key=lambda item: -item[1]):
            tell(f"  processor time of {name}", f"{seconds / took:.2f} cores")
        cost = used["the operator"] / count
        table.judge(
            "engine-cpu",
            "the operator's processor time for an engine, until Idle",
            cost * 1000,
            "ms",
            at_most=CPU_GOAL * 1000,
        )
        passes = operator.metrics()['ecm_reconcile_seconds_count{controller="engine"}']
        tell("  its passes over an engine", f"{passes / count:.1f}")
        peak = operator.memory("VmHWM")
        table.judge(
            "operator-memory",
            f"operator's memory with {count} engines, peak",
            peak / MIB,
            "MiB",
            at_most=MEMORY_GOAL / MIB,
        )
        tell("its memory now", f"{operator.memory() / 2**20:.0f} MiB")
        tell("reports that were not taken", str(sum(agents.answers.values()) - agents.answers[204]))
        if operator.is_profiled:
            operator.end(signal.SIGTERM)
            return
        operator.end()
        operator.start()
        seconds = await until("a new operator is in step", lambda: _in_step(operator, count), 300)
        table.judge("successor", "a killed operator's successor in step after", seconds, "s", at_most=SYNC_GOAL)
        tell("  its processor time until then", f"{operator.cpu:.1f} s")
        before = operator.cpu
        await asyncio.sleep(QUIET)
        tell("  and with all engines Idle", f"{(operator.cpu - before) / QUIET:.3f} cores")
        wrote = operator.writes()
        table.judge("successor-writes", "a killed operator's successor: writes", wrote, "writes", at_most=0)
        peak = operator.memory("VmHWM")
        table.judge(
            "successor-memory",
            f"successor's memory with {count} engines, peak",
            peak / MIB,
            "MiB",
            at_most=MEMORY_GOAL / MIB,
        )
    finally:
        operator.end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        print(operator.log.read_text()[-3000:], file=sys.stderr)


def _in_step(operator: OperatorProcess, count: int) -> bool:
    """It leads, has every engine in its cache, and nothing waits for a pass or for the database."""
    try:
        seen = operator.metrics()
    except OSError:
        return False
    cached = sum(value for name, value in seen.items() if name.startswith("ecm_engines{"))
    passes = seen.get('ecm_reconcile_seconds_count{controller="engine"}', 0)
    return (
        seen.get("ecm_leading") == 1
        and cached >= count
        and passes >= count
        and seen.get('ecm_queue_depth{controller="engine"}') == 0
        and seen.get("ecm_sink_depth") == 0
    )


async def measure(options: argparse.Namespace, folder: Path, kubeconfig: Path, others: dict[str, int]) -> int:
    count, raw_count = options.engines, options.raw
    table = Table(58, 14, 12)
    key = base64.b64encode(secrets.token_bytes(48))
    operator = OperatorProcess(folder, key, kubeconfig, options.profile)
    agents = Agents(master_key(key), operator.report_port)
    async with await KubeClient.connect(str(kubeconfig)) as client:
        for space in (RAW, NAMESPACE):
            await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
        await client.create(PLUGINS, PLUGIN_BODY)
        await make_each(client, NODES, count // PODS_PER_NODE + raw_count // PODS_PER_NODE + 2, node)
        raw = await raw_pods(client, raw_count)
        table.tell(f"raw pods created, {raw_count}", f"{raw[0]:.0f} /s")
        table.tell("raw pods Ready", f"{raw[1]:.0f} /s")
        await engines(client, operator, agents, count, others, raw, table)
    return table.finish()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engines", nargs="?", type=arguments.count, default=ENGINES, help=f"how many ({ENGINES})")
    parser.add_argument("--raw", type=arguments.count, default=RAW_PODS, help=f"how many raw pods ({RAW_PODS})")
    parser.add_argument(
        "--shards", type=arguments.count, default=1, metavar="N", help="N operators beside one, and nothing else"
    )
    parser.add_argument(
        "--profile", type=arguments.written_file, metavar="FILE", help="where cProfile's figures of the operator go"
    )
    options = parser.parse_args()
    end_on_signals()
    with (
        scratch() as folder,
        control_plane(folder / "cluster") as plane,
        kwok(folder, plane.kubeconfig) as stages,
    ):
        kubectl = [str(binaries.build("kubectl")), "--kubeconfig", str(plane.kubeconfig)]
        for command in (
            ["apply", "--server-side", "-f", str(CRDS)],
            ["wait", "--for=condition=Established", "-f", str(CRDS)],
        ):
            run([*kubectl, *command], what="installing the CRDs", remedy="look at the lines above", seconds=60)
        others = plane.pids | {"kwok": stages.pid, "the bench": os.getpid()}
        measured = measure if options.shards < 2 else shards.measure
        code = asyncio.run(measured(options, folder, plane.kubeconfig, others))
    if options.profile is not None:
        pstats.Stats(str(options.profile)).sort_stats("tottime").print_stats(50)
    return code


if __name__ == "__main__":
    sys.exit(main())
