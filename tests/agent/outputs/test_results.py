"""Tables that are too big to be shown: kept whole beside the logs, within bounds, and served by ranges of bytes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc

from linkis_ecm.agent.formats.cells import cells
from linkis_ecm.agent.formats.result_files import file_name, is_id, make_room, new_id, open_result
from linkis_ecm.agent.kernel.tables import spill
from linkis_ecm.agent.kernel.tables.display import frame_table, relation_table
from tools.testkit.agents.process import AgentProcess

LIMIT = "import linkis_ecm.agent.kernel.tables.spill\nlinkis_ecm.agent.kernel.tables.spill.MAX_SECONDS = {}"
ROWS = 200_000
FRAME = (
    "import pandas as pd, numpy as np\n"
    f"n = np.arange({ROWS})\n"
    "pd.DataFrame({'n': n, 's': [f's{i}' for i in n], 'mixed': [1] * 150_000 + ['a'] * 50_000,"
    " 'c': pd.Categorical(['x', 'y'] * 100_000), 't': pd.date_range('2026-01-01', periods=len(n), freq='s')})"
)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    process = AgentProcess(tmp_path_factory.mktemp("agent"))
    # What is asked here is whether all of a result is kept, not how much of it a busy machine writes in 10 s.
    process.execute(LIMIT.format(600))
    yield process
    process.close()


def fetched(agent: AgentProcess, table: dict[str, Any]) -> pa.Table:
    """The result as the agent serves it, whole."""
    status, data = agent.call("GET", f"/v1/results/{table['resultId']}")
    assert (status, len(data)) == (200, table["resultBytes"])
    return ipc.open_file(BytesIO(data)).read_all()


def test_a_frame_that_is_cut_is_kept_whole(agent: AgentProcess) -> None:
    (table,) = agent.outputs(FRAME)
    assert len(table["rows"]) == 5000
    assert (table["totalRows"], table["truncated"], table["resultRows"]) == (ROWS, True, ROWS)
    whole = fetched(agent, table)
    whole.validate(full=True)
    assert whole.column("n").to_pylist() == list(range(ROWS))
    # What Arrow has no one type for is text, from the first row on.
    assert whole.column("mixed").to_pylist() == ["1"] * 150_000 + ["a"] * 50_000
    assert whole.column("c").slice(ROWS - 2).to_pylist() == ["x", "y"]
    assert whole.schema.field("t").metadata == {b"linkis.type": b"datetime64[us]"}


def test_a_query_that_is_cut_runs_once_and_is_kept_whole(agent: AgentProcess) -> None:
    (text, table) = agent.outputs(
        "import duckdb\n"
        "calls = []\n"
        "con = duckdb.connect()\n"
        "con.create_function('seen', lambda n: calls.append(n) or n, ['BIGINT'], 'BIGINT', side_effects=True)\n"
        "from IPython import get_ipython\n"
        "form = get_ipython().display_formatter.formatters['application/vnd.linkis.table+json']\n"
        "shown = form(con.sql('select seen(range) as n, sum(range) over () as h from range(20000)'))\n"
        "print(len(calls))\n"
        "display({'application/vnd.linkis.table+json': shown}, raw=True)"
    )
    assert text["text"] == "20000\n"
    assert (table["totalRows"], table["resultRows"], len(table["rows"])) == (20000, 20000, 5000)
    assert table["rows"][4999] == [4999, 199990000]
    assert fetched(agent, table).column("n").to_pylist() == list(range(20000))


def test_a_query_without_an_end_is_kept_to_its_bound(agent: AgentProcess) -> None:
    agent.execute(LIMIT.format(spill.MAX_SECONDS))
    (table,) = agent.outputs("import duckdb\nduckdb.sql('select * from range(1000000000000)')")
    agent.execute(LIMIT.format(600))
    assert (table["totalRows"], table["truncated"]) == (None, True)
    assert table["resultRows"] > 1_000_000
    assert table["resultBytes"] < spill.MAX_RESULT_BYTES + spill.MAX_BATCH_BYTES


def test_a_query_is_shown_and_kept_without_pandas(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    try:
        small, big, text = agent.outputs(
            "import duckdb, sys\n"
            "display(duckdb.sql('select 1 as a')); display(duckdb.sql('select * from range(6000)'))\n"
            "print('pandas' in sys.modules)"
        )
    finally:
        agent.close()
    assert "resultId" not in small
    assert big["resultRows"] == 6000
    assert text["text"] == "False\n"


def test_columns_and_long_cells_that_are_not_shown_are_kept(agent: AgentProcess) -> None:
    wide, long = agent.outputs(
        "import pandas as pd, numpy as np\n"
        "display(pd.DataFrame(np.zeros((3, 700)))); display(pd.DataFrame({'s': ['x' * 20_000]}))"
    )
    assert (len(wide["columns"]), wide["truncated"]) == (500, True)
    assert fetched(agent, wide).num_columns == 700
    assert (long["truncated"], len(long["rows"][0][0])) == (True, 10_001)
    assert fetched(agent, long).to_pydict() == {"s": ["x" * 20_000]}


def test_an_index_is_kept_as_the_columns_that_it_is_shown_as(agent: AgentProcess) -> None:
    (table,) = agent.outputs(
        "import pandas as pd\n"
        "pd.DataFrame({'v': range(6000)}, index=pd.MultiIndex.from_product([['a', 'b'], range(3000)]))"
    )
    assert [column["name"] for column in table["columns"]] == ["level_0", "level_1", "v"]
    assert fetched(agent, table).slice(5999).to_pylist() == [{"level_0": "b", "level_1": 2999, "v": 5999}]


def test_a_part_of_a_result_is_served(agent: AgentProcess) -> None:
    (table,) = agent.outputs("import pandas as pd; pd.DataFrame({'n': range(6000)})")
    path = f"/v1/results/{table['resultId']}"
    whole = agent.call("GET", path)[1]
    assert agent.call("GET", f"{path}?offset=10&length=20") == (200, whole[10:30])
    assert agent.call("GET", f"{path}?offset={len(whole)}") == (200, b"")
    assert agent.call("GET", path, token="guess")[0] == 401
    assert agent.call("GET", f"{path}?offset=x")[0] == 400
    assert agent.call("POST", path)[0] == 405
    for name in ("0" * 20, "..%2Fstdout", "stdout", "", "A" * 20):
        assert agent.call("GET", f"/v1/results/{name}")[0] == 404


def test_an_output_is_served_without_the_rows_that_are_in_its_file(agent: AgentProcess) -> None:
    result = agent.execute("import pandas as pd; print('x'); display(pd.DataFrame({'n': range(6000)})); 'end'")
    path = f"/v1/tasks/{result['taskId']}/outputs"
    status, told = agent.json("GET", f"{path}/first")
    assert (status, told["index"], told["outputs"]) == (200, 1, 3)
    assert "rows" not in told["output"]
    assert is_id(told["output"]["resultId"])
    assert agent.json("GET", f"{path}/2")[1]["output"]["text"] == "'end'"
    status, refused = agent.json("GET", f"{path}/3")
    assert (status, refused["error"]) == (400, "output is 3: the task has 3 outputs, counted from 0")
    assert agent.json("GET", f"{path}/x")[0] == 404


def test_a_file_that_user_code_puts_into_the_folder_is_not_a_result(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("secret")
    linked, piped, plain = new_id(), new_id(), new_id()
    (folder / file_name(linked)).symlink_to(secret)
    os.mkfifo(folder / file_name(piped))
    (folder / file_name(plain)).write_text("result")
    assert open_result(str(tmp_path), linked) is None
    assert open_result(str(tmp_path), piped) is None
    assert open_result(str(tmp_path), "../secret") is None
    descriptor = open_result(str(tmp_path), plain)
    assert descriptor is not None
    os.close(descriptor)
    # The folder itself is no way out either.
    other = tmp_path / "other"
    other.mkdir()
    (other / "results").symlink_to(folder)
    assert open_result(str(other), plain) is None


def test_the_oldest_results_are_dropped_first(tmp_path: Path) -> None:
    names = [file_name(f"{n:020x}") for n in range(10)]
    for name in names:
        (tmp_path / name).write_bytes(b"x" * 100)
    (tmp_path / "other").write_bytes(b"x" * 10_000)
    make_room(str(tmp_path), count=8, size=550)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", *names[5:]]


def test_a_disk_that_takes_nothing_leaves_the_table_as_it_is_shown(tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "full").write_text("no folder")
    shown = frame_table(pd.DataFrame({"n": range(6000)}), str(tmp_path / "full"))
    assert (len(shown["rows"]), shown["truncated"], "resultId" in shown) == (5000, True, False)


def test_a_result_over_a_bound_ends_there_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    import pandas as pd

    table = pd.DataFrame({"x": np.random.default_rng(1).random(100_000)})
    monkeypatch.setattr(spill, "MAX_RESULT_BYTES", 200_000)
    shown = frame_table(table, str(tmp_path))
    assert 0 < shown["resultRows"] < 100_000
    assert shown["totalRows"] == 100_000
    monkeypatch.setattr(spill, "MAX_SECONDS", -1.0)
    assert "resultId" not in frame_table(table, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [file_name(shown["resultId"])]


def test_a_query_that_gives_its_rows_one_by_one_is_kept_to_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(spill, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(spill, "MAX_SECONDS", 100.0)
    rows = iter(range(1000))
    batches = (pa.RecordBatch.from_pydict({"n": [n]}) for n in rows)
    kept = spill.relation([{"name": "n", "type": "BIGINT"}], batches, str(tmp_path))
    assert (kept["resultRows"], kept["whole"]) == (100, False)
    assert next(rows) == 101  # no more of the query was run
    with pa.OSFile(str(tmp_path / file_name(kept["resultId"]))) as file:
        assert ipc.open_file(file).read_all()["n"].to_pylist() == list(range(100))


def test_a_partial_file_of_a_dead_kernel_is_deleted(tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "part-1-0000").write_bytes(b"half")
    shown = frame_table(pd.DataFrame({"n": range(6000)}), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [file_name(shown["resultId"])]


def test_odd_values_are_the_same_in_the_file_and_in_the_table(tmp_path: Path) -> None:
    """What a page says of a value is what the table said."""
    import pandas as pd

    table = pd.DataFrame(
        {
            "delta": pd.to_timedelta([0, 90_061_000_000_001, None], unit="ns"),
            "nano": pd.to_datetime([1, 10**18, None], unit="ns"),
            "zone": pd.to_datetime([0, 10**9, None], unit="ms", utc=True).tz_convert("Asia/Kolkata"),
            "missing": [None, float("nan"), 1.5], "bytes": [b"\xff", b"", None],
            "half": pd.Series(["\ud800", "x", None], dtype=object),
            "nothing": [None, None, None], "period": pd.period_range("2026-01", periods=3, freq="M"),
            "list": [[1], [], None], "day": [pd.Timestamp("2026-11-24").date(), None, None],
        }
    )  # fmt: skip
    table = pd.concat([table] * 2000, ignore_index=True)
    shown = frame_table(table, str(tmp_path))
    (batch, *_) = ipc.open_file(tmp_path / file_name(shown["resultId"])).read_all().to_batches()
    for position, column in enumerate(shown["columns"]):
        kept = cells(batch.column(position).slice(0, 3), column["type"])
        told = [row[position] for row in shown["rows"][:3]]
        if column["name"] == "half":
            told[0] = "?"
        assert kept == told, column


def test_a_relation_of_every_type_is_shown_and_kept(tmp_path: Path) -> None:
    import duckdb

    relation = duckdb.sql(
        "select 2::hugeint as h, interval 1 day as i, 'a'::enum('a', 'b') as e, map {'k': 1} as m, {'a': 1} as s,"
        " [1, 2] as l, uuid '00000000-0000-0000-0000-000000000001' as u, 'x'::blob as b, 1.5::decimal(9, 2) as d,"
        " date '2026-11-24' as day, timestamp '2026-11-24 10:00:00' as t, null as nothing, '101'::bit as bits"
        " from range(6000)"
    )
    shown = relation_table(relation, str(tmp_path))
    assert shown["rows"][0] == [
        2, "1 day", "a", "{k=1}", "{'a': 1}", "[1, 2]", "00000000-0000-0000-0000-000000000001", "b'x'", "1.50",
        "2026-11-24", "2026-11-24T10:00:00", None, "101",
    ]  # fmt: skip
    assert (shown["totalRows"], shown["resultRows"]) == (6000, 6000)


def test_all_results_of_an_engine_leave_room_for_its_logs() -> None:
    from linkis_ecm.model.formats import parse_quantity
    from linkis_ecm.model.plugin import LOG_VOLUME

    assert parse_quantity(LOG_VOLUME) / 4 >= spill.MAX_ENGINE_BYTES
