"""The benchmark of warm pools: what its file has, and that its hops together are the whole claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.processes import cpu
from bench.warm import FIRST, HOPS, document, hops
from tools.testkit.cluster.warm_pods import claimable


def claim(begun: float, *seconds: float) -> dict[str, float]:
    """The moments of a claim whose hops take so long."""
    moments, at = {FIRST: begun}, begun
    for (moment, _), took in zip(HOPS, seconds, strict=True):
        at += took
        moments[moment] = at
    return moments


def test_the_hops_of_a_claim_together_are_the_whole_of_it() -> None:
    found = hops([claim(1000.0 * number, 0.010, 0.002, 0.012, 0.008, 0.021) for number in range(1, 4)])
    assert [one["hop"] for one in found] == [words for _, words in HOPS]
    assert [one["ms"] for one in found] == pytest.approx([10, 2, 12, 8, 21], abs=0.02)
    assert sum(one["ms"] for one in found) == pytest.approx(53, abs=0.1)


def test_a_hops_p90_is_that_of_the_slow_claims() -> None:
    first = hops([claim(0, 0.010 + 0.001 * number, 0, 0, 0, 0) for number in range(11)])[0]
    assert (first["ms"], first["p90"]) == (15.0, 19.0)


def test_the_document_has_every_sample_in_seconds() -> None:
    made = document({"raw": [0.5361234], "warm": [0.05, 0.0634567]}, [claim(0, 1, 1, 1, 1, 1)] * 2, {"etcd": 1.5})
    assert made["raw"] == [0.53612]
    assert made["warm"] == [0.05, 0.06346]
    assert made["cpu"] == {"etcd": 1.5}
    assert {tuple(one) for one in made["hops"]} == {("hop", "ms", "p90")}


@pytest.mark.parametrize(
    ("metadata", "phase", "counts"),
    [
        ({"annotations": {"linkis.apache.org/warm-ready": "{}"}}, "Running", True),
        # A member that goes is nobody's to take, though it is still marked.
        (
            {"annotations": {"linkis.apache.org/warm-ready": "{}"}, "deletionTimestamp": "2026-11-27T12:00:00Z"},
            "Running",
            False,
        ),
        ({"annotations": {"linkis.apache.org/warm-ready": "{}"}}, "Failed", False),
        ({"annotations": {"linkis.apache.org/warm-template": "a"}}, "Running", False),
        ({"annotations": None}, "Running", False),
        ({}, "Pending", False),
    ],
)
def test_members_that_may_be_claimed_are_marked_and_stay(metadata: dict[str, Any], phase: str, counts: bool) -> None:
    assert claimable({"metadata": metadata, "status": {"phase": phase}}) is counts
    assert not claimable({"metadata": metadata})


def test_the_meter_counts_what_a_process_ran_since_the_call_before(tmp_path: Path) -> None:
    def ran(*nanoseconds: int) -> None:
        for number, each in enumerate(nanoseconds):
            thread = tmp_path / "7/task" / str(number)
            thread.mkdir(parents=True, exist_ok=True)
            (thread / "schedstat").write_text(f"{each} 1 2\n")

    for pid, line, group in (
        ("self", "", ""), ("7", "/bin/etcd\0--data\0x", "0::/system"), ("8", "grep\0etcd", "0::/system"),
        ("9", "python\0-m\0linkis_ecm\0operator", "0::/kubepods/pod1"),
        ("10", "python\0-m\0linkis_ecm\0operator", "0::/user"),
    ):  # fmt: skip
        (tmp_path / pid / "ns").mkdir(parents=True)
        (tmp_path / pid / "ns/net").symlink_to("net:[1]" if pid != "9" else "net:[2]")
        (tmp_path / pid / "cmdline").write_text(line)
        (tmp_path / pid / "cgroup").write_text(group)
    ran(1_000_000)
    assert cpu.processes(tmp_path) == {"etcd": [7], "operator": [9]}
    since = cpu.meter(tmp_path)
    ran(3_000_000, 500_000)
    assert since() == {"etcd": pytest.approx(0.0025), "operator": 0.0}
    assert since()["etcd"] == 0.0
