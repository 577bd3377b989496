"""`python -m bench.floods.attacker NAME SETTINGS`: one attack, in a process of its own; prints what came back as JSON.

Must not measure the victims.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os

from bench import arguments
from bench.floods.attack import Context, context_of, run
from bench.floods.table import FLOODS


def main(name: str, context: Context) -> None:
    """Attack for as long as the settings say."""
    os.nice(10)  # attackers are other machines: they take no processor time from the victims
    (flood,) = [flood for flood in FLOODS if flood.name == name]

    async def attack() -> None:
        await run(flood.attack, context)
        print(json.dumps({"came": dict(context.came)}), flush=True)
        os._exit(0)  # its connections go as those of a killed process

    asyncio.run(attack())


def _context(word: str) -> Context:
    try:
        return context_of(word)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise argparse.ArgumentTypeError(f"these are no settings of an attack: {error!r}") from None


if __name__ == "__main__":
    parser = arguments.internal("bench.floods.attacker", __doc__)
    parser.add_argument("name", metavar="NAME", choices=[flood.name for flood in FLOODS], help="which attack")
    parser.add_argument("settings", metavar="SETTINGS", type=_context, help="JSON: where everything listens")
    asked = parser.parse_args()
    main(asked.name, asked.settings)
