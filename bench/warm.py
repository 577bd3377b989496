"""`python -m bench.warm`: how long an engine takes that a warm pool has ready, against floors of the same run.

Runs itself inside the node's network namespace, as `python -m bench` does. Every loop is bounded. It removes the
release that the cluster has, and its own namespaces at its end. Prints a table, where the time of a claim went, and the
phases of the last claim; exit code 1 where a goal is missed. `--json FILE` keeps every sample (`document`). Must not
judge by a figure of another run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bench import arguments, clean
from bench.__main__ import raw_pods, service_address
from bench.clean import NAMESPACE
from bench.figures.table import Table
from bench.processes import cpu
from linkis_ecm.api.paths import BASE, PREFIX
from linkis_ecm.engine.times import parse_time
from tools.cluster import tools
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import RELEASE, engines_of
from tools.testkit.cluster.warm_pods import claimable

ENGINES = engines_of(NAMESPACE)
ENGINE_TYPE = "python"
# As many as are told at a time: a pool of 8 for one claim after the other, 40 for many at once.
SMALL, LARGE = 8, 40
ONE_BY_ONE = 20
# Without a pool, and by askEngineConn of an engine that is free.
COLD_STARTS, REUSES = 10, 20
RATE, RATE_SECONDS = 10, 4
FILL_SECONDS = 120.0
# So small that a node of two cores has room for twice LARGE; a claim needs no resize then.
SIZE = {"cpu": "10m", "memory": "192Mi"}
TOKEN_HEADER, USER_HEADER = "Token-Code", "Token-User"
ENGINECONNS = f"/apis/linkis.apache.org/v1alpha1/namespaces/{ENGINES}/engineconns"
# Without the canary, whose engines are nobody's claims.
SETTINGS = ("canary=false",)
# Of the engine that is reused; and how many other users there are: each comes once for a whole pool.
OWNER, USERS = "hadoop", LARGE
# Of no other engine here: askEngineConn gives out an engine of the same creator alone.
LABELS = {"engineType": ENGINE_TYPE, "userCreator": f"{OWNER}-reuse"}
# Where the time of a claim goes: each hop ends with a moment, and begins with the moment before it. `posted`, `made`
# and `answered` are the client's, by its call and its watch; the others are the operator's, of status.startup. All of
# them are of one machine's clock.
HOPS = (
    ("made", "POST sent → its watch shows the EngineConn"),
    ("accepted", "EngineConn seen → the operator's first pass begins"),
    ("claimed", "first pass → the pod is the engine's (policies read, pod patched)"),
    ("ready", "pod claimed → the agent's first report as the engine's"),
    ("answered", "first report → the POST is answered (status written, gateway's watch)"),
)
FIRST = "posted"


def p(values: list[float], percent: int) -> float:
    """A percentile of seconds, in milliseconds."""
    if percent == 50:
        return statistics.median(values) * 1000
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] * 1000


def hops(claims: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Each hop's p50 and p90 in milliseconds, of claims that have all moments of HOPS (Unix time)."""
    found, before = [], FIRST
    for moment, words in HOPS:
        took = [claim[moment] - claim[before] for claim in claims]
        found.append({"hop": words, "ms": round(p(took, 50), 2), "p90": round(p(took, 90), 2)})
        before = moment
    return found


def document(
    samples: Mapping[str, Sequence[float]], traced: Sequence[Mapping[str, float]], processors: Mapping[str, float]
) -> dict[str, Any]:
    """What `--json` writes: seconds of each sample by what was measured, and the hops of the claims that were traced,
    with the processor time of each process in ms (`cpu`).

    `raw`, `cold`, `warm` and `reuse` are what the chart shows; `warm` is by REST, as `cold` and `reuse` are.
    """
    return {
        **{name: [round(one, 5) for one in values] for name, values in samples.items()},
        "hops": hops(traced),
        "cpu": processors,
    }


def _is_idle(engine: dict[str, Any]) -> bool:
    return bool(engine.get("status", {}).get("engineState") == "Idle")


