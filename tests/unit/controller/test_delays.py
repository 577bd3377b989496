"""How long a pass may wait: a usual start costs few passes, and whatever else happens is looked at at once."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from linkis_ecm.controller.state.delays import AVAILABLE_WRITTEN, POD_STARTS, after_pod_event, after_write
from linkis_ecm.controller.state.memory import Memory
from linkis_ecm.engine.by_identity import ByIdentity
from linkis_ecm.engine.decision import CreatePod, Stop
from linkis_ecm.engine.pod_view import ContainerView
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import EngineConnSpec, Launch
from linkis_ecm.model.states import EngineState
from tests.unit.engine.snapshots import IDLE, STARTING, T0, at, decided, ended, engine, gone, pod, report, snapshot

AGENT = Launch(kind="agent")


def waits(status: dict[str, Any] | None = None, *, memory: Memory | None = None, **changes: Any) -> float:
    values = {"launch": AGENT, "phase": "Pending", "ip": "", "started": None} | changes
    return after_pod_event(engine(status or STARTING), memory or Memory("u1", T0), pod(**values))


def test_a_pod_on_its_way_waits_for_its_agents_report() -> None:
    assert waits(node="") == waits() == waits(phase="Running", started=at(1), ip="10.0.0.9") == POD_STARTS
    assert waits(waiting_reason="ContainerCreating") == POD_STARTS


@pytest.mark.parametrize(
    "changes",
    [
        {"waiting_reason": "ImagePullBackOff"},
        {"waiting_reason": "CreateContainerConfigError"},
        {"unschedulable": "0/3 nodes are available"},
        {"gates": ("queue",)},
        {"disruption": "EvictionByEvictionAPI"},
        {"phase": "Failed"},
        {"phase": "Succeeded"},
        {"terminated": ended},
        {"launch": None},
        {"launch": Launch(kind="process")},
        {"claimed": 0},
        {"others": (ContainerView(name="proxy"),)},
        {"name": "e-pod-9"},
        {"owner_uid": "u2"},
        gone,
    ],
)
def test_a_pod_of_which_there_is_something_to_say_does_not_wait(changes: dict[str, Any]) -> None:
    assert waits(**changes) == 0


@pytest.mark.parametrize(
    "status",
    [IDLE, {}, STARTING | {"reason": "Unschedulable"}, STARTING | {"engineState": "ShuttingDown"}, {"podName": ""}],
)
def test_an_engine_in_another_state_does_not_wait(status: dict[str, Any]) -> None:
    assert waits(status or {"message": "none"}) == 0


def test_an_engine_that_is_known_more_of_does_not_wait() -> None:
    memory = Memory("u1", T0)
    memory.report = report()
    assert waits(memory=memory, phase="Running", ip="10.0.0.9") == 0
    memory.report, memory.stop = None, Stop(T0, reasons.STOPPED_BY_USER)
    assert waits(memory=memory) == 0
    assert after_pod_event(engine(STARTING), None, pod(launch=AGENT)) == 0
    assert after_pod_event(None, Memory("u1", T0), pod(launch=AGENT)) == 0
    stopping = engine(STARTING, desiredState="Stopped")
    assert after_pod_event(stopping, Memory("u1", T0), pod(launch=AGENT)) == 0


def test_what_a_start_writes_needs_no_pass_at_once() -> None:
    made = decided(snapshot())
    assert [type(action) for action in made.actions] == [CreatePod]
    assert after_write(made) == POD_STARTS
    ready = decided(snapshot(engine=engine(STARTING), pod=pod(launch=AGENT), report=report()))
    assert (ready.state, after_write(ready)) == (EngineState.IDLE, AVAILABLE_WRITTEN)
    # The decision's own deadline is sooner, or as late as the pass.
    assert ready.deadline is not None


def test_the_pass_that_wrote_it_has_the_deadline_of_the_next_one() -> None:
    """So nothing is late for a pass that waits: with the status written, the same deadline comes out."""
    ready = decided(snapshot(engine=engine(STARTING), pod=pod(launch=AGENT), report=report()))
    after = decided(snapshot(engine=engine(STARTING | ready.patch), pod=pod(launch=AGENT), report=report()))
    assert not after.patch
    assert not after.actions
    assert after.deadline == ready.deadline


def test_what_else_is_written_is_looked_at_at_once() -> None:
    failed = decided(snapshot(engine=engine(STARTING), pod=pod(phase="Failed", terminated=ended)), 30)
    assert after_write(failed) == 0
    stopped = decided(snapshot(engine=engine(IDLE, desiredState="Stopped"), pod=pod(launch=AGENT), report=report()))
    assert stopped.stop is not None
    assert after_write(stopped) == 0
    slow = decided(snapshot(engine=engine(STARTING), pod=pod(unschedulable="no room", node="", started=None)))
    assert slow.patch["reason"] == "Unschedulable"
    assert after_write(slow) == 0


class Numbers(list[int]):
    """A list to which there are weak references."""


def test_a_function_is_asked_once_for_an_object() -> None:
    asked: list[Numbers] = []

    def length(of: Numbers) -> int:
        asked.append(of)
        return len(of)

    known = ByIdentity(length, size=2)
    one, equal, third = Numbers([1]), Numbers([1]), Numbers([1, 2, 3])
    assert [known(one), known(one), known(equal), known(third), known(third)] == [1, 1, 1, 3, 3]
    assert [id(of) for of in asked] == [id(one), id(equal), id(third)]
    # Of two, the first one is forgotten.
    assert known(one) == 1
    assert len(asked) == 4


def test_an_object_that_nobody_needs_is_not_kept() -> None:
    """An author's spec may have half a million characters of code, and each touch of its engine brings another one."""
    known = ByIdentity(len)
    spec = Numbers([1])
    gone = weakref.ref(spec)
    assert known(spec) == 1
    del spec
    gc.collect()
    assert gone() is None
    assert not known._known


def test_specs_are_objects_that_it_can_forget() -> None:
    engine = EngineConnSpec.model_validate({"user": "hadoop", "engineType": "python"})
    assert weakref.ref(engine)() is engine
