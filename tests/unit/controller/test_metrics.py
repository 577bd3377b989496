"""Names, texts and labels of metrics keep Prometheus's rules, and docs/metrics.md is what the code makes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.selfchecks import canary
from linkis_ecm.engine.admission.limits import LIMITS
from linkis_ecm.engine.view import EngineView, engine_view
from linkis_ecm.gateway.metrics import Metrics as GatewayMetrics
from linkis_ecm.process.registry import (
    CANARY_TYPE,
    LABELS,
    SERIES_MAX,
    VALUES_MAX,
    BoundedValues,
    EngineCount,
    Family,
    Registry,
)
from tools import reference

ROOT = Path(__file__).parents[3]
ALL = sorted({family for found in reference.families().values() for family in found}, key=lambda family: family.name)
# Units that Prometheus does not want (its base units are seconds and bytes), and suffixes that it adds itself.
BAD_UNITS = ("milliseconds", "millis", "ms", "microseconds", "minutes", "hours", "days", "mib", "kib", "mb", "kb")
RESERVED_SUFFIXES = ("_count", "_sum", "_bucket", "_created", "_info")
RESERVED_LABELS = ("le", "quantile", "job", "instance", "name", "uid", "user", "namespace", "pod")


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_a_committed_page_is_what_the_code_makes(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == reference.PAGES[name](), "run `make generate` and commit docs/"


def problems(family: Family) -> list[str]:
    """What `promtool check metrics` would say, and what we want besides."""
    words = family.name.split("_")
    found = []
    if not re.fullmatch(r"ecm(_[a-z]+)+", family.name):
        found.append("a name is lower-case words behind ecm_, without digits")
    if (family.type == "counter") != (words[-1] == "total"):
        found.append("counters, and only they, end with _total")
    found += [f"{unit} is no base unit" for unit in BAD_UNITS if unit in words]
    if family.type == "histogram" and words[-1] not in ("seconds", "bytes"):
        found.append("a histogram names its unit last")
    unit_at = words.index("seconds") if "seconds" in words else words.index("bytes") if "bytes" in words else None
    if unit_at is not None and words[unit_at + 1 :] not in ([], ["total"]):
        found.append("a unit stands last, or before total")
    found += [
        f"{suffix} is a suffix of Prometheus's own"
        for suffix in RESERVED_SUFFIXES
        if family.name.endswith(suffix) and suffix != f"_{family.type}"
    ]
    if family.type in words and family.type != "info":
        found.append("a name does not repeat its type")
    if not re.fullmatch(r"[A-Z0-9].{10,200}\.", family.help):
        found.append("the help text is a sentence with a full stop")
    if len(family.labels) > 3:
        found.append("more than three labels multiply to too many time series")
    for label in family.labels:
        if not re.fullmatch(r"[a-z][a-z_]*", label) or label in RESERVED_LABELS:
            found.append(f"{label} is no label name of ours")
        if label not in LABELS:
            found.append(f"process.registry.LABELS does not say what bounds the values of {label}")
        if label in words:
            found.append(f"the name repeats its label {label}")
    return found


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_a_family_keeps_the_rules(family: Family) -> None:
    assert problems(family) == []


@pytest.mark.parametrize(
    ("family", "says"),
    [
        (Family("ecm_calls", "counter", "Calls that were made.", ()), "_total"),
        (Family("ecm_wait_ms", "gauge", "Time of a wait.", ()), "ms is no base unit"),
        (Family("ecm_wait", "histogram", "Time of a wait.", ()), "names its unit"),
        (Family("ecm_seconds_of_waits", "gauge", "Time of a wait.", ()), "a unit stands last"),
        (Family("ecm_calls_total", "counter", "calls", ()), "help text"),
        (Family("ecm_calls_total", "counter", "Calls that were made.", ("user",)), "no label name of ours"),
        (Family("ecm_calls_total", "counter", "Calls that were made.", ("path",)), "what bounds the values of path"),
        (Family("ecm_calls_count", "gauge", "Calls that were made.", ()), "suffix of Prometheus's own"),
    ],
    ids=lambda value: value.name if isinstance(value, Family) else value[:20],
)
def test_the_rules_find_what_breaks_them(family: Family, says: str) -> None:
    assert says in " ".join(problems(family))


def test_a_name_means_the_same_in_each_process() -> None:
    names = [family.name for family in ALL]
    assert len(names) == len(set(names)), "two families of one name differ in type, text or labels"


def test_every_label_that_is_described_is_used() -> None:
    assert set(LABELS) == {label for family in ALL for label in family.labels}


def test_a_registry_shows_its_own_families_before_anything_is_counted() -> None:
    registry = Registry()
    Counter("ecm_calls", "Calls.", ["code"], registry=registry)
    Gauge("other_thing", "Not ours.", registry=registry)
    assert registry.families() == [Family("ecm_calls_total", "counter", "Calls.", ("code",))]
    assert b"process_resident_memory_bytes" in registry.text()


def test_counters_of_fixed_values_are_there_from_the_start() -> None:
    text = Metrics().registry.text().decode() + GatewayMetrics().registry.text().decode()
    for sample in (
        'ecm_drift_total{kind="row_status"}', 'ecm_tasks_total{outcome="Lost"}', 'ecm_uploads_total{outcome="refused"}',
        'ecm_lease_changes_total{change="lost"}', 'ecm_post_mortems_total{outcome="failed"}',
        'ecm_gateway_agent_errors_total{kind="connect"}', 'ecm_gateway_tls_reloads_total{result="failure"}',
        *(f'ecm_engine_refusals_total{{limit="{limit}"}}' for limit in LIMITS),
    ):  # fmt: skip
        assert f"{sample} 0.0" in text.splitlines()


ENDS = "ecm_engine_ends_total{"


def engine(name: str) -> EngineView:
    """An engine whose type and tenant are its name."""
    body = {"spec": {"engineType": name, "user": "u", "tenant": name}, "status": {"engineType": name}}
    return engine_view(body, epoch=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_label_that_users_fill_has_a_bounded_number_of_values() -> None:
    registry = Registry()
    engines = EngineCount(registry=registry)
    engines.watch(lambda: [("Idle", f"type-{n}", f"tenant-{n}") for n in range(10 * VALUES_MAX)])
    shown = [line for line in registry.text().decode().splitlines() if line.startswith("ecm_engines{")]
    assert len(shown) == VALUES_MAX + 1
    assert f'ecm_engines{{engine_type="other",state="Idle",tenant="other"}} {9 * VALUES_MAX}.0' in shown
    few = BoundedValues(2)
    few.keep(["a", "b", "c"])
    assert [few.of(value) for value in ("a", "b", "c", "a")] == ["a", "b", "other", "a"]


def test_made_up_types_take_no_place_of_the_catalogues_or_of_those_with_most_engines() -> None:
    registry = Registry()
    counted = EngineCount(registry=registry)
    junk = [("Idle", f"junk-{n}", "t") for n in range(3 * VALUES_MAX)]
    engines = list(junk)
    counted.watch(lambda: engines, known_types=lambda: ["python", "spark"])
    registry.text()
    # The catalogue's types come after the junk has each place, with one engine each.
    engines += [("Idle", "python", "t"), ("Idle", CANARY_TYPE, "t"), *[("Busy", "many", "t")] * 5]
    shown = registry.text().decode()
    for kind, state, number in (("python", "Idle", 1), (CANARY_TYPE, "Idle", 1), ("many", "Busy", 5)):
        assert f'ecm_engines{{engine_type="{kind}",state="{state}",tenant="t"}} {number}.0' in shown
    assert sum('engine_type="junk-' in line for line in shown.splitlines()) == VALUES_MAX - 3
    assert f'ecm_engines{{engine_type="other",state="Idle",tenant="t"}} {2 * VALUES_MAX + 3}.0' in shown
    assert canary.ENGINE_TYPE == CANARY_TYPE


def test_states_types_and_tenants_together_are_bounded_and_lose_no_engine() -> None:
    registry = Registry()
    counted = EngineCount(registry=registry)
    engines = [
        (state, kind, f"tenant-{tenant}")
        for state in ("Idle", "Busy", "Failed")
        for kind in ("python", *(f"junk-{n}" for n in range(40)))
        for tenant in range(60)
    ]
    counted.watch(lambda: engines, known_types=lambda: ["python"])
    lines = [line for line in registry.text().decode().splitlines() if line.startswith("ecm_engines{")]
    assert SERIES_MAX <= len(lines) <= SERIES_MAX + 10
    assert sum(float(line.rpartition(" ")[2]) for line in lines) == len(engines)
    assert sum('engine_type="python"' in line for line in lines) == 3 * 60


def test_values_that_no_object_has_any_more_make_room_for_real_ones() -> None:
    metrics = Metrics()
    engines = {("ns", f"junk{number}"): engine(f"junk{number}") for number in range(2 * VALUES_MAX)}
    metrics.watch_engines(engines.values)
    metrics.registry.text()
    for one in engines.values():
        metrics.ends.labels("Completed", *metrics.labels_of(one)).inc()
    real = engine("real")
    assert metrics.labels_of(real) == ("other", "other"), "there is no room while the others are there"
    engines.clear()
    engines["ns", "real"] = real
    metrics.registry.text()
    assert metrics.labels_of(real) == ("real", "real")
    for number in range(3 * VALUES_MAX):
        metrics.ends.labels("Completed", *metrics.labels_of(engine(f"more{number}"))).inc()
        assert metrics.labels_of(real) == ("real", "real"), "what is there is not driven out"
    # The time series of values that went are gone, too.
    assert len([line for line in metrics.registry.text().decode().splitlines() if line.startswith(ENDS)]) <= VALUES_MAX


def test_the_value_that_was_used_longest_ago_goes_first() -> None:
    few, gone = BoundedValues(2), list[str]()
    few.on_evict = gone.append
    assert [few.of(value) for value in ("a", "b", "a", "c")] == ["a", "b", "a", "c"]
    assert gone == ["b"]
    few.keep(["a", "c"])
    assert few.of("d") == "other"
    few.keep(["c"])
    assert few.of("d") == "d"
    assert gone == ["b", "a"]
