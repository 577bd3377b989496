"""Which bundles leave a full archive: those of who has most, and never another's before."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.store.evictions import Kept, evictions

KEPT = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100), st.integers(0, 20)), max_size=25).map(
    lambda rows: [Kept(f"u{n}", owner, size, end) for n, (owner, size, end) in enumerate(rows)]
)


def test_the_biggest_owner_loses_the_oldest_first() -> None:
    kept = [Kept("old", "alice", 10, 1), Kept("b2", "bob", 60, 3), Kept("b1", "bob", 50, 2), Kept("c", "carol", 20, 0)]
    assert evictions(kept, total=140, per_owner=1000) == []
    assert evictions(kept, total=139, per_owner=1000) == ["b1"]
    assert evictions(kept, total=29, per_owner=1000) == ["b1", "b2", "c"]
    assert evictions(kept, total=1000, per_owner=60) == ["b1"]
    assert evictions(kept, total=0, per_owner=0) == ["b1", "b2", "c", "old"]


@given(KEPT, st.integers(0, 500), st.integers(0, 300))
def test_bounds_hold_afterwards_and_no_bundle_goes_for_anothers(kept: list[Kept], total: int, per_owner: int) -> None:
    gone = evictions(kept, total=total, per_owner=per_owner)
    assert len(set(gone)) == len(gone)
    by_uid = {one.uid: one for one in kept}
    sizes: Counter[str] = Counter()
    for one in kept:
        sizes[one.owner] += one.size
    for uid in gone:
        owner = by_uid[uid].owner
        # It was needed, and its owner had most.
        assert sizes.total() > total or sizes[owner] > per_owner
        assert sizes[owner] == max(sizes.values())
        sizes[owner] -= by_uid[uid].size
    assert sizes.total() <= total
    assert all(size <= per_owner for size in sizes.values())


@given(KEPT, st.integers(0, 500))
def test_an_owner_below_the_share_of_all_loses_nothing(kept: list[Kept], total: int) -> None:
    gone = set(evictions(kept, total=total, per_owner=10_000))
    owners = {one.owner for one in kept}
    for owner in owners:
        own = [one for one in kept if one.owner == owner]
        if sum(one.size for one in own) <= total // len(owners):
            assert not {one.uid for one in own if one.size} & gone
