"""`python -m bench.burst`: a burst of 300 engines on the simulated cluster, and how late their rows are.

The API server, the node and the agents are the simulation's, in real time; operator, store and database are real. For
each change of a pod's state (its agent became ready, its container ended) the time until the row says so is measured
from outside, by looking into the database.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

from sqlalchemy import Engine, select

from bench.clean import end_on_signals, scratch
from bench.figures.table import Table
from linkis_ecm.store.database import open_engine
from linkis_ecm.store.linkis import record
from linkis_ecm.store.migrate import upgrade
from linkis_ecm.store.sink import Sink
from tools.testkit.simulation.world import Script, World

ENGINES = 300
GOAL_SECONDS = 1.0
LOOK_SECONDS = 0.01
PATIENCE = 60.0


class Lateness:
    """When each state of each ticket happened, and when the database had it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.happened: dict[tuple[str, str], float] = {}
        self.seen: dict[tuple[str, str], float] = {}

    async def look(self) -> None:
        while True:
            await asyncio.to_thread(self._once)
            await asyncio.sleep(LOOK_SECONDS)

    def _once(self) -> None:
        with self._engine.connect() as connection:
            rows = connection.execute(select(record.c.ticket_id, record.c.status)).all()
        now = time.monotonic()
        for ticket, status in rows:
            self.seen.setdefault((ticket, status), now)

    def seconds(self) -> list[float]:
        """For each change its row's lateness; raises LookupError where a row never came."""
        missing = [key for key in self.happened if key not in self.seen]
        if missing:
            raise LookupError(f"{len(missing)} changes never reached the database, such as {missing[0]}")
        return [max(0.0, self.seen[key] - at) for key, at in self.happened.items()]


async def measure(url: str) -> list[float]:
    """All lateness of one burst: ENGINES starts at once, then as many ends at once."""
    upgrade(url)
    sink = Sink(open_engine(url))
    sink.start()
    world = World()
    world.rows = sink  # type: ignore[assignment]
    world.install_plugin()
    lateness = Lateness(open_engine(url))
    looking = asyncio.create_task(lateness.look())
    try:
        await world.start()
        uids = [world.create(f"e{n}", Script(start=0.2, ready=0.3)) for n in range(ENGINES)]
        deadline = time.monotonic() + PATIENCE
        ready: set[str] = set()
        while len(ready) < ENGINES and time.monotonic() < deadline:
            for agent in world.agents.values():
                ticket = agent.env["ECM_TICKET_ID"]
                if agent.state == "Idle" and ticket not in ready:
                    ready.add(ticket)
                    lateness.happened[ticket, "Idle"] = time.monotonic()
            await asyncio.sleep(0.002)
        await asyncio.sleep(3)
        for agent in list(world.agents.values()):
            lateness.happened[agent.env["ECM_TICKET_ID"], "Failed"] = time.monotonic()
            world.exit_pod(agent.pod, 137, "OOMKilled")
        deadline = time.monotonic() + PATIENCE
        while any((uid, "Failed") not in lateness.seen for uid in uids) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return lateness.seconds()
    finally:
        looking.cancel()
        await world.close()
        sink.close(5)


def main(arguments: list[str] | None = None) -> int:
    about = (__doc__ or "").splitlines()[0]
    argparse.ArgumentParser(prog="python -m bench.burst", description=about).parse_args(arguments)
    end_on_signals()
    with scratch() as folder:
        late = asyncio.run(measure(f"sqlite:///{folder / 'burst.sqlite3'}"))
    p99 = statistics.quantiles(late, n=100)[98]
    table = Table(46, 12, 10)
    table.tell(f"{ENGINES} engines, changes of pods", str(len(late)))
    table.tell("rows late by, p50", f"{statistics.median(late) * 1000:.0f} ms")
    table.judge("row-lag", "pod → row in a burst, p99", p99 * 1000, "ms", at_most=GOAL_SECONDS * 1000)
    table.tell("  at most", f"{max(late) * 1000:.0f} ms")
    return table.finish()


if __name__ == "__main__":
    sys.exit(main())
