"""Linkis's own result-set writer and reader (linkis-storage 1.7.0) and the golden files that they made.

Whoever writes dolphin compares with `golden/`, and asks `judge("read-dolphin", file)` what Linkis sees in the bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.judge.build import BUILD_SECONDS, judge

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 120)
GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what Linkis's writer makes of the specifications now."""
    folder: Path = tmp_path_factory.mktemp("dolphin")
    judge("write-dolphin", *(part for n in NAMES for part in (str(GOLDEN / f"{n}.json"), str(folder / f"{n}.dolphin"))))
    return folder


@pytest.fixture(scope="module")
def seen() -> dict[str, dict[str, Any]]:
    """What Linkis's reader sees in the golden files, by name."""
    steps = judge("read-dolphin", *(str(GOLDEN / f"{name}.dolphin") for name in NAMES))
    return {Path(file).stem: step["result"] for file, step in steps.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_bytes_are_the_real_writers(name: str, written: Path) -> None:
    assert (written / f"{name}.dolphin").read_bytes() == (GOLDEN / f"{name}.dolphin").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_real_reader_reads_every_record_to_the_end(name: str, seen: dict[str, dict[str, Any]]) -> None:
    asked, read = json.loads((GOLDEN / f"{name}.json").read_text()), seen[name]
    assert read["type"] == asked["type"]
    assert read["unread"] == 0
    if asked["type"] == "TEXT":
        assert read["records"] == asked["records"]
        return
    # A null comment is written as LINKIS_NULL and read as the text NULL.
    assert [[column["name"], column["comment"]] for column in read["columns"]] == [
        [column, "NULL" if comment is None else comment] for column, _, comment in asked["columns"]
    ]
    assert len(read["records"]) == len(asked["rows"])
    for row, values in zip(asked["rows"], read["records"], strict=True):
        assert [value["value"] is None for value in values] == [value is None for value in row]


def test_values_come_back_with_the_columns_own_types(seen: dict[str, dict[str, Any]]) -> None:
    first, second, nulls = seen["types"]["records"]
    assert [value["class"] for value in first] == [
        "Boolean", "Integer", "Long", "Double", "BigDecimal", "Date", "String", "String",
    ]  # fmt: skip
    assert [value["value"] for value in first[2:5]] == ["9223372036854775807", "1.0E300", "12.50"]
    assert first[7]["value"] == "zwölf, 中\n😀"
    assert second[7]["value"] == "", "an empty text is not a null"
    assert nulls[7] == {"class": "String", "value": "NULL"}, "nor is the text NULL"
    assert nulls[3]["value"] == "Infinity"
    assert seen["nan"]["records"][1][2] == {"class": "Double", "value": "NaN"}
    assert [column["dataType"] for column in seen["types"]["columns"]] == [
        "boolean", "int", "bigint", "double", "decimal", "date", "timestamp", "string",
    ]  # fmt: skip


def test_bytes_that_are_not_a_result_set_are_refused(tmp_path: Path) -> None:
    """So that a pass of the reader says something."""
    whole = (GOLDEN / "table.dolphin").read_bytes()
    broken = {
        "other": b"dolfin" + whole[6:],
        "short": whole[:-3],
        "type": whole[:7] + b"0000000009" + whole[17:],
        "text": b"dolphin0000000001" + whole[17:],
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    steps = judge("read-dolphin", *(str(tmp_path / name) for name in broken))
    errors = {Path(file).name: step.get("error") for file, step in steps.items()}
    assert errors == {
        "other": "IOException", "short": "StorageErrorException", "type": "StorageErrorException", "text": None,
    }  # fmt: skip
