"""Pages of a big table, and the whole of it as Arrow beside a plain file over aiohttp's own file response."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from aiohttp import ClientSession

from bench import logs
from bench.figures.table import Table
from bench.hot.client import Caller
from tools.testkit.servers.serving import serving_by

ROWS, PAGE, PAGES, RUNS = 1_000_000, 1000, 40, 9
MIB = 1 << 20
CODE = f"""
import numpy, pandas
numbers = numpy.arange({ROWS})
pandas.DataFrame({{
    "a": numbers, "b": numbers * 7919 % 100_003, "c": numbers / 7, "d": numpy.sqrt(numbers),
    "e": numbers % 2 == 0, "f": pandas.to_datetime(numbers, unit="s"), "g": (numbers % 1000).astype(str),
    "h": numpy.char.add("row ", (numbers % 10_000).astype(str)),
}})
"""


async def measure(table: Table, port: int, folder: Path) -> None:
    """Prints the figures."""
    async with Caller(port) as caller:
        task = (await caller.execute(0, CODE))["taskId"]
        found = await caller.get("getResultSet", 0, taskId=task, rows=PAGE)
        if (found["totalRows"], len(found["columns"]), len(found["rows"])) != (ROWS, 8, PAGE):
            raise SystemExit(f"not that table: {str(found)[:300]}")
        took = []
        for number in range(PAGES):
            begin = time.perf_counter()
            await caller.get("getResultSet", 0, taskId=task, rows=PAGE, fromRow=number * (ROWS // PAGES) + 1)
            took.append(time.perf_counter() - begin)
        p50 = statistics.median(took)
        what = f"getResultSet, a page of {PAGE} of {ROWS:,} rows, p50"
        table.judge("result-page", what, p50 * 1000, "ms", at_most=10, samples=[one * 1000 for one in took])

        path = folder / "plain.arrow"
        size = await _plain_file(caller, task, path)
        with serving_by(("-c", "from bench.hot import results; results.serve_floor()"), str(path)) as floor:
            ours: list[float] = []
            plain: list[float] = []
            for number in range(RUNS):
                for kind in ("ours", "plain") if number % 2 else ("plain", "ours"):
                    begin = time.perf_counter()
                    if kind == "ours":
                        got = await _read(caller.get_raw("getResultSet", 0, {"taskId": task, "format": "arrow"}))
                    else:
                        async with ClientSession(read_bufsize=MIB) as session:
                            got = await _read(session.get(f"http://127.0.0.1:{floor.port}/"))
                    (ours if kind == "ours" else plain).append(got / (time.perf_counter() - begin) / MIB)
        table.tell(f"plain Arrow file of {size / MIB:.0f} MiB by aiohttp, p50", f"{statistics.median(plain):.0f} MiB/s")
        table.tell(f"getResultSet of {ROWS:,} × 8 as Arrow, p50", f"{statistics.median(ours):.0f} MiB/s")
        pairs = [mine / bare for mine, bare in zip(ours, plain, strict=True)]
        table.judge(
            "result-arrow",
            "table as Arrow to a plain file by aiohttp, p50 of pairs",
            statistics.median(pairs),
            at_least=0.5,
            floor=statistics.median(plain),
            floor_unit="MiB/s",
            samples=pairs,
        )


async def _read(request: object) -> int:
    got = 0
    async with request as answer:  # type: ignore[attr-defined]
        if answer.status != 200:
            raise SystemExit(f"no result: {(await answer.text())[:500]}")
        async for chunk in answer.content.iter_any():
            got += len(chunk)
    return got


async def _plain_file(caller: Caller, task: str, path: Path) -> int:
    """The same table as a plain IPC file of pyarrow; its bytes."""
    import pyarrow as pa  # noqa: PLC0415 - for this alone
    from pyarrow import ipc  # noqa: PLC0415

    async with caller.get_raw("getResultSet", 0, {"taskId": task, "format": "arrow"}) as answer:
        read = ipc.open_stream(pa.py_buffer(await answer.read())).read_all()
    if read.num_rows != ROWS:
        raise SystemExit(f"{read.num_rows} rows came")
    with ipc.new_file(str(path), read.schema) as writer:
        writer.write_table(read)
    return path.stat().st_size


def serve_floor() -> None:
    """The floor's process: what aiohttp does with a file by itself."""
    import sys  # noqa: PLC0415 - of that process alone

    asyncio.run(logs.serve_floor(sys.argv[1]))
