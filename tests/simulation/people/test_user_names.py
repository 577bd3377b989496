"""Users with the names that companies give them: the same user in resource, label, row and log folder."""

from __future__ import annotations

import pytest

from tools.testkit.fakes.rules import StatusError
from tools.testkit.simulation.world import World

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize(
    ("written", "user"),
    [
        ("hadoop", "hadoop"), ("Alice", "Alice"), ("jane-doe", "jane_x2ddoe"), ("jane@corp.com", "jane_x40corp.com"),
        ("CORP\\bob", "CORP_x5cbob"), ("张三", "_xe5_xbc_xa0_xe4_xb8_x89"), ("jane_x2ddoe", "jane_x2ddoe"),
    ],
)  # fmt: skip
async def test_a_user_is_the_same_wherever_it_is_written(world: World, written: str, user: str) -> None:
    world.create("e", user=written)
    await world.until_state("e", "Idle")
    (pod,) = world.pods("e")
    row = world.row("e")
    assert row is not None
    assert (row.create_user, row.label_value) == (user, f"{user}-IDE,python-3.11")
    assert row.log_dir_suffix.split("/")[0] == user
    assert len(row.log_dir_suffix.split("/")) == 5
    label = pod["metadata"]["labels"]["linkis.apache.org/user"]
    assert label == user or label.startswith("sha256-")
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")


@pytest.mark.parametrize(
    ("field", "value"), [("creator", "my-app"), ("creator", "a,b"), ("tenant", "t-1"), ("engineVersion", "3.11-slim")]
)
async def test_a_refused_character_of_a_label_has_linkis_reason(world: World, field: str, value: str) -> None:
    with pytest.raises(StatusError) as refused:
        world.create("e", **{field: value})
    assert field in refused.value.message
