"""`python -m bench.floods.attacker NAME SETTINGS`: one attack, in a process of its own; prints what came back as JSON.

Must not measure the victims.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from bench.floods.attack import context_of, run
from bench.floods.table import FLOODS


def main(name: str, settings: str) -> None:
    """Attack for as long as the settings say."""
    os.nice(10)  # attackers are other machines: they take no processor time from the victims
    (flood,) = [flood for flood in FLOODS if flood.name == name]
    context = context_of(settings)

    async def attack() -> None:
        await run(flood.attack, context)
        print(json.dumps({"came": dict(context.came)}), flush=True)
        os._exit(0)  # its connections go as those of a killed process

    asyncio.run(attack())


if __name__ == "__main__":
    main(*sys.argv[1:])
