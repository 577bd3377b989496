"""`python -m bench floods [NAME …] [--seconds N]`: each flood against real processes, and what it cost, as a table.

For each: the highest memory of gateway, operator and the user's agent, the longest wait for /healthz of gateway and
operator, and what a user saw who lists engines and runs code meanwhile. Each time stands twice: as it was, and
without the time in which the processes asked had no processor, by which it is judged. Exits 1 where a bound was broken.
Runs on loopback alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import arguments
from bench.floods.attack import Flood, settings_of
from bench.floods.table import FLOODS
from tools.loopback.installation import Engine, Installation, installation
from tools.loopback.watch import Seen, Times, tracebacks, watching

MIB = 1 << 20
# The chart's default limits (helm/linkis-ecm/values.yaml), and what the issue promises a user.
GATEWAY_MAX, OPERATOR_MAX = 512 * MIB, 512 * MIB
USER_MAX = 1.0
SECONDS = 15.0
# After this silence the operator asks an agent itself (controller/operator.py).
SILENT_SECONDS = 31.0
# For an attacker's process to start and to end.
ATTACKER_SECONDS = 60.0
WIDTHS = (18, 50, 8, 8, 8, 12, 12, 12, 9, 7)
HEADS = ("flood", "what", "gateway", "operator", "agent", "health g", "health o", "user", "user p50", "failed")


@dataclass(frozen=True)
class Result:
    """One flood's row."""

    flood: Flood
    seen: Seen
    came: dict[str, int]
    tracebacks: tuple[str, ...]
    # The gateway that was attacked: one of two.
    gateway: str

    @property
    def broken(self) -> list[str]:
        """The bounds that did not hold, in words."""
        seen, found = self.seen, []
        if seen.peaks[self.gateway] > GATEWAY_MAX:
            found.append("the gateway's memory")
        if seen.peaks["operator"] > OPERATOR_MAX:
            found.append("the operator's memory")
        if seen.user.longest_own >= USER_MAX:
            found.append("a user's call took over 1 s")
        if seen.user.failed:
            found.append(f"{len(seen.user.failed)} calls of a user failed: {seen.user.failed[0]}")
        if not seen.user.took:
            found.append("no call of a user ended")
        if self.tracebacks:
            found.append(f"{len(self.tracebacks)} tracebacks: {self.tracebacks[0].splitlines()[-1]}")
        return found

    @property
    def cells(self) -> tuple[str, ...]:
        seen = self.seen
        return (
            self.flood.name, self.flood.about, *(f"{seen.peaks.get(n, 0) / MIB:.0f}" for n in self._processes),
            longest(seen.gateway_health), longest(seen.operator_health), longest(seen.user),
            f"{seen.user.median * 1000:.0f} ms", str(len(seen.user.failed)),
        )  # fmt: skip

    @property
    def _processes(self) -> tuple[str, str, str]:
        return self.gateway, "operator", "agent"


def longest(times: Times) -> str:
    """The longest time, and without waiting for a processor, in ms."""
    return f"{times.longest * 1000:.0f}/{times.longest_own * 1000:.0f}"


def line(cells: Sequence[str]) -> str:
    """One line of the table; texts stand left, numbers right."""
    found = [f"{cell:<{width}}" for cell, width in zip(cells[:2], WIDTHS[:2], strict=True)]
    return " ".join(found + [f"{cell:>{width}}" for cell, width in zip(cells[2:], WIDTHS[2:], strict=True)])


async def run_flood(made: Installation, flood: Flood, victim: Engine, own: Engine, seconds: float) -> Result:
    """One flood, watched. Raises where it could not be run."""
    hostile = [made.hostile(number) for number in range(1, flood.hostile + 1)]
    if flood.asked:
        await asyncio.sleep(SILENT_SECONDS)
    gateway = made.parts["tls" if flood.aim == "tls" else "gateway"]
    logs = {part.name: part.log.stat().st_size for part in made.parts.values()}
    told = settings_of(made, seconds=seconds, victim=victim, own=own, hostile=hostile)
    async with watching(made, victim, gateway) as seen:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.floods.attacker", flood.name, told,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(seconds + ATTACKER_SECONDS):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            raise RuntimeError(f"{flood.name} did not end within {seconds + ATTACKER_SECONDS:g} s") from None
    if process.returncode:
        raise RuntimeError(f"{flood.name} could not be run: {err.decode()[-2000:]}")
    found = [one for part in made.parts.values() for one in tracebacks(part.log, logs[part.name])[0]]
    return Result(flood, seen, json.loads(out)["came"], tuple(found), gateway.name)


async def run_floods(made: Installation, floods: Sequence[Flood], seconds: float) -> tuple[list[Result], int]:
    """All of them, each on healthy processes, and how many could not be run; prints as it goes."""
    results, not_run = [], 0
    for flood in floods:
        victim, own = made.ready("real-1", "alice"), made.ready("real-2", "mallory")
        try:
            result = await run_flood(made, flood, victim, own, seconds)
        except RuntimeError as error:
            not_run += 1
            print(f"{flood.name:<{WIDTHS[0]}} NOT RUN: {error}", flush=True)
            continue
        results.append(result)
        print(line(result.cells), flush=True)
        print(f"{'':<{WIDTHS[0]}} came: {json.dumps(result.came)}", flush=True)
        for words in result.broken:
            print(f"{'':<{WIDTHS[0]}} MISSED: {words}", flush=True)
        for part in made.parts.values():
            if not part.alive():
                raise RuntimeError(f"{part.name} ended by {flood.name}: {part.log.read_text()[-2000:]}")
        await settle(made)
    return results, not_run


async def settle(made: Installation) -> None:
    """Wait until what the flood left is gone: its calls, and hostile engines, which others need anew."""
    for number in range(1, 9):
        path = f"/apis/linkis.apache.org/v1alpha1/namespaces/engines/engineconns/hostile-{number}"
        if made.kube("GET", path)[0] == 200:
            made.kube("DELETE", path)
    await asyncio.sleep(1.0)


def markdown(results: Sequence[Result]) -> str:
    """The table as docs/security/testing.md has it."""
    heads = (
        "flood", "gateway MiB", "operator MiB", "agent MiB", "health of gateway ms", "of operator ms", "user ms",
        "user p50", "failed",
    )  # fmt: skip
    rows = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    rows += [f"| {' | '.join((result.cells[1], *result.cells[2:]))} |" for result in results]
    return "\n".join(rows)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench floods")
    parser.add_argument("names", nargs="*", metavar="NAME", help="floods to run; without any, all")
    parser.add_argument("--seconds", type=arguments.seconds, default=SECONDS, help="of each flood")
    parser.add_argument("--keep", type=arguments.new_folder, help="a folder in which logs stay")
    given = parser.parse_args(words)
    known = {flood.name: flood for flood in FLOODS}
    if unknown := set(given.names) - known.keys():
        parser.error(f"no such flood: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    floods = [known[name] for name in given.names] or list(FLOODS)
    with tempfile.TemporaryDirectory(prefix="ecm-floods-") as name:
        folder = given.keep or Path(name)
        began = time.monotonic()
        with installation(folder, tls=any(flood.aim == "tls" for flood in floods)) as made:
            print(line(HEADS), flush=True)
            results, not_run = asyncio.run(run_floods(made, floods, given.seconds))
    print(f"\n{markdown(results)}\n\n{len(results)} floods in {time.monotonic() - began:.0f} s", flush=True)
    return int(not_run > 0 or any(result.broken for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
