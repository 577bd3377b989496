"""Linkis's formats: what its own parsers and column widths expect."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from linkis_ecm.model import formats, reasons
from linkis_ecm.model.states import AVAILABLE, FINAL, LEGAL, ORDER, EngineState, may_follow


def test_label_value_is_user_creator_type_version() -> None:
    assert formats.label_value("hadoop", "IDE", "spark", "2.4.3") == "hadoop-IDE,spark-2.4.3"


def test_log_dir_suffix_has_linkis_shape_and_fits_its_column() -> None:
    ticket = "6d48068a-0e1e-44b5-8eb2-835034db5b30"
    suffix = formats.log_dir_suffix("root", datetime(2023, 7, 5, 23, 59, tzinfo=UTC), "io_file", ticket)
    assert suffix == f"root/20230705/io_file/{ticket}/logs"
    longest = formats.log_dir_suffix(
        "u" * formats.USER_MAX, datetime(2023, 7, 5, tzinfo=UTC), "t" * formats.ENGINE_TYPE_MAX, ticket
    )
    assert len(longest) <= 128


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.0 B"),
        (2047, "2047.0 B"),
        (2048, "2.0 KB"),
        (1 << 30, "1024.0 MB"),
        (2 << 30, "2.0 GB"),
        (3 << 40, "3.0 TB"),
    ],
)
def test_sizes_change_unit_at_two_of_it(size: int, text: str) -> None:
    assert formats.bytes_text(size) == text


def test_resource_json_of_most_engines_is_a_load_instance() -> None:
    text = formats.resource_json(memory_bytes=2 << 30, cpu_milli=500, engine_type="python", namespace="ns")
    assert text == '{"instance":1,"memory":"2.0 GB","cpu":1}'


@pytest.mark.parametrize("engine_type", ["spark", "flink"])
def test_resource_json_of_spark_and_flink_has_the_driver_that_linkis_history_needs(engine_type: str) -> None:
    text = formats.resource_json(memory_bytes=4 << 30, cpu_milli=2000, engine_type=engine_type, namespace="ns")
    loaded = json.loads(text)
    assert loaded["driver"] == {"instance": 1, "memory": "4.0 GB", "cpu": 2}
    assert loaded["kubernetes"] == {"namespace": "ns", "memory": "4.0 GB", "cpu": 2000}


@pytest.mark.parametrize(("text", "value"), [("500m", 0.5), ("2", 2), ("1.5Gi", 1.5 * 2**30), ("3k", 3000)])
def test_quantities_are_read(text: str, value: float) -> None:
    assert float(formats.parse_quantity(text)) == value


@pytest.mark.parametrize("text", ["", "lots", "-1", "1 Gi", "1gi", "1\n", "0x1"])
def test_other_texts_are_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        formats.parse_quantity(text)


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("24h", 86400)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert formats.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1d", "s", "-5s", "5s\n", "5s5m"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        formats.parse_duration(text)


def test_ordinals_are_those_that_linkis_stores() -> None:
    words = ["Starting", "Unlock", "Locked", "Idle", "Busy", "Running", "ShuttingDown", "Failed", "Success"]
    assert [state.value for state in ORDER] == words
    assert [state.ordinal for state in ORDER] == list(range(9))


def test_no_state_follows_a_final_one_and_none_returns_to_starting() -> None:
    for state in EngineState:
        assert (LEGAL[state] == frozenset()) == (state in FINAL)
        assert EngineState.STARTING not in LEGAL[state]
        assert may_follow(state, state)
        assert may_follow(None, state)
    assert not may_follow(EngineState.SHUTTING_DOWN, EngineState.IDLE)
    assert all(may_follow(EngineState.STARTING, state) for state in AVAILABLE)


def test_every_reason_is_a_condition_reason_with_a_sentence() -> None:
    names = [reason.name for reason in reasons.all_reasons()]
    assert len(names) == len(set(names))
    for reason in reasons.all_reasons():
        assert reason.name.isalnum()
        assert reason.sentence.endswith(".")
        assert reasons.by_name(reason.name) is reason
