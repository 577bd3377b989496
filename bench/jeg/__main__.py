"""`python -m bench.jeg`: Jupyter Enterprise Gateway beside ours on one node, with the same kernel image, in one run.

Measured in turn, so that what else the machine does falls on all alike. Cold: from nothing to the result of 1+1, ours
until the whole answer is here, theirs until the result's message is. Round trip: 1+1 on a live kernel until the whole
answer is here; theirs is when reply and idle have come, and jupyter_client waits for both. Theirs runs in two ways, as
it ships and tuned (bench/jeg/setup.py). Exit code 1 where ours is slower than the faster of the two in either. What was
found, and why: docs/design/jeg.md.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench import clean
from bench.jeg import setup
from bench.jeg.client import Channels, Kernels
from tools.cluster import tools
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import RELEASE, Installation, installed
from tools.testkit.gateway.client import Gateway

PLUGIN = "python-3.11"
ROUNDS = 10
CALLS = 200
# Calls of one before the other's turn.
TURN = 20
CODE = "1+1"
# A whole run at ten rounds takes two minutes.
LIMIT_SECONDS = 900.0


@dataclass
class Times:
    """Seconds, by what was measured."""

    opened: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    cold_done: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)


class Contender(Protocol):
    """One of those that are measured; each method returns when the cluster has nothing left to do for it."""

    name: str
    times: Times

    def cold(self) -> None: ...
    def begin(self) -> None: ...
    def calls(self, count: int) -> None: ...
    def end(self) -> None: ...


class Ours:
    """An engine through our gateway, over one kept-open HTTP connection."""

    name = "ours"

    def __init__(self, address: str, release: Installation) -> None:
        self.times = Times()
        self._namespace = release.engines
        self._gateway = Gateway(address, 9102, release.token)
        self._engine: dict[str, Any] = {}

    def cold(self) -> None:
        self._gateway.close()
        begun = time.perf_counter()
        ticket = self._start()
        self.times.opened.append(time.perf_counter() - begun)
        self._call(ticket)
        self.times.cold.append(time.perf_counter() - begun)
        self.end()

    def begin(self) -> None:
        self._call(self._start())

    def calls(self, count: int) -> None:
        ticket = self._engine["ticketId"]
        for _ in range(count):
            begun = time.perf_counter()
            told = self._call(ticket)
            self.times.warm.append(time.perf_counter() - begun)
            self.times.inside.append(told["endedAt"] - told["startedAt"])

    def end(self) -> None:
        if not self._engine:
            return
        # The connection may have been idle for longer than the gateway keeps one.
        self._gateway.close()
        name, where = self._engine["name"], ("-n", self._namespace)
        assert self._gateway.terminate(self._engine["ticketId"]).ok
        kubectl.must("wait", *where, f"ec/{name}", "--for=jsonpath={.status.engineState}=Success", "--timeout=60s")
        kubectl.must("delete", "ec", name, *where, "--timeout=60s")
        self._engine = {}
        self._gateway.close()

    def _start(self) -> str:
        ticket = str(uuid.uuid4())
        self._engine = self._gateway.create(ticketId=ticket).data
        return ticket

    def _call(self, ticket: str) -> dict[str, Any]:
        told = self._gateway.execute(ticket, CODE).data
        assert told["outputs"][0]["text"] == "2", told
        return told


class Theirs:
    """A kernel through Jupyter Enterprise Gateway: REST to start it, then one websocket that stays open."""

    def __init__(self, way: setup.Way, settings: dict[str, str], loop: asyncio.Runner) -> None:
        self.name = f"JEG {way.name}"
        self.times = Times()
        address = service_address(way.deployment, setup.NAMESPACE)
        self._kernels = Kernels(address, setup.PORT, setup.TOKEN, settings, way.quick)
        self._loop = loop
        self._kernel = ""
        self._channels: Channels | None = None

    def cold(self) -> None:
        self._loop.run(self._cold())
        self.end()

    def begin(self) -> None:
        self._loop.run(self._begin())

    def calls(self, count: int) -> None:
        self._loop.run(self._calls(count))

    def end(self) -> None:
        if not self._kernel:
            return
        self._loop.run(self._end())
        which = ("pod", "-n", setup.NAMESPACE, "-l", f"kernel_id={self._kernel}")
        kubectl.must("wait", *which, "--for=delete", "--timeout=60s")
        self._kernel = ""

    def close(self) -> None:
        """Lets go of its connections; the kernel ends with the namespace."""
        self._loop.run(self._kernels.close())

    async def _cold(self) -> None:
        await self._kernels.open()
        begun = time.perf_counter()
        await self._start()
        self.times.opened.append(time.perf_counter() - begun)
        answer = await self._connected.execute(CODE)
        assert answer.text == "2", answer
        self.times.cold.append(answer.result_at - begun)
        self.times.cold_done.append(answer.done_at - begun)

    async def _begin(self) -> None:
        await self._kernels.open()
        await self._start()
        await self._connected.execute(CODE)

    async def _calls(self, count: int) -> None:
        for _ in range(count):
            begun = time.perf_counter()
            answer = await self._connected.execute(CODE)
            assert answer.text == "2", answer
            self.times.heard.append(answer.result_at - begun)
            self.times.warm.append(answer.done_at - begun)

    async def _end(self) -> None:
        if self._channels is not None:
            await self._channels.close()
            self._channels = None
        await self._kernels.end(self._kernel)
        await self._kernels.close()

    async def _start(self) -> None:
        self._kernel = await self._kernels.start(setup.KERNELSPEC)
        self._channels = await self._kernels.connect(self._kernel)

    @property
    def _connected(self) -> Channels:
        assert self._channels is not None
        return self._channels


def service_address(name: str, namespace: str) -> str:
    address: str = kubectl.get("service", name, "-n", namespace)["spec"]["clusterIP"]
    return address


def quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def measure(contenders: list[Contender], rounds: int) -> None:
    """Fills the contenders' times; whoever goes first changes from round to round."""
    for number in range(rounds + 1):
        for place in range(len(contenders)):
            contenders[(number + place) % len(contenders)].cold()
        if number == 0:
            # The first start of each finds files that nobody has read yet.
            for one in contenders:
                one.times = Times()
        print(f"  cold, {number} of {rounds}", file=sys.stderr, flush=True)
    for one in contenders:
        one.begin()
    for _ in range(CALLS // TURN):
        for one in contenders:
            one.calls(TURN)
    for one in contenders:
        one.end()


def report(ours: Times, theirs: dict[str, Times]) -> bool:
    """Prints the table, theirs also as multiples of ours; whether ours is faster in both."""
    lines: list[tuple[str, Callable[[Times], list[float]], int]] = [
        ("cold: asked → can be spoken to", lambda t: t.opened, 50),
        ("cold: asked → result of 1+1", lambda t: t.cold, 50),
        ("cold: asked → result of 1+1", lambda t: t.cold, 90),
        ("  until reply and idle too", lambda t: t.cold_done, 50),
        ("1+1 on a live kernel, whole answer", lambda t: t.warm, 50),
        ("1+1 on a live kernel, whole answer", lambda t: t.warm, 95),
        ("1+1 on a live kernel, whole answer", lambda t: t.warm, 99),
        ("  until the result's message alone", lambda t: t.heard, 50),
        ("  of it in the engine, by its clock", lambda t: t.inside, 50),
    ]
    print(f"{'milliseconds':<42} {'ours':>8}" + "".join(f" {name:>12}  ratio" for name in theirs))
    for what, part, percent in lines:
        cells = [_cell(part(ours), percent, 8)]
        for times in theirs.values():
            cells.append(_cell(part(times), percent, 12) + _ratio(part(times), part(ours), percent))
        print(f"{f'{what}, p{percent}':<42} " + " ".join(cells))
    faster = []
    for what, part in (("cold", lambda t: t.cold), ("round trip", lambda t: t.warm)):
        best = min(quantile(part(times), 50) for times in theirs.values())
        ratio = quantile(part(ours), 50) / best
        faster.append(ratio < 1)
        print(f"{what}: ours takes {ratio:.2f} of their better p50, goal < 1{'' if ratio < 1 else '  MISSED'}")
    return all(faster)


def _cell(values: list[float], percent: int, width: int) -> str:
    return f"{quantile(values, percent) * 1000:>{width}.1f}" if values else f"{'-':>{width}}"


def _ratio(values: list[float], base: list[float], percent: int) -> str:
    return f" {quantile(values, percent) / quantile(base, percent):>5.2f}×" if values and base else " " * 7


def run(release: Installation, engine: dict[str, Any], made: setup.Images, rounds: int) -> bool:
    """Installs theirs, measures, removes it; whether ours is faster in both."""
    settings = setup.kernel_settings(made.kernel, engine["defaultResources"])
    address = service_address(f"{RELEASE}-gateway", release.namespace)
    print(f"engine image {engine['image']}, {rounds} cold rounds, {CALLS} calls", flush=True)
    with asyncio.Runner() as loop:
        ours = Ours(address, release)
        theirs: list[Theirs] = []
        try:
            setup.install(made.gateway)
            theirs += [Theirs(way, settings, loop) for way in setup.WAYS]
            measure([ours, *theirs], rounds)
        except Exception:
            print(setup.logs(), file=sys.stderr)
            raise
        finally:
            for one in theirs:
                one.close()
            setup.remove()
            ours.end()
        return report(ours.times, {one.name: one.times for one in theirs})


def main(arguments: argparse.Namespace) -> int:
    """In the node's network. Builds nothing: the registries cannot be reached from there."""
    if arguments.release:
        clean.end_on_signals()
        return 0 if _measured(installed(arguments.release), arguments.rounds) else 1
    with clean.release("canary=false") as release:
        return 0 if _measured(release, arguments.rounds) else 1


def _measured(release: Installation, rounds: int) -> bool:
    engine = kubectl.get("engineconnplugin", PLUGIN)["spec"]
    return run(release, engine, setup.build(engine["image"]), rounds)


def prepare(arguments: argparse.Namespace) -> None:
    """The cluster and all images."""
    if not tools.is_up():
        tools.up()
    if arguments.release:
        setup.build(kubectl.get("engineconnplugin", PLUGIN)["spec"]["image"])
    else:
        setup.build(tools.images()["engine-python"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.jeg", description="Jupyter Enterprise Gateway beside ours.")
    which = "measure the release in this namespace and leave it; otherwise one is installed and removed"
    parser.add_argument("--release", metavar="NAMESPACE", help=which)
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"cold starts of each ({ROUNDS})")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not 2 <= asked.rounds <= 50:
        parser.error("--rounds must be from 2 to 50")
    if asked.inside:
        sys.exit(main(asked))
    if tools.backend() != "node":
        parser.error("the images are built for the node built from source: set CLUSTER=node")
    prepare(asked)
    sys.exit(clean.run_inside("bench.jeg", ["--inside", *sys.argv[1:]], seconds=LIMIT_SECONDS))
