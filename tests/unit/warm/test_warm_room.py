"""Which refusals a member that goes from a warm pool would help with, and how much of them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.warm.room import free_on, need
from linkis_ecm.model.reasons import QUOTA_EXCEEDED, UNSCHEDULABLE
from tests.unit.warm.test_warm_sizing import pod

QUOTA = 'pods "e" is forbidden: exceeded quota: q, requested: {}, used: cpu=4, limited: cpu=4. Wait.'
PREEMPTION = " preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."
ENGINE = replace(pod("e", ready=False), cpu_request="2", cpu_limit="4", memory_limit="1Gi")
MEMBER = replace(pod("m"), cpu_request="500m", cpu_limit="1", memory_limit="512Mi", node="n1")


def waits(words: str) -> PodView:
    return replace(ENGINE, unschedulable=words)


@pytest.mark.parametrize(
    ("requested", "share"),
    [
        ("pods=1", 1.0), ("count/pods=1", 1.0), ("requests.cpu=2", 0.25), ("cpu=1", 0.5), ("limits.cpu=4", 0.25),
        ("limits.memory=1Gi,requests.cpu=1", 0.5), ("requests.ephemeral-storage=1Gi", 1.0),
        ("requests.nvidia.com/gpu=1", None), ("requests.cpu=1,requests.nvidia.com/gpu=1", None),
        ("persistentvolumeclaims=1", None), ("requests.cpu=much", 1.0),
    ],
)  # fmt: skip
def test_of_a_quota_all_that_it_names_must_be_what_members_hold(requested: str, share: float | None) -> None:
    found = need(QUOTA_EXCEEDED.name, QUOTA.format(requested), None)
    assert (found.share(MEMBER) if found is not None else None) == share


@pytest.mark.parametrize(
    ("words", "share"),
    [
        ("0/3 nodes are available: 3 Insufficient cpu.", 0.25),
        ("0/3 nodes are available: 1 Insufficient memory, 2 Insufficient cpu." + PREEMPTION, 0.25),
        ("0/3 nodes are available: 1 Too many pods, 2 node(s) had untolerated taint {a: b}.", 1.0),
        ("0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't match Pod's node affinity/selector.", 0.5),
        ("0/3 nodes are unavailable: 3 Insufficient memory.", 0.5),
        ("0/3 nodes are available: 3 Insufficient cpu, 2 Insufficient nvidia.com/gpu.", 0.25),
        # All nodes lack something that no member has.
        ("0/3 nodes are available: 3 Insufficient cpu, 3 Insufficient nvidia.com/gpu.", None),
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu." + PREEMPTION, None),
        ("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector." + PREEMPTION, None),
        ("0/3 nodes are available: 1 Insufficient cpu, 3 node(s) were unschedulable.", None),
        ("no nodes available to schedule pods", None),
        ("", None),
    ],
)
def test_of_nodes_one_must_lack_nothing_else(words: str, share: float | None) -> None:
    found = need(UNSCHEDULABLE.name, "the status may be older", waits(words))
    assert (found.share(MEMBER) if found is not None else None) == share
    assert need(UNSCHEDULABLE.name, words, None) is None


def test_a_member_without_a_node_leaves_no_room_on_one() -> None:
    found = need(UNSCHEDULABLE.name, "", waits("0/3 nodes are available: 3 Insufficient cpu."))
    assert found is not None
    assert found.share(replace(MEMBER, node="")) == 0


@pytest.mark.parametrize(
    ("words", "members", "met", "said"),
    [
        # The quota has 500m left, so members must leave 1500m of the 2 that are asked for.
        ("requested: requests.cpu=2, used: requests.cpu=3500m, limited: requests.cpu=4", 3, True, ""),
        (
            "requested: requests.cpu=2, used: requests.cpu=3500m, limited: requests.cpu=4",
            2,
            False,
            "1.5 of cpu where it asks for 2",
        ),
        # The quota was lowered below what is used.
        ("requested: cpu=500m, used: cpu=3, limited: cpu=2", 2, False, "0 of cpu where it asks for 0.5"),
        ("requested: cpu=500m, used: cpu=3, limited: cpu=2", 3, True, ""),
        (
            "requested: cpu=1,limits.memory=4Gi, used: cpu=4,limits.memory=4Gi, limited: cpu=4,limits.memory=4Gi",
            4,
            False,
            "2048Mi of memory limit where it asks for 4096Mi",
        ),
        ("requested: pods=1, used: pods=9, limited: pods=9", 1, True, ""),
        ("requested: pods=1, used: pods=9, limited: pods=9", 0, False, "0 of pods where it asks for 1"),
        ("requested: pods=1, used: pods=9, limited: pods=7", 2, False, "0 of pods where it asks for 1"),
        ("requested: pods=1, used: pods=9, limited: pods=7", 3, True, ""),
        # What cannot be read is not held against it.
        ("requested: cpu=much, used: cpu=4, limited: cpu=4", 1, True, ""),
        ("requested: cpu=1, used: cpu=4", 1, False, "0.5 of cpu where it asks for 1"),
    ],
)
def test_all_members_together_must_leave_what_a_quota_lacks(words: str, members: int, met: bool, said: str) -> None:
    found = need(QUOTA_EXCEEDED.name, f"exceeded quota: q, {words}", None)
    assert found is not None
    assert found.is_met([MEMBER] * members) is met
    assert found.in_words([MEMBER] * members) == said


@pytest.mark.parametrize(
    ("words", "share"),
    [
        # 500m of the 1500m that are lacking, of 2 that are asked for.
        ("requested: cpu=2, used: cpu=3500m, limited: cpu=4", 1 / 3),
        # The quota was lowered: 1500m must go for 500m.
        ("requested: cpu=500m, used: cpu=3, limited: cpu=2", 1 / 3),
        ("requested: pods=1, used: pods=9, limited: pods=7", 1 / 3),
        ("requested: cpu=500m,pods=1, used: cpu=3,pods=9, limited: cpu=3,pods=7", 1 / 3),
        ("requested: cpu=1,requests.cpu=1, used: cpu=4,requests.cpu=4, limited: cpu=5,requests.cpu=4", 0.5),
        # A member requests half of its memory's limit.
        ("requested: requests.memory=1Gi, used: requests.memory=4Gi, limited: requests.memory=4Gi", 0.25),
        ("requested: limits.memory=1Gi, used: limits.memory=4Gi, limited: limits.memory=4Gi", 0.5),
    ],
)
def test_a_members_share_is_of_what_the_quota_lacks(words: str, share: float) -> None:
    found = need(QUOTA_EXCEEDED.name, f"exceeded quota: q, {words}", None)
    assert found is not None
    assert found.share(replace(MEMBER, memory_request="256Mi")) == pytest.approx(share)


def test_a_node_counts_memory_by_what_is_requested() -> None:
    member = replace(MEMBER, memory_request="128Mi")
    engine = replace(ENGINE, memory_request="256Mi", unschedulable="0/1 nodes are available: 1 Insufficient memory.")
    found = need(UNSCHEDULABLE.name, "", engine)
    assert found is not None
    assert (found.is_met([member]), found.is_met([member] * 2)) == (False, True)
    assert free_on({"memory": "1Gi"}, [member])["memory"] == Decimal(7 * 128 * 1024**2)


def test_of_a_node_members_and_what_it_has_left_must_be_enough() -> None:
    found = need(UNSCHEDULABLE.name, "", waits("0/3 nodes are available: 3 Insufficient cpu, 3 Insufficient memory."))
    assert found is not None
    assert found.is_met([MEMBER] * 4, {})
    assert not found.is_met([MEMBER] * 3, {})
    assert (
        found.in_words([MEMBER], {}) == "0.5 of cpu where it asks for 2, and 512Mi of memory where it asks for 1024Mi"
    )
    busy = replace(MEMBER, cpu_request="1500m", memory_limit="1Gi", member=None)
    free = free_on({"cpu": "3", "memory": "4Gi", "pods": "9"}, [MEMBER, MEMBER, busy])
    assert (free["cpu"], free["memory"]) == (Decimal("0.5"), Decimal(2 * 1024**3))
    assert not found.is_met([MEMBER] * 2, free)
    assert found.is_met([MEMBER] * 3, free)
    assert free_on({}, [MEMBER]) == {}
    assert free_on({"cpu": "1", "memory": "x"}, [busy]) == {"cpu": Decimal("-0.5")}


@given(st.text(max_size=300), st.sampled_from(["", "exceeded quota: q, requested: ", "0/3 nodes are available: "]))
def test_no_words_raise_and_no_share_is_more_than_all(words: str, before: str) -> None:
    for reason in (QUOTA_EXCEEDED, UNSCHEDULABLE):
        found = need(reason.name, before + words, waits(before + words))
        assert found is None or 0 <= found.share(MEMBER) <= 1
        assert found is None or found.is_met([MEMBER]) is (found.in_words([MEMBER]) == "")
