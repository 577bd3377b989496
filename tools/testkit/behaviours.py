"""How engines behave, told once: each function here passes in simulation and on a real cluster.

A behaviour speaks to a `World` alone: what a user does, what a user sees, and the operator's death. Must not know
which world it is in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Row:
    """What the database says of an engine."""

    status: str
    final: bool
    reason: str
    label_value: str
    times: tuple[int, int, int]  # requested, used, released
    states: tuple[str, ...]  # in their order


class World(Protocol):
    """A cluster with our operator, its database and a plugin `python-3.11`."""

    async def create(self, name: str, trouble: str = "", **spec: Any) -> str:
        """An engine of user hadoop; its uid. `trouble`: "unschedulable" or "image" keeps its pod from starting."""
        ...

    async def edit(self, name: str, **spec: Any) -> None: ...
    async def delete(self, name: str) -> None: ...
    async def delete_pod(self, name: str) -> None: ...
    async def begin_task(self, name: str) -> None:
        """Code that runs until `end_task`."""
        ...

    async def end_task(self, name: str) -> None: ...
    async def kill_operator(self) -> None:
        """kill -9; another one is started."""
        ...

    async def engine(self, name: str) -> dict[str, Any] | None: ...
    async def pods(self, name: str) -> list[dict[str, Any]]: ...
    async def row(self, ticket: str) -> Row | None: ...
    async def until(self, what: str, probe: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        """The first answer that is true; fails with `what` when the time is over."""
        ...


async def status(world: World, name: str) -> dict[str, Any]:
    found = await world.engine(name)
    return dict((found or {}).get("status") or {})


async def _until(
    world: World, what: str, look: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool], seconds: float
) -> Any:
    """What is looked at, once that holds of it; fails with what was seen last."""
    seen: list[Any] = []

    async def probe() -> bool:
        seen[:] = [await look()]
        return holds(seen[0])

    try:
        await world.until(what, probe, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; seen last: {seen[0]!r:.2000}") from None
    return seen[0]


async def until_state(world: World, name: str, state: str, seconds: float = 90) -> dict[str, Any]:
    """The status once the engine is in that state."""
    found = await _until(
        world, f"{name} is {state}", lambda: status(world, name), lambda s: s.get("engineState") == state, seconds
    )
    return dict(found)


async def until_reason(world: World, name: str, reason: str, seconds: float = 90) -> dict[str, Any]:
    found = await _until(
        world, f"{name} says {reason}", lambda: status(world, name), lambda s: s.get("reason") == reason, seconds
    )
    return dict(found)


async def until_row(world: World, ticket: str, state: str, *, final: bool, seconds: float = 90) -> Row:
    row = await _until(
        world,
        f"the row of {ticket} says {state}",
        lambda: world.row(ticket),
        lambda found: found is not None and (found.status, found.final) == (state, final),
        seconds,
    )
    assert isinstance(row, Row)
    return row


async def gone(world: World, name: str, seconds: float = 90) -> None:
    await _until(world, f"{name} has no pod", lambda: world.pods(name), lambda pods: not pods, seconds)


async def an_engine_gets_ready_with_address_phases_and_row(world: World) -> None:
    uid = await world.create("ready")
    found = await until_state(world, "ready", "Idle")
    assert found["ticketId"] == uid
    assert ".linkis-engines." in found["serviceInstance"]
    conditions = {c["type"]: c["status"] for c in found["conditions"]}
    assert conditions == {"Ready": "True", "PodScheduled": "True", "Registered": "True", "Draining": "False"}
    order = [found["startup"][phase] for phase in ("accepted", "scheduled", "containerStarted", "ready")]
    assert order == sorted(order)
    row = await until_row(world, uid, "Idle", final=False)
    assert (row.label_value, row.times, row.states) == ("hadoop-IDE,python-3.11", (1, 1, 0), ("Starting", "Idle"))


async def a_task_shows_as_busy_and_its_end_as_idle(world: World) -> None:
    uid = await world.create("task")
    await until_state(world, "task", "Idle")
    await world.begin_task("task")
    await until_row(world, uid, "Busy", final=False)
    await until_state(world, "task", "Busy")
    await world.end_task("task")
    await until_state(world, "task", "Idle")
    await until_row(world, uid, "Idle", final=False)


async def a_stopped_engine_ends_as_linkis_counts_it(world: World) -> None:
    uid = await world.create("stop")
    await until_state(world, "stop", "Idle")
    await world.edit("stop", desiredState="Stopped")
    found = await until_state(world, "stop", "Success")
    assert found["reason"] == "StoppedByUser"
    row = await until_row(world, uid, "ShuttingDown", final=True)
    assert (row.reason, row.times) == ("StoppedByUser", (1, 1, 1))
    assert row.states[:2] == ("Starting", "Idle")


async def an_engine_stopped_before_it_ran_never_has_a_pod(world: World) -> None:
    uid = await world.create("never", desiredState="Stopped")
    await until_state(world, "never", "Success")
    assert await world.pods("never") == []
    row = await until_row(world, uid, "ShuttingDown", final=True)
    assert row.times == (1, 0, 1)


async def a_stop_while_starting_takes_the_pod_away(world: World) -> None:
    await world.create("early", trouble="unschedulable")
    await until_reason(world, "early", "Unschedulable")
    await world.edit("early", desiredState="Stopped")
    await until_state(world, "early", "Success")
    await gone(world, "early")


async def a_pod_deleted_by_hand_fails_the_engine_once(world: World) -> None:
    uid = await world.create("robbed")
    await until_state(world, "robbed", "Idle")
    await world.delete_pod("robbed")
    found = await until_state(world, "robbed", "Failed")
    assert found["reason"] == "PodDeleted"
    await gone(world, "robbed")
    await until_row(world, uid, "Failed", final=True)


async def a_deleted_engine_leaves_its_last_row_and_no_pod(world: World) -> None:
    uid = await world.create("gone")
    await until_state(world, "gone", "Idle")
    await world.delete("gone")
    row = await until_row(world, uid, "ShuttingDown", final=True)
    assert (row.reason, row.times) == ("Deleted", (1, 1, 1))
    await gone(world, "gone")


async def an_engine_made_anew_under_its_name_is_another(world: World) -> None:
    first = await world.create("twice")
    await until_state(world, "twice", "Idle")
    await world.delete("twice")
    second = await world.create("twice")
    await until_state(world, "twice", "Idle")
    assert first != second
    await until_row(world, first, "ShuttingDown", final=True)
    await until_row(world, second, "Idle", final=False)


async def a_missing_plugin_is_named_and_fails_at_the_start_timeout(world: World) -> None:
    await world.create("unknown", engineType="cobol", startTimeout="3s")
    found = await until_reason(world, "unknown", "PluginMissing")
    assert "cobol" in found["message"]
    await until_state(world, "unknown", "Failed")
    assert await world.pods("unknown") == []


async def an_engine_over_the_bounds_fails_and_names_the_field(world: World) -> None:
    await world.create("greedy", resources={"memory": "4Ti"})
    found = await until_state(world, "greedy", "Failed")
    assert found["reason"] == "InvalidSpec"
    assert "spec.resources.memory" in found["message"]
    assert await world.pods("greedy") == []


async def an_unschedulable_engine_says_what_lacks_and_fails_at_the_timeout(world: World) -> None:
    uid = await world.create("nowhere", trouble="unschedulable")
    found = await until_reason(world, "nowhere", "Unschedulable")
    assert "0/1 nodes" in found["message"]
    # Only now, so that the deadline does not come before the scheduler's word on a busy machine.
    await world.edit("nowhere", startTimeout="4s")
    found = await until_state(world, "nowhere", "Failed")
    assert found["reason"] == "Unschedulable"
    assert "within its startTimeout" in found["message"]
    await gone(world, "nowhere")
    row = await until_row(world, uid, "Failed", final=True)
    assert row.times == (1, 0, 1)


async def an_image_that_cannot_be_pulled_is_told(world: World) -> None:
    await world.create("imageless", trouble="image")
    found = await until_reason(world, "imageless", "ImagePullBackOff")
    assert "no-such-image" in found["message"]
    await world.edit("imageless", desiredState="Stopped")
    await until_state(world, "imageless", "Success")
    await gone(world, "imageless")


async def an_idle_engine_ends_after_its_timeout_and_a_busy_one_does_not(world: World) -> None:
    idle = await world.create("idle")
    await world.create("busy")
    for name in ("idle", "busy"):
        await until_state(world, name, "Idle")
    await world.begin_task("busy")
    await until_state(world, "busy", "Busy")
    # The busy one first, and only now: on a busy machine either would end before the task has begun.
    for name in ("busy", "idle"):
        await world.edit(name, idleTimeout="4s")
    found = await until_state(world, "idle", "Success")
    assert found["reason"] == "IdleTimeout"
    await until_row(world, idle, "Success", final=True)
    assert (await status(world, "busy"))["engineState"] == "Busy"
    await world.end_task("busy")
    await until_state(world, "busy", "Success")


async def an_ended_engine_is_removed_after_its_ttl(world: World) -> None:
    uid = await world.create("brief", desiredState="Stopped", ttlAfterFinished="2s")

    await _until(world, "the resource is gone", lambda: world.engine("brief"), lambda found: found is None, 90)
    row = await until_row(world, uid, "ShuttingDown", final=True)
    assert row.reason == "StoppedByUser"


async def a_killed_operator_loses_nothing_and_writes_nothing_anew(world: World) -> None:
    await world.create("settled")
    await until_state(world, "settled", "Idle")
    before = await world.engine("settled")
    assert before is not None
    await world.create("young")
    await world.kill_operator()
    await until_state(world, "young", "Idle", 120)
    assert len(await world.pods("young")) == 1
    after = await world.engine("settled")
    assert after is not None
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


BEHAVIOURS: dict[str, Callable[[World], Awaitable[None]]] = {
    function.__name__: function
    for function in (
        an_engine_gets_ready_with_address_phases_and_row,
        a_task_shows_as_busy_and_its_end_as_idle,
        a_stopped_engine_ends_as_linkis_counts_it,
        an_engine_stopped_before_it_ran_never_has_a_pod,
        a_stop_while_starting_takes_the_pod_away,
        a_pod_deleted_by_hand_fails_the_engine_once,
        a_deleted_engine_leaves_its_last_row_and_no_pod,
        an_engine_made_anew_under_its_name_is_another,
        a_missing_plugin_is_named_and_fails_at_the_start_timeout,
        an_engine_over_the_bounds_fails_and_names_the_field,
        an_unschedulable_engine_says_what_lacks_and_fails_at_the_timeout,
        an_image_that_cannot_be_pulled_is_told,
        an_idle_engine_ends_after_its_timeout_and_a_busy_one_does_not,
        an_ended_engine_is_removed_after_its_ttl,
        a_killed_operator_loses_nothing_and_writes_nothing_anew,
    )
}