class Seen:
    """What a watch has shown, each with the time (Unix) at which it came."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[tuple[float, dict[str, Any]]] = asyncio.Queue()

    async def read(self, lines: aiohttp.StreamReader) -> None:
        """Until cancelled."""
        async for line in lines:
            self._events.put_nowait((time.time(), json.loads(line)["object"]))

    async def next(self) -> tuple[float, dict[str, Any]]:
        """The next object; waits for it no longer than a start may take."""
        async with asyncio.timeout(FILL_SECONDS):
            return await self._events.get()

    def forget(self) -> None:
        """What came until now is of other claims."""
        while not self._events.empty():
            self._events.get_nowait()


class Claims:
    """Engines by REST and by the API server, over connections that are kept."""

    def __init__(self, session: aiohttp.ClientSession, gateway: str, token: str, api: str) -> None:
        self._session = session
        self._url = f"http://{gateway}:9102{BASE}"
        self._linkis = f"http://{gateway}:9102{PREFIX}/linkisManager"
        self._token = token
        self._api = api
        # One user takes a pool's pods no faster than `engine.warm.user_rate` has it; the benchmark is many.
        self._users = itertools.cycle(f"bench-{number}" for number in range(USERS))
        self._owners: dict[str, str] = {}
        # status.startup of each engine that the watch saw ready.
        self.starts: list[dict[str, Any]] = []

    async def _post(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """In the name of the engine's owner, where the body names an engine."""
        user = self._owners.get(body.get("engineId") or body.get("ticketId", ""), OWNER)
        return (await self._message(f"{self._url}/{method}", body, user))[0]

    async def _message(self, url: str, body: dict[str, Any], user: str = OWNER) -> tuple[dict[str, Any], str]:
        """The answer's data and message."""
        method = url.rpartition("/")[2]
        headers = {TOKEN_HEADER: self._token, USER_HEADER: user}
        async with self._session.post(url, json=body, headers=headers) as answer:
            told = await answer.json()
        if told["status"] != 0:
            raise SystemExit(f"{method} failed: {told['message']}")
        data: dict[str, Any] = told["data"]
        return data, str(told["message"])

    async def create(self) -> tuple[str, float]:
        """The ticket of an engine made by REST, and the seconds until the answer that says it is ready."""
        ticket = str(uuid.uuid4())
        self._owners[ticket] = next(self._users)
        begun = time.perf_counter()
        await self._post("createEngineConnection", {"engineType": "python", "timeoutSeconds": 80, "ticketId": ticket})
        return ticket, time.perf_counter() - begun

    async def first_result(self) -> tuple[str, float]:
        """The same with the result of 1+1."""
        begun = time.perf_counter()
        ticket, _ = await self.create()
        result = await self._post("executeCode", {"engineId": ticket, "code": "1+1", "runType": "python"})
        took = time.perf_counter() - begun
        if result["outputs"][0]["text"] != "2":
            raise SystemExit(f"1+1 is not 2: {result}")
        return ticket, took

    async def ask(self) -> tuple[str, float]:
        """An engine by askEngineConn, given back afterwards; the answer's message, and the seconds until it."""
        begun = time.perf_counter()
        asked = {"labels": LABELS, "timeOut": 80_000}
        data, message = await self._message(f"{self._linkis}/askEngineConn", asked)
        took = time.perf_counter() - begun
        engine = data["engine"]
        given = {"engineId": engine["ticketId"], "command": "unlock", "parameters": {"lock": engine["lock"]}}
        await self._post("sendEngineCommand", given)
        return message, took

    async def traced(self, seen: Seen) -> dict[str, float]:
        """The moments of one claim by REST, as HOPS names them."""
        seen.forget()
        moments = {FIRST: time.time()}
        ticket, seconds = await self.create()
        moments["answered"] = moments[FIRST] + seconds
        startup: dict[str, Any] = {}
        while not startup:
            at, found = await seen.next()
            if found["spec"].get("ticketId") == ticket:
                moments.setdefault("made", at)
                startup = found.get("status", {}).get("startup", {}) if _is_idle(found) else {}
        for phase in ("accepted", "claimed", "ready"):
            moment = parse_time(startup.get(phase))
            if moment is None:
                raise SystemExit(f"a claim that is traced was none: {startup}")
            moments[phase] = moment.timestamp()
        return moments

    async def apply(self, seen: Seen) -> tuple[str, float]:
        """The name of an engine made at the API server, and the seconds until a watch says that it is Idle."""
        name = f"warm-{uuid.uuid4().hex[:8]}"
        body = {
            "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
            "spec": {"engineType": "python", "user": next(self._users)},
        }  # fmt: skip
        seen.forget()
        begun = time.time()
        async with self._session.post(f"{self._api}{ENGINECONNS}", json=body) as answer:
            if answer.status != 201:
                raise SystemExit(f"the API server answered {answer.status}: {await answer.text()}")
        while True:
            at, found = await seen.next()
            if found["metadata"]["name"] == name and _is_idle(found):
                self.starts.append(found["status"].get("startup", {}))
                return name, at - begun

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Seen]:
        """Events of all engines from now on, read as they come."""
        async with self._session.get(f"{self._api}{ENGINECONNS}") as answer:
            version = (await answer.json())["metadata"]["resourceVersion"]
        query = {"watch": "1", "resourceVersion": version}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
        async with self._session.get(f"{self._api}{ENGINECONNS}", params=query, timeout=timeout) as answer:
            seen = Seen()
            reading = asyncio.create_task(seen.read(answer.content))
            try:
                yield seen
            finally:
                reading.cancel()


