"""A gateway in a process of its own over real agents, all on loopback, for benchmarks that need no cluster.

`python -m bench.processes.loopback SETTINGS` is that process: SETTINGS is JSON, {"addresses": […], "folder": "…"}. The
cluster is the tests' one in memory; gateway, journal, agents and kernels are the real ones. Must not measure.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import arguments
from linkis_ecm.gateway.settings import Settings
from tools.testkit.agents.keys import agent_key_of
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.harness import EM, KEY, TOKEN, Harness, engine_item
from tools.testkit.gateway.stores import store_in
from tools.testkit.servers.serving import Server, serving_by, until_let_go

HEADERS = {"Token-Code": TOKEN, "Token-User": "alice", "Content-Type": "application/json"}


def name_of(number: int) -> str:
    """The EngineConn's name of agent `number`."""
    return f"python-alice-{number}"


def engine_id(number: int) -> str:
    """As calls name it."""
    return f"linkis/{name_of(number)}"


@contextmanager
def agents(count: int, folder: Path, kind: type[AgentProcess] = AgentProcess) -> Iterator[list[AgentProcess]]:
    """So many agents with their kernels, each ready."""
    with ExitStack() as stack:
        started = []
        for number in range(count):
            place = folder / f"agent-{number}"
            place.mkdir()
            uid = engine_item(name=name_of(number))["metadata"]["uid"]
            agent = kind(place, wait=False, ECM_AGENT_KEY=agent_key_of(KEY, uid, 0))
            stack.callback(agent.close)
            started.append(agent)
        for agent in started:
            agent.wait_until_listening()
            agent.wait_for_state("Idle")
        yield started


def gateway(
    addresses: list[str], folder: Path, command: Sequence[str] = ("-m", "bench.processes.loopback")
) -> AbstractContextManager[Server]:
    """A gateway whose engines have these addresses."""
    return serving_by(command, json.dumps({"addresses": addresses, "folder": str(folder)}))


async def serve(told: dict[str, Any]) -> None:
    """The gateway's process, until it is let go."""
    folder = Path(told["folder"])
    tokens = folder / "tokens.json"
    tokens.write_text(json.dumps({TOKEN: {"users": ["*"]}}))
    settings = Settings(
        namespace="linkis",
        instance=EM,
        tokens_file=str(tokens),
        token_key=KEY,
        user_per_second=0,
        user_at_once=0,
        user_streams=1000,
        agent_port=0,
    )
    with store_in(folder) as store:
        harness = Harness(settings, store.find, store.parts)
        await harness.start()
        for number, address in enumerate(told["addresses"]):
            harness.engine(name=name_of(number), status={"address": address})
        await until_let_go(harness.port)
        await harness.stop()


if __name__ == "__main__":
    parser = arguments.internal("bench.processes.loopback", __doc__)
    parser.add_argument("settings", metavar="SETTINGS", type=arguments.settings("addresses", "folder"), help="JSON")
    asyncio.run(serve(parser.parse_args().settings))
