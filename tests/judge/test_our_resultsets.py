"""Linkis's own classes judge the gateway's result sets: the same bytes as its writer's, and its reader reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from linkis_ecm.gateway.results import dolphin
from tests.judge.build import BUILD_SECONDS, judge

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 120)
TABLE = pa.RecordBatch.from_pydict(
    {
        "id": pa.array([1, 2, -(2**63)], pa.int64()),
        "n": pa.array([1, None, -7], pa.int32()),
        "name": pa.array(["a", None, "zwölf, 中\n😀"]),
        "x": pa.array([1.5, None, float("nan")]),
        "ok": pa.array([True, False, None]),
    }
)
SPEC: dict[str, Any] = {
    "type": "TABLE",
    "columns": [["id", "long", None], ["n", "int", None], ["name", "string", None], ["x", "double", None],
                ["ok", "boolean", None]],
    "rows": [[1, 1, "a", 1.5, True], [2, None, None, None, False], [-(2**63), -7, "zwölf, 中\n😀", "NaN", None]],
}  # fmt: skip


def table(batch: pa.RecordBatch) -> bytes:
    return dolphin.columns(batch.schema) + b"".join(bytes(piece) for piece in dolphin.rows(batch))


def test_a_table_has_the_bytes_of_linkiss_own_writer(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    judge("write-dolphin", str(tmp_path / "spec.json"), str(tmp_path / "theirs"))
    assert table(TABLE) == (tmp_path / "theirs").read_bytes()


def test_linkiss_own_reader_reads_tables_texts_pages_and_pictures(tmp_path: Path) -> None:
    files = {
        "table": table(TABLE),
        "empty": table(TABLE.slice(0, 0)),
        "text": b"".join(dolphin.lines("hello\nworld\n")),
        "html": dolphin.single(dolphin.HTML, "<b>zwölf</b>"),
        "picture": dolphin.picture("image/png", "QUJD"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    steps = judge("read-dolphin", *(str(tmp_path / name) for name in files))
    read = {Path(file).name: step["result"] for file, step in steps.items()}
    assert {name: told["type"] for name, told in read.items()} == {
        "table": "TABLE", "empty": "TABLE", "text": "TEXT", "html": "HTML", "picture": "PICTURE",
    }  # fmt: skip
    assert all(told["unread"] == 0 for told in read.values())
    assert [value["value"] for value in read["table"]["records"][2]] == [
        "-9223372036854775808", "-7", "zwölf, 中\n😀", "NaN", None,
    ]  # fmt: skip
    assert read["empty"]["records"] == []
    assert read["text"]["records"] == ["hello", "world"]