def plugin() -> str:
    """The name of the chart's entry for Python."""
    found = kubectl.get("engineconnplugins")["items"]
    return next(str(one["metadata"]["name"]) for one in found if one["spec"]["engineType"] == ENGINE_TYPE)


def pool(size: int) -> None:
    """Set the pool's size."""
    change = {"spec": {"warmPool": {"size": size, "cap": 3 * LARGE}, "defaultResources": SIZE}}
    kubectl.must("patch", "engineconnplugin", plugin(), "--type=merge", "-p", json.dumps(change))


async def emptied() -> None:
    """Wait until no member is left."""
    selector = f"linkis.apache.org/warm-pool={plugin()}"
    arguments = ("wait", "pods", "-n", ENGINES, "-l", selector, "--for=delete", "--timeout=60s")
    await asyncio.to_thread(kubectl.must, *arguments)


async def filled(size: int) -> None:
    """Wait until so many members may be claimed."""
    deadline = time.monotonic() + FILL_SECONDS
    selector = f"linkis.apache.org/warm-pool={plugin()}"
    while True:
        found = await asyncio.to_thread(kubectl.get, "pods", "-n", ENGINES, "-l", selector)
        ready = sum(map(claimable, found["items"]))
        if ready >= size:
            return
        if time.monotonic() > deadline:
            status = await asyncio.to_thread(kubectl.get, "engineconnplugin", plugin())
            raise SystemExit(f"{ready} of {size} members after {FILL_SECONDS:g} s: {status.get('status')}")
        await asyncio.sleep(0.3)


async def settled() -> None:
    """Wait until no engine is left: ended ones hold the processor while they go."""
    await asyncio.to_thread(kubectl.must, "delete", "ec", "--all", "-n", ENGINES, "--timeout=120s")


@dataclass(slots=True)
class Traced:
    """Claims of which more is known: their moments, and the seconds that each process ran during the claim."""

    moments: list[dict[str, float]] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)

    def processors(self) -> dict[str, float]:
        """Milliseconds of processor time, p50, by process."""
        names = self.cpu[0] if self.cpu else {}
        return {name: round(p([one[name] for one in self.cpu], 50), 2) for name in names}


async def one_by_one(claims: Claims) -> tuple[dict[str, list[float]], Traced]:
    """Each way of asking in turn, each claim with a full pool and nothing else going on; and the traced claims."""
    took: dict[str, list[float]] = {"warm": [], "watch": [], "result": []}
    traced, since = Traced(), cpu.meter()
    async with claims.watch() as seen:
        for number in range(ONE_BY_ONE):
            await filled(SMALL)
            since()
            traced.moments.append(await claims.traced(seen))
            traced.cpu.append(since())
            for way, seconds_of in took.items():
                await filled(SMALL)
                if way == "watch":
                    _, seconds = await claims.apply(seen)
                elif way == "warm":
                    _, seconds = await claims.create()
                else:
                    _, seconds = await claims.first_result()
                seconds_of.append(seconds)
            if number % 5 == 4:
                await settled()
    return took, traced


async def cold(claims: Claims) -> list[float]:
    """Without a pool, by REST, one at a time."""
    pool(0)
    await emptied()
    took = []
    for number in range(COLD_STARTS):
        took.append((await claims.create())[1])
        if number % 5 == 4:
            await settled()
    return took


async def reuse(claims: Claims) -> list[float]:
    """askEngineConn while an engine of these labels is free, which the first call has made."""
    await claims.ask()
    took = []
    for _ in range(REUSES):
        message, seconds = await claims.ask()
        if message != "reuse engineConn ended.":
            raise SystemExit(f"askEngineConn did not reuse the free engine: {message}")
        took.append(seconds)
    return took


