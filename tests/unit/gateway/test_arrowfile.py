"""Spilled results as the gateway reads them: any rows at the same cost, and files that somebody has made to do harm."""

from __future__ import annotations

import asyncio
import random
import struct
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc

from linkis_ecm.agent.kernel.tables import spill
from linkis_ecm.gateway.http.budget import ByteBudget
from linkis_ecm.gateway.results import arrow_file, arrow_metadata, dolphin
from linkis_ecm.gateway.results.arrow_file import RUN_BYTES, ArrowFile
from linkis_ecm.gateway.results.arrow_metadata import MalformedError

Open = Callable[[bytes], Awaitable[ArrowFile]]


def file_of(table: pa.Table, rows: int = 20, compression: str | None = "lz4") -> bytes:
    sink = BytesIO()
    with ipc.new_file(sink, table.schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        for batch in table.to_batches(max_chunksize=rows):
            writer.write_batch(batch)
    return sink.getvalue()


def numbers(count: int) -> pa.Table:
    return pa.table(
        {"n": pa.array(range(count), pa.int64()), "s": pa.array([f"s{n}" for n in range(count)], pa.string())}
    )


class Source:
    """A file's bytes, and which of them were asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    async def read(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        found = self.data[offset : offset + length]
        if len(found) != length:
            raise MalformedError("beyond the end")
        return found


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def opened(threads: ThreadPoolExecutor) -> Open:
    async def make(data: bytes) -> ArrowFile:
        return await ArrowFile(Source(data).read, len(data), threads=threads, budget=ByteBudget(64 << 20)).open()

    return make


async def rows(file: ArrowFile, begin: int = 0, end: int = 1 << 60) -> list[Any]:
    return [row for batch in [part async for part in file.slices(begin, end)] for row in batch.to_pylist()]


async def test_any_rows_are_those_rows(opened: Open) -> None:
    file = await opened(file_of(numbers(95)))
    assert file.rows == 95
    assert [column["name"] for column in file.columns] == ["n", "s"]
    everything = numbers(95).to_pylist()
    for begin, end in ((0, 95), (0, 1), (19, 21), (40, 60), (94, 200), (95, 200), (7, 88)):
        assert await rows(file, begin, end) == everything[begin:end]


async def test_the_last_page_reads_no_more_than_the_first(threads: ThreadPoolExecutor) -> None:
    data = file_of(pa.table({"x": [random.Random(n).random() for n in range(200_000)]}), rows=8192)
    asked = []
    for begin in (0, 199_000):
        source = Source(data)
        file = await ArrowFile(source.read, len(data), threads=threads, budget=ByteBudget(64 << 20)).open()
        assert len(await rows(file, begin, begin + 1000)) == 1000
        asked.append(sum(length for _, length in source.asked))
    assert asked[1] < 2 * asked[0] < len(data) / 2


async def test_an_empty_table_is_one(opened: Open) -> None:
    file = await opened(file_of(numbers(0)))
    assert (file.rows, await rows(file)) == (0, [])


def odd(kind: str) -> pa.Table:
    """Types that let a few bytes say much."""
    strings = pa.array(["a", "b"] * 5)
    return pa.table(
        {
            "dictionary": {"c": strings.dictionary_encode()},
            "view": {"c": strings.cast(pa.string_view())},
            "runs": {"c": pa.RunEndEncodedArray.from_arrays([5, 10], ["a", "b"])},
            "list view": {"c": pa.ListViewArray.from_arrays([0] * 10, [5] * 10, pa.array(range(5)))},
            "union": {"c": pa.UnionArray.from_dense(pa.array([0] * 10, pa.int8()), pa.array([0] * 10, pa.int32()),
                                                    [pa.array([1])])},
            "map": {"c": pa.array([[("a", 1)]] * 10, pa.map_(pa.string(), pa.int64()))},
        }[kind]
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["dictionary", "view", "runs", "list view", "union", "map"])
async def test_types_that_expand_few_bytes_to_many_are_refused(opened: Open, kind: str) -> None:
    with pytest.raises(MalformedError, match=r"dictionaries|not one that engines keep"):
        await opened(file_of(odd(kind)))


async def test_a_batch_that_unpacks_to_more_than_the_limit_is_refused_before_it_is_unpacked(opened: Open) -> None:
    data = file_of(pa.table({"x": [b"\0" * 60_000_000]}),
                   compression="zstd")  # fmt: skip
    assert len(data) < 1 << 20
    file = await opened(data)
    before = pa.total_allocated_bytes()
    with pytest.raises(MalformedError, match="over the limit"):
        await rows(file)
    assert pa.total_allocated_bytes() - before < 1 << 20


async def test_an_announced_length_is_not_believed(opened: Open) -> None:
    data = file_of(pa.table({"x": [0] * 1000}), rows=1000, compression="zstd")
    at = data.index(struct.pack("<q", 8000))
    for lie in (1 << 40, (1 << 63) - 1):
        file = await opened(data[:at] + struct.pack("<q", lie) + data[at + 8 :])
        with pytest.raises(MalformedError, match="over the limit"):
            await rows(file)


async def test_rows_that_take_no_bytes_are_bounded_too(opened: Open) -> None:
    with pytest.raises(MalformedError, match="too many rows"):
        await opened(file_of(pa.table({"x": pa.nulls(arrow_file.ROWS_MAX + 1)}), rows=1 << 20))
    wide = pa.table({f"c{n}": pa.nulls(arrow_file.ROWS_MAX) for n in range(65)})
    with pytest.raises(MalformedError, match="too many rows"):
        await opened(file_of(wide, rows=1 << 20))
    inner = pa.FixedSizeListArray.from_arrays(pa.nulls(arrow_file.CELLS_MAX + 8), arrow_file.CELLS_MAX // 8 + 1)
    with pytest.raises(MalformedError, match="too many rows"):
        await opened(file_of(pa.table({"x": inner})))


def struct_of_nulls(fields: int, count: int, name: str = "f") -> pa.Table:
    names = [f"{name}{n}" for n in range(fields)]
    return pa.table({"x": pa.StructArray.from_arrays([pa.nulls(count) for _ in names], names)})


async def test_values_within_structs_count_though_no_one_column_is_long(opened: Open) -> None:
    with pytest.raises(MalformedError, match="too many values within them"):
        await opened(file_of(struct_of_nulls(1000, arrow_file.CELLS_MAX // 1000 + 1), rows=1 << 20))
    # A name that is in the text of each row is as many bytes as there are rows.
    with pytest.raises(MalformedError, match="too many values within them"):
        await opened(file_of(struct_of_nulls(10, 1000, name="n" * 30_000), rows=1 << 20))
    assert len(await rows(await opened(file_of(struct_of_nulls(10, 40))))) == 40


async def test_values_without_bytes_are_budgeted_by_their_decoded_size(threads: ThreadPoolExecutor) -> None:
    budget = ByteBudget(192 << 20)
    data = file_of(struct_of_nulls(1000, 2000), rows=1 << 20)
    file = await ArrowFile(Source(data).read, len(data), threads=threads, budget=budget).open()
    async with aclosing(file.slices(0, 1)) as batches:
        await anext(batches)
        # Measured: 88 MiB of dicts.
        assert budget.held > 88 << 20
    assert not budget.held


async def test_a_reader_that_waits_for_budget_holds_no_bytes(threads: ThreadPoolExecutor) -> None:
    values = pa.Array.from_buffers(pa.int64(), 50_000, [None, pa.py_buffer(random.Random(1).randbytes(400_000))])
    noise, zeros = (
        file_of(pa.table(dict.fromkeys("abcde", x)), rows=1 << 20) for x in (values, pa.array([0] * 50_000, pa.int64()))
    )
    for data in (noise, zeros):
        budget = ByteBudget(9_600_000)
        sources = [Source(data) for _ in range(60)]
        files = [await ArrowFile(s.read, len(data), threads=threads, budget=budget).open() for s in sources]
        opened = [len(source.asked) for source in sources]
        tracemalloc.start()
        async with budget.hold(9_600_000):
            readers = [asyncio.create_task(rows(file, 0, 1)) for file in files]
            for _ in range(10):
                await asyncio.sleep(0)
            if data is noise:
                assert [len(source.asked) for source in sources] == opened
        await asyncio.gather(*readers)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 9_600_000
        assert not budget.held


async def test_a_batch_that_is_larger_than_estimated_is_read_again_within_the_budget(
    threads: ThreadPoolExecutor,
) -> None:
    data = file_of(pa.table({"x": pa.array([0] * 2_000_000, pa.int64()).slice(0, 60_000)}), rows=60_000,
                   compression="zstd")  # fmt: skip
    text = file_of(pa.table({"x": ["a" * 1000] * 10_000}), rows=5_000)
    budget = ByteBudget(64 << 20)
    for content, plain in ((data, 480_000), (text, 5_000_000)):
        file = await ArrowFile(Source(content).read, len(content), threads=threads, budget=budget).open()
        async with aclosing(file.slices(0, 1 << 60)) as batches:
            async for batch in batches:
                assert 2 * plain < budget.held < 3 * plain
                assert batch.num_rows in (60_000, 5_000)
        assert not budget.held


async def test_small_batches_are_read_together_and_big_ones_alone(threads: ThreadPoolExecutor) -> None:
    small = Source(file_of(numbers(50_000), rows=100))
    budget = ByteBudget(64 << 20)
    file = await ArrowFile(small.read, len(small.data), threads=threads, budget=budget).open()
    asked = len(small.asked)
    seen = []
    async with aclosing(file.slices(150, 49_950)) as batches:
        async for batch in batches:
            seen += batch.column(0).to_pylist()
            assert budget.held <= RUN_BYTES
    assert seen == list(range(150, 49_950))
    assert len(small.asked) - asked <= 3, "500 batches"
    # Zeros pack well: behind a small batch, each of these is a hundred times as big in memory as in the file.
    text = pa.table({"x": ["a"] * 1000 + ["a" * 10_000] * 4000})
    big = Source(file_of(text, rows=1000, compression="zstd"))
    file = await ArrowFile(big.read, len(big.data), threads=threads, budget=budget).open()
    async with aclosing(file.slices(0, 1 << 60)) as batches:
        assert [len(batch) async for batch in batches] == [1000] * 5
    assert not budget.held


def with_blocks(data: bytes, change: Callable[[list[tuple[int, int, int]]], None]) -> bytes:
    """An uncompressed file whose footer was written by hand: the same places in another order, as often as before."""
    places = [(block.offset, block.metadata, block.body) for block in blocks_of(data)]
    packed = b"".join(struct.pack("<qi4xq", *place) for place in places)
    assert data.count(packed) == 1
    change(places)
    return data.replace(packed, b"".join(struct.pack("<qi4xq", *place) for place in places))


def blocks_of(data: bytes) -> arrow_metadata.Blocks:
    (length,) = struct.unpack_from("<i", data, len(data) - 10)
    return arrow_metadata.blocks(data[-10 - length : -10], 1 << 20)


async def test_a_batch_that_is_named_twice_is_refused(opened: Open) -> None:
    def twice(places: list[tuple[int, int, int]]) -> None:
        places[1] = places[0]

    data = file_of(numbers(60))
    assert len(await rows(await opened(data))) == 60
    with pytest.raises(MalformedError, match="behind the one before it"):
        await opened(with_blocks(data, twice))


async def test_a_file_with_too_many_batches_is_refused(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    assert spill.MAX_BATCHES <= arrow_file.BLOCKS_MAX
    monkeypatch.setattr(arrow_file, "BLOCKS_MAX", 3)
    assert len(await rows(await opened(file_of(numbers(60))))) == 60
    with pytest.raises(MalformedError, match="it has 4 batches"):
        await opened(file_of(numbers(61)))


async def test_engines_write_no_more_batches_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "MAX_BATCHES", 3)
    table = numbers(100)
    chunks = ([batch.column(0), batch.column(1)] for batch in table.to_batches(max_chunksize=20))
    told = spill.write(str(tmp_path), table.schema, chunks, rows=20, deadline=float("inf"))
    assert (told["resultRows"], told["whole"]) == (60, False)


async def test_batches_of_other_lengths_than_the_first_are_refused(opened: Open) -> None:
    sink = BytesIO()
    with ipc.new_file(sink, numbers(0).schema) as writer:
        for count in (20, 10, 20):
            writer.write_table(numbers(count))
    file = await opened(sink.getvalue())
    with pytest.raises(MalformedError, match="equal length"):
        await rows(file)


async def test_text_and_offsets_that_are_none_are_refused(opened: Open) -> None:
    good = file_of(pa.table({"s": ["aaaa", "bbbb", "cccc"]}), compression=None)
    assert len(await rows(await opened(good))) == 3
    offsets = struct.pack("<4i", 0, 4, 8, 12), struct.pack("<4i", 0, 1 << 30, 8, 12)
    for there, wrong in ((b"bbbb", b"b\xffbb"), offsets):
        assert good.count(there) == 1
        with pytest.raises(MalformedError, match="cannot be read"):
            await rows(await opened(good.replace(there, wrong)))


@pytest.mark.parametrize("data", [b"", b"ARROW1", b"ARROW1" * 10, b"\0" * 100, b"PAR1" + b"\0" * 100 + b"PAR1"])
async def test_a_file_that_is_not_arrow_is_refused(opened: Open, data: bytes) -> None:
    with pytest.raises(MalformedError):
        await opened(data)


async def test_a_file_that_was_spoilt_anywhere_is_read_or_refused(opened: Open) -> None:
    """Whatever is read can be used in every format; there is no third way."""
    table = numbers(50).append_column("l", pa.array([[n] * (n % 4) for n in range(50)]))
    table = table.append_column("t", pa.array([0] * 50, pa.timestamp("ns", "Europe/Berlin")))
    whole = [file_of(table, compression=compression) for compression in ("lz4", "zstd", None)]
    rng = random.Random(7)
    refused = 0
    for _ in range(400):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.choice((1, 2, 8))):
            at = rng.randrange(len(data) - 8)
            flipped = bytes((data[at] ^ 1,)) + bytes(data[at + 1 : at + 8])
            data[at : at + 8] = rng.choice((struct.pack("<q", 1 << 40), b"\xff" * 8, bytes(8), flipped))
        try:
            file = await opened(bytes(data))
            async for batch in file.slices(0, 1 << 60):
                for piece in await file.run_in_thread(list, dolphin.rows(batch)):
                    bytes(piece)
        except MalformedError:
            refused += 1
        await asyncio.sleep(0)
    assert 100 < refused < 400
