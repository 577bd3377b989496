"""`python -m tools.fuzz --minutes M --seed N`: fuzzes all ports of an installation on loopback, and says what it found.

Each finding is kept in a folder outside the checkout with its seed and input. Exits 1 where there is one. At the end
each process must still do its main job. Bounded in connections and rate.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tools.fuzz import agents, corpus
from tools.fuzz.corpus import Seed
from tools.fuzz.findings import Findings
from tools.fuzz.oracle import MIB, Oracle, ProcessEndedError
from tools.fuzz.ports import Port, fuzz
from tools.loopback.hostile_agent import hostile_agent
from tools.loopback.installation import Engine, Installation, installation
from tools.loopback.sockets import Target, send
from tools.loopback.watch import watching

# Seconds between two looks whether the engines are there: what is fuzzed may end them.
MEND_SECONDS = 3.0
# Seconds for the look at the main job at the end.
JOB_SECONDS = 4.0


@dataclass
class Engines:
    """The engines of the run, made anew where they were ended: two with real agents, two with hostile ones."""

    made: Installation
    findings: Findings
    real: list[Engine] = field(default_factory=list)
    hostile: list[Engine] = field(default_factory=list)
    replaced: int = -1

    def look(self) -> bool:
        """Make what is not there; whether something was made."""
        self.real[:] = [self.made.ready("real-1", "alice"), self.made.ready("real-2", "mallory")]
        hostile = [self._hostile(number) for number in (1, 2)]
        changed = [engine.pod_uid for engine in hostile] != [engine.pod_uid for engine in self.hostile]
        if changed:
            self.hostile[:] = hostile
            self.replaced += 1
        return changed

    def _hostile(self, number: int) -> Engine:
        known = next((one for one in self.hostile if one.name == f"hostile-{number}"), None)
        status = self.made.status(f"hostile-{number}")
        if known is not None and status.get("engineState") in ("Idle", "Busy", "Starting"):
            return known
        # The second one is told to the operator once, and then keeps silent: it is asked instead.
        return self.made.hostile(number)


async def run(made: Installation, seconds: float, seed: int, findings: Findings) -> int:
    """Fuzz for so long; the number of kinds of findings."""
    rng = random.Random(seed)
    engines = Engines(made, findings)
    await asyncio.to_thread(engines.look)
    oracle = Oracle(made, findings, [*engines.real, *engines.hostile])
    asked: Counter[str] = Counter()
    ports = all_ports(made, engines)
    schema = await start_schema(made, engines, seconds, seed, findings.folder)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                group.create_task(oracle.watch())
                group.create_task(keep_engines(engines, oracle, rng, asked))
                group.create_task(hostile_reports(engines, oracle, random.Random(rng.getrandbits(64))))
                for port in ports.values():
                    group.create_task(fuzz(port, oracle, random.Random(rng.getrandbits(64))))
    except* ProcessEndedError as ended:
        print(f"ended early: {ended.exceptions}", flush=True)
    out, err = await schema.communicate()
    told = json.loads(out.splitlines()[-1]) if out.strip() else {"failed": err.decode()[-2000:]}
    if schema.returncode:
        findings.add("schema", "the process failed", err.decode()[-3000:], b"")
    with contextlib.suppress(ProcessEndedError):
        oracle.look()
        await main_job(made, engines, findings)
    for name, port in ports.items():
        print(f"{name}: {sum(port.answers.values())} requests, answers {dict(port.answers.most_common())}")
    print(f"hostile agent: {sum(asked.values())} questions {dict(asked)}, engines replaced {engines.replaced} times")
    print(f"schemathesis: {told.get('operations', 0)} operations, answers {told.get('answers', told)}")
    print(f"peaks: { {name: f'{peak / MIB:.0f} MiB' for name, peak in oracle.peaks.items()} }")
    print(f"longest wait for /healthz: { {name: f'{took:.2f} s' for name, took in oracle.stalls.items()} }")
    kinds = Counter(findings.seen) + Counter(told.get("found", {}))
    for kind, count in kinds.most_common():
        print(f"{count:6d} × {kind}")
    print(f"{len(kinds)} findings, in {findings.folder}", flush=True)
    return len(kinds)


def all_ports(made: Installation, engines: Engines) -> dict[str, Port]:
    """Every port, with a login that counts and without."""
    here = made.address

    def at(port: int, *sources: int) -> list[Target]:
        return [Target("127.0.0.1", port, here(source)) for source in sources]

    def of_agent() -> list[Target]:
        host, _, port = engines.real[1].address.rpartition(":")
        return [Target(host, int(port), here(220)), Target(host, int(port), here(221))]

    def of_gateway(*users: str) -> Corpus:
        return Corpus(lambda: corpus.gateway([*engines.real, *engines.hostile], list(users)))

    return {
        "gateway": Port(
            "gateway", at(made.gateway.port, 200, 201), of_gateway("alice", "root"),
            login=True, workers=12,
        ),
        "gateway, nobody": Port(
            "gateway", at(made.gateway.port, 202, 203), of_gateway(""), login=False, workers=6,
        ),
        "operator": Port(
            "operator", at(made.operator.port, 204, 205), Corpus(lambda: corpus.operator(engines.hostile[0])),
            login=True,
        ),
        "operator's health": Port("health", at(made.health_port, 206), corpus.health, login=False, workers=2),
        "agent": Port("agent", of_agent(), Corpus(lambda: corpus.agent(engines.real[1])), login=True),
    }  # fmt: skip


class Corpus:
    """A corpus that is made again each few seconds, since engines are."""

    def __init__(self, make: Callable[[], list[Seed]]) -> None:
        self._make = make
        self._found: list[Seed] = []
        self._until = 0.0

    def __call__(self) -> list[Seed]:
        if time.monotonic() > self._until:
            self._found = self._make()
            self._until = time.monotonic() + MEND_SECONDS
        return self._found


async def keep_engines(engines: Engines, oracle: Oracle, rng: random.Random, asked: Counter[str]) -> None:
    """Hostile agents listen, for as long as their engines are the same; engines that are gone are made again."""
    while True:
        async with contextlib.AsyncExitStack() as stack:
            for engine in engines.hostile:
                behaviour = agents.replies(engine, rng, oracle.findings, asked)
                await stack.enter_async_context(hostile_agent(engine, behaviour))
            changed = False
            while not changed:
                await asyncio.sleep(MEND_SECONDS)
                try:
                    changed = await asyncio.to_thread(engines.look)
                except Exception as error:
                    # It was ended while it was looked at; at the end of the run one must be had.
                    print(f"an engine could not be had and is made again: {error!r}", flush=True)
            oracle.engines[:] = [*engines.real, *engines.hostile]


async def hostile_reports(engines: Engines, oracle: Oracle, rng: random.Random) -> None:
    """Mutated reports with the right key, of the first hostile engine."""
    while True:
        data = agents.reports(engines.hostile[0], rng)
        oracle.findings.sent("report", data)
        with contextlib.suppress(OSError, TimeoutError):
            target = Target("127.0.0.1", oracle.made.operator.port, oracle.made.address(210))
            got = await send(target, data, seconds=4)
            oracle.answer("operator", "report", data, got, login=True)
        await asyncio.sleep(0.06)  # under the 20 a second that one engine may send


async def start_schema(
    made: Installation, engines: Engines, seconds: float, seed: int, folder: Path
) -> asyncio.subprocess.Process:
    found = [*engines.real, *engines.hostile]
    told = {
        "url": f"http://127.0.0.1:{made.gateway.port}", "seconds": seconds, "seed": seed, "folder": str(folder),
        "engines": [f"engines/{engine.name}" for engine in found], "instances": [engine.instance for engine in found],
        "names": [text for engine in found for text in (engine.name, engine.uid, engine.key)],
    }  # fmt: skip
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.fuzz.schema", json.dumps(told), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def main_job(made: Installation, engines: Engines, findings: Findings) -> None:
    """Each process does what it is for: an engine is made and Idle, and its user lists it and runs code."""
    try:
        await asyncio.to_thread(partial(made.ready, "real-3", "alice"))
        engine = await asyncio.to_thread(partial(made.ready, "real-1", "alice"))
    except (TimeoutError, RuntimeError) as error:
        findings.add("main job", "no engine at the end", str(error))
        return
    async with watching(made, engine, made.gateway) as seen:
        await asyncio.sleep(JOB_SECONDS)
    if seen.user.failed or not seen.user.took:
        findings.add("main job", "a user's calls fail at the end", "\n".join(seen.user.failed[:20]))
    print(f"at the end a user's calls take {seen.user.median * 1000:.0f} ms, {len(seen.user.failed)} failed")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the folder of findings; by default one under the system's temporary")
    given = parser.parse_args(arguments)
    out = given.out or Path(tempfile.gettempdir()) / f"linkis-ecm-fuzz-{given.seed}"
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ecm-fuzz-") as name, installation(Path(name)) as made:
        print(f"seed {given.seed}, findings go to {out}", flush=True)
        os.nice(5)  # callers are other machines: they take no processor time from what they call
        count = asyncio.run(run(made, given.minutes * 60, given.seed, Findings(out, given.seed)))
        for part in made.parts.values():
            (out / f"{part.name}.log").write_bytes(part.log.read_bytes()[-(8 << 20) :])
    print(f"{time.monotonic() - began:.0f} s")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
