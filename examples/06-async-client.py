# ruff: noqa: T201
"""Shows: the asynchronous client. Three engines start at the same time, each runs code, and all end with their blocks.

Run: with the three variables of examples/README.md: python examples/06-async-client.py
"""

import asyncio

from linkis_ecm.client import AsyncEcmClient, text_of


async def square(client: AsyncEcmClient, number: int) -> str:
    """The square of a number, computed in an engine of its own."""
    async with client.engine("python", creator="example") as engine:
        return text_of(await engine.execute(f"print({number} ** 2)")).strip()


async def main() -> None:
    """Starts the engines side by side. Where one fails, the others are ended."""
    async with AsyncEcmClient() as client, asyncio.TaskGroup() as group:
        tasks = {number: group.create_task(square(client, number)) for number in (2, 3, 4)}
    for number, task in tasks.items():
        print(f"{number} squared is {task.result()}")


if __name__ == "__main__":
    asyncio.run(main())