async def at_a_rate(claims: Claims) -> list[float]:
    """RATE claims a second for RATE_SECONDS, whether earlier ones are answered or not."""
    tasks = []
    for _ in range(RATE * RATE_SECONDS):
        tasks.append(asyncio.create_task(claims.create()))
        await asyncio.sleep(1 / RATE)
    return [seconds for _, seconds in await asyncio.gather(*tasks)]


async def at_once(claims: Claims) -> list[float]:
    """LARGE claims at the same time, from a pool of as many."""
    return [seconds for _, seconds in await asyncio.gather(*(claims.create() for _ in range(LARGE)))]


def kinds() -> dict[str, int]:
    """How the engines that are there started."""
    found: dict[str, int] = {}
    for one in kubectl.get("ec", "-n", ENGINES)["items"]:
        kind = one.get("status", {}).get("startup", {}).get("kind", "?")
        found[kind] = found.get(kind, 0) + 1
    return found


def row(table: Table, what: str, values: list[float], percent: int, most: float | None = None) -> None:
    measured = p(values, percent)
    goal = f"≤ {most:.0f} ms" if most is not None else ""
    table.tell(f"{what}, p{percent}", f"{measured:.0f} ms", goal, met=most is None or measured <= most)


async def measure(token: str, api: str, raw_samples: list[float], table: Table) -> dict[str, Any]:
    """Every measurement in turn; prints, and returns the document."""
    raw = statistics.median(raw_samples)
    samples = {"raw": raw_samples}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        claims = Claims(session, service_address(f"{RELEASE}-gateway"), token, api)
        samples["cold"] = await cold(claims)
        row(table, "without a pool: create → Idle by REST", samples["cold"], 50)
        row(table, "without a pool: create → Idle by REST", samples["cold"], 90)
        pool(SMALL)
        await filled(SMALL)
        await claims.first_result()  # connections, caches
        took, traced = await one_by_one(claims)
        samples |= took
        seen = [start.get("kind") for start in claims.starts]
        warm = seen.count("warm")
        table.tell(
            "claims seen by the watch that were warm", f"{warm} of {len(seen)}", "all", met=0 < warm == len(seen)
        )
        for way, what in (("warm", "create → Idle by REST"), ("watch", "create → Idle by create and watch")):
            row(table, what, took[way], 50, 0.07 * raw * 1000)
            row(table, what, took[way], 90, 0.12 * raw * 1000)
        row(table, "create → result of 1+1", took["result"], 50, 40)
        row(table, "create → result of 1+1", took["result"], 95, 130)
        for one in hops(traced.moments):
            table.tell(f"  {one['hop']}", f"{one['ms']:.1f} ms", f"p90 {one['p90']:.1f}")
        for name, millis in traced.processors().items():
            table.tell(f"  processor time of a claim, {name}, p50", f"{millis:.1f} ms")
        print(json.dumps(claims.starts[-1], indent=1))
        samples["reuse"] = await reuse(claims)
        row(table, "askEngineConn of a free engine", samples["reuse"], 50)
        row(table, "askEngineConn of a free engine", samples["reuse"], 90)
        for what, run, goals in (
            (f"{RATE} claims a second", at_a_rate, ((50, None), (99, 250.0))),
            (f"{LARGE} at once", at_once, ((50, 300.0), (99, 700.0))),
        ):
            await settled()
            pool(LARGE)
            await filled(LARGE)
            values = samples[run.__name__] = await run(claims)
            started = await asyncio.to_thread(kinds)
            for percent, most in goals:
                row(table, what, values, percent, most)
            table.tell(f"{what}: how they started", str(started))
    return document(samples, traced.moments, traced.processors())


def main(kept: Path | None) -> int:
    """Measure on a release of its own; `kept` gets the document."""
    tags = tools.images()
    table = Table(46, 16, 12)
    with clean.release(*SETTINGS) as release, clean.api_proxy() as api:
        raw = raw_pods(tags["engine-python"])
        table.tell("raw pod, create → Ready, p50", f"{p(raw, 50):.0f} ms")
        made = asyncio.run(measure(release.token, api, raw, table))
        if kept is not None:
            kept.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    return table.finish()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.warm", description=__doc__)
    parser.add_argument("--inside", action="store_true", help="it runs in the node's network namespace already")
    parser.add_argument("--json", type=arguments.written_file, metavar="FILE", help="keep every sample there")
    given = parser.parse_args()
    if given.inside:
        sys.exit(main(given.json))
    tools.up()
    kept = [] if given.json is None else ["--json", str(given.json.absolute())]
    sys.exit(clean.run_inside("bench.warm", ["--inside", *kept], seconds=1500))
