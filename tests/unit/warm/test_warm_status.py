"""What an EngineConnPlugin's status says of its warm pool, and what a member's agent may make it say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.controller.pool.agents import MemberAgents
from linkis_ecm.engine.pod_view import FINALIZERS_MAX, Member, PodView, pod_view
from linkis_ecm.engine.view import PluginView, plugin_view
from linkis_ecm.engine.warm import problems
from linkis_ecm.engine.warm.capping import Stuck, stuck
from linkis_ecm.engine.warm.demand import SizeFrom
from linkis_ecm.engine.warm.places import PlaceState
from linkis_ecm.engine.warm.problems import MESSAGE_MAX, Problem
from linkis_ecm.engine.warm.status import status_patch
from linkis_ecm.model.agent_key import AgentKeyRef
from linkis_ecm.model.plugin import EngineConnPluginStatus
from tests.unit.warm.test_warm_sizing import at, held

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
SINCE = "2026-11-27T11:58:00Z"
HOSTILE = "evil.example/\x1b[2J\n\u202e; rm -rf / #" + "x" * 9000
KEY = AgentKeyRef("pod-uid", "0" * 32, "abcd1234")


def a_plugin(status: Any = None, size: int = 2, **pool: Any) -> PluginView:
    spec = {
        "engineType": "python", "engineVersion": "3", "image": "i", "runTypes": ["python"],
        "defaultResources": {"cpu": "1", "memory": "1Gi"}, "warmPool": {"size": size} | pool,
    }  # fmt: skip
    metadata = {"name": "python", "uid": "u", "resourceVersion": "3", "generation": 7}
    found = plugin_view({"metadata": metadata, "spec": spec, "status": status})
    assert found is not None
    return found


def patched(
    *states: PlaceState, status: Any = None, now: datetime = NOW, own: set[str] | None = None, size: int = 2
) -> dict[str, Any]:
    patch = status_patch(a_plugin(status, size), states, is_own=lambda name: own is None or name in own, now=now)
    merged = {**(status or {}), **patch}
    EngineConnPluginStatus.model_validate({name: value for name, value in merged.items() if value is not None})
    return patch


def test_a_pool_in_no_namespace_that_is_served_names_both() -> None:
    plugin = a_plugin(namespaces=["team-a"])
    patch = status_patch(plugin, [], is_own=lambda name: name == "engines", now=NOW, served=("engines",))
    (condition,) = patch["conditions"]
    assert condition["reason"] == "NoNamespace"
    words = "names team-a, and this installation serves none of them: it serves engines."
    assert words in condition["message"]

    assert patch["warmPool"]["summary"] == "NoNamespace", "0/0 is a pool that is to have no pods now"
    assert [(one["namespace"], one["reason"]) for one in patch["warmPool"]["namespaces"]] == [("team-a", "NotServed")]
    # It says so once.
    known = a_plugin(patch, namespaces=["team-a"])
    assert status_patch(known, [], is_own=lambda name: name == "engines", now=NOW, served=("engines",)) == {}


def test_a_pool_without_a_namespace_says_so_in_its_column() -> None:
    patch = status_patch(a_plugin(), [], is_own=lambda _: True, now=NOW)
    assert (patch["warmPool"]["summary"], patch["conditions"][0]["reason"]) == ("NoNamespace", "NoNamespace")


def test_one_namespace_that_nobody_serves_is_said_beside_the_others() -> None:
    def is_own(name: str) -> bool:
        return name == "engines"

    full = PlaceState("engines", 2, 0, 2)
    first = status_patch(a_plugin(namespaces=["engines", "typo"]), [full], is_own=is_own, now=NOW)
    (condition,) = first["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "NotServed")
    assert condition["message"].startswith("In namespace typo: No installation serves this namespace")
    assert first["warmPool"]["summary"] == "2/2"
    # Another installation that serves it writes its own numbers, which stay.
    numbers = {"namespace": "typo", "ready": 2, "starting": 0, "wanted": 2, "sizeFrom": "Value"}
    served = first | {"warmPool": first["warmPool"] | {"namespaces": [first["warmPool"]["namespaces"][0], numbers]}}
    plugin = a_plugin(served, namespaces=["engines", "typo"])
    later = status_patch(plugin, [full], is_own=is_own, now=NOW)
    assert later["warmPool"]["summary"] == "4/4"
    assert later["conditions"][0]["reason"] == "Filled"
    # The plugin names it no more.
    gone = status_patch(a_plugin(first, namespaces=["engines"]), [full], is_own=is_own, now=NOW)
    assert [one["namespace"] for one in gone["warmPool"]["namespaces"]] == ["engines"]


def test_a_pool_that_is_full_is_ready() -> None:
    patch = patched(PlaceState("a", 2, 0, 2), PlaceState("b", 2, 0, 2))
    assert patch["warmPool"] | {"namespaces": 2} == {
        "summary": "4/4", "ready": 4, "starting": 0, "wanted": 4, "namespaces": 2,
    }  # fmt: skip
    assert patch["conditions"] == [
        {"type": "WarmPoolReady", "status": "True", "reason": "Filled", "message": problems.FILLED.sentence,
         "observedGeneration": 7, "lastTransitionTime": "2026-11-27T12:00:00Z"}
    ]  # fmt: skip
    assert patched(PlaceState("a", 2, 0, 2), PlaceState("b", 2, 0, 2), status=patch) == {}


def test_the_status_says_what_the_size_comes_from() -> None:
    states = [PlaceState("a", 2, 0, 2), PlaceState("b", 5, 0, 5, size_from=SizeFrom.RATE)]
    patch = patched(*states)
    assert [(one["wanted"], one["sizeFrom"]) for one in patch["warmPool"]["namespaces"]] == [(2, "Value"), (5, "Rate")]
    assert patch["warmPool"]["summary"] == "7/7"


def test_a_pool_that_is_to_have_none_now_is_as_it_is_to_be() -> None:
    window = {"from": "08:00", "to": "19:00", "size": 2}
    none_now = PlaceState("a", 0, 0, 0, size_from=SizeFrom.SCHEDULE)
    plugin = a_plugin(size=0, schedule=[window])
    patch = status_patch(plugin, [none_now], is_own=lambda _: True, now=NOW)
    assert patch["warmPool"]["summary"] == "0/0"
    assert (patch["conditions"][0]["status"], patch["conditions"][0]["reason"]) == ("True", "Filled")


def test_its_condition_is_true_while_each_namespace_has_one_to_give() -> None:
    assert patched(PlaceState("a", 1, 1, 2))["conditions"][0]["status"] == "True"
    assert patched(PlaceState("a", 1, 1, 2))["conditions"][0]["reason"] == "Filling"
    empty = patched(PlaceState("a", 2, 0, 2), PlaceState("b", 0, 2, 2))["conditions"][0]
    assert (empty["status"], empty["reason"]) == ("False", "Filling")


def test_a_problem_is_said_with_its_namespace_and_the_time_of_the_change_stays() -> None:
    problem = Problem(problems.QUOTA, "exceeded quota: q")
    first = patched(PlaceState("a", 2, 0, 2), PlaceState("b", 1, 0, 2, problem=problem))
    condition = first["conditions"][0]
    assert (condition["status"], condition["reason"]) == ("False", "QuotaExceeded")
    assert condition["message"].startswith("In namespace b: A ResourceQuota of the namespace refuses pods of the pool.")
    worse = Problem(problems.QUOTA, "exceeded quota: another")
    later = patched(PlaceState("b", 0, 0, 2, problem=worse), status=first, now=NOW + timedelta(hours=1))
    assert later["conditions"][0]["lastTransitionTime"] == "2026-11-27T12:00:00Z"


def test_other_conditions_and_other_installations_places_stay() -> None:
    foreign = {"namespace": "theirs", "ready": 1, "starting": 0, "wanted": 1}
    other = {"type": "Other", "status": "True", "reason": "X", "lastTransitionTime": "2026-11-27T11:00:00Z"}
    before = {"warmPool": {"namespaces": [foreign]}, "conditions": [other]}
    patch = patched(PlaceState("mine", 2, 0, 2), status=before, own={"mine"})
    assert patch["warmPool"]["summary"] == "3/3"
    assert [one["namespace"] for one in patch["warmPool"]["namespaces"]] == ["mine", "theirs"]
    assert [one["type"] for one in patch["conditions"]] == ["Other", "WarmPoolReady"]


def test_a_pool_that_was_taken_away_leaves_nothing() -> None:
    before = patched(PlaceState("a", 2, 0, 2))
    assert patched(status=before, size=0) == {"warmPool": None, "conditions": []}
    assert patched(size=0) == {}


@pytest.mark.parametrize("odd", [3, [], {"warmPool": 3}, {"warmPool": {"namespaces": [3]}, "conditions": {"a": 1}}])
def test_a_status_that_somebody_edited_is_written_anew(odd: Any) -> None:
    patch = status_patch(a_plugin(odd), [PlaceState("a", 2, 0, 2)], is_own=lambda _: True, now=NOW)
    assert patch["warmPool"]["summary"] == "2/2"


def state(*pods: PodView, namespace: str = "team", ready: int = 2) -> PlaceState:
    return PlaceState(namespace, ready, 0, 2, stuck=stuck(pods, NOW))


def condition(patch: dict[str, Any]) -> dict[str, Any]:
    (found,) = patch["conditions"]
    assert isinstance(found, dict)
    return found


def test_a_full_pool_with_stuck_pods_is_ready_and_names_them() -> None:
    patch = patched(state(held(finalizers=("a.example/x", "b.example/y")), held("younger", grace_ends_at=at(-70))))
    said = patch["warmPool"]["namespaces"][0]["stuck"]
    assert said | {"message": ""} == {"pods": 2, "since": SINCE, "oldest": "old", "message": ""}
    found = condition(patch)
    assert (found["status"], found["reason"], patch["warmPool"]["summary"]) == ("True", "Filled", "2/2")
    assert found["message"] == (
        f"{problems.FILLED.sentence} 2 pods of the pool were deleted and do not end; they take no"
        f" place of spec.warmPool.cap. The oldest is old in namespace team, overdue since {SINCE}. Finalizers keep it:"
        " a.example/x, b.example/y. `kubectl get pod -n team old -o jsonpath='{.metadata.finalizers}'` shows all of"
        " them. What has put them there takes them away; where that is gone, take them out by `kubectl edit pod`."
    )
    # The same later, while they are the same.
    assert patched(state(held(finalizers=("a.example/x", "b.example/y")), held("younger", grace_ends_at=at(-70))),
                   status=patch, now=at(3600)) == {}  # fmt: skip
    gone = patched(state(), status=patch)
    assert "stuck" not in gone["warmPool"]["namespaces"][0]
    assert condition(gone)["message"] == problems.FILLED.sentence


def test_the_node_that_does_not_answer_is_named() -> None:
    message = condition(patched(state(held(node="worker-7"))))["message"]
    assert "One pod of the pool was deleted and does not end; it takes no place" in message
    assert "It is old in namespace team, overdue since" in message
    assert "see `kubectl get node worker-7`." in message
    assert "`kubectl delete node worker-7`" in message
    assert "finalizers" not in message


def test_they_are_said_beside_a_problem_and_of_all_namespaces_once() -> None:
    problem = Problem(problems.QUOTA, "exceeded quota: q")
    lacking = PlaceState("a", 1, 0, 2, problem=problem, stuck=Stuck(3, held("young")))
    found = condition(patched(lacking, state(held("first", grace_ends_at=at(-900)), namespace="b")))
    assert (found["status"], found["reason"]) == ("False", "QuotaExceeded")
    assert found["message"].startswith("In namespace a: A ResourceQuota")
    assert "4 pods of the pool in 2 namespaces were deleted" in found["message"]
    assert "The oldest is first in namespace b, overdue since 2026-11-27T11:45:00Z." in found["message"]
    # What it says of the problem is not cut for it.
    assert problem.message in found["message"]


@pytest.mark.parametrize(
    "changes",
    [
        {"finalizers": (HOSTILE,) * 9},
        {"node": HOSTILE},
        {"name": HOSTILE},
        {"namespace": HOSTILE, "name": "n" * 253, "finalizers": ("f" * 128,) * 4},
        {"name": "n" * 253, "node": "m" * 253},
        {"node": "", "name": "n" * 253},
    ],
    ids=["finalizers", "node", "name", "all", "long node", "no node"],
)
def test_what_a_tenant_writes_is_shown_in_bounds(changes: dict[str, Any]) -> None:
    patch = patched(state(held(**changes)))
    said = patch["warmPool"]["namespaces"][0]["stuck"]
    assert len(said["message"]) <= MESSAGE_MAX
    assert len(said["oldest"]) <= 253
    for text in (said["message"], said["oldest"], condition(patch)["message"]):
        assert text.isascii()
        assert text.isprintable()
        assert "; rm" not in text
    assert len(condition(patch)["message"]) < 2 * MESSAGE_MAX


def test_many_finalizers_are_cut() -> None:
    message = patched(state(held(finalizers=("a", "b", "c", "d"))))["warmPool"]["namespaces"][0]["stuck"]["message"]
    assert message.startswith("Finalizers keep it: a, b, c and more.")


@pytest.mark.parametrize("odd", [{"stuck": 3}, {"stuck": {}}, {"stuck": {"pods": "x", "since": None, "message": 7}}])
def test_another_installations_odd_words_are_no_failure(odd: dict[str, Any]) -> None:
    before = {"warmPool": {"namespaces": [{"namespace": "theirs", "ready": 1, "wanted": 1} | odd]}}
    plugin = a_plugin(before)
    patch = status_patch(plugin, [state(held())], is_own=lambda name: name == "team", now=NOW)
    assert condition(patch)["reason"] == "Filled"
    assert "pods" in condition(patch)["message"]


@pytest.mark.parametrize("finalizers", [None, 3, "text", {"a": 1}])
def test_finalizers_that_are_none_are_read_as_none(finalizers: Any) -> None:
    assert pod_view({"metadata": {"name": "p", "finalizers": finalizers}}).finalizers == ()


def test_finalizers_are_read_in_bounds() -> None:
    found = pod_view({"metadata": {"name": "p", "finalizers": ["x" * 5000, 7, *"abcdef"]}}).finalizers
    assert len(found) == FINALIZERS_MAX
    assert max(map(len, found)) <= 128


def a_pod() -> PodView:
    return PodView(
        namespace="team", name="m", uid="pod-uid", version=1, owner_uid="", owner_name="", phase="Running",
        member=Member("python", "digest"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "ready", "takes"),
    [
        ({"state": "Idle", "member": {"ready": True, "takes": ["workingDir", "env"]}}, True, ("env", "workingDir")),
        ({"state": "Starting", "member": {"ready": True, "takes": ["env"]}}, False, ()),
        ({"state": "Idle", "member": {"ready": 1}}, False, ()),
        ({"state": "Idle", "member": []}, False, ()),
        ({"state": "Idle"}, False, ()),
        ({"state": "Idle", "member": {"ready": True, "takes": ["x" * 33, 5, "", *"abcdefghij"]}}, True, tuple("abcde")),
    ],
)
def test_a_members_report_is_read_in_bounds(body: dict[str, Any], ready: bool, takes: tuple[str, ...]) -> None:
    agents = MemberAgents(lambda: NOW)
    agents.record(a_pod(), body, 1, KEY)
    found = agents.last(a_pod())
    assert found is not None
    assert (found.ready, found.takes, found.failure) == (ready, takes, None)


def test_a_failure_is_the_pools_problem_and_only_a_change_is_told() -> None:
    told: list[str] = []
    agents = MemberAgents(lambda: NOW, on_change=lambda pod: told.append(pod.name))
    for sequence in range(3):
        agents.record(a_pod(), {"state": "Starting"}, sequence, KEY)
    assert told == ["m"]
    said = {"state": "Failed", "reason": "PreloadFailed", "message": "no module named x" + "y" * 9000}
    agents.record(a_pod(), said, 4, KEY)
    found = agents.last(a_pod())
    assert found is not None
    assert found.failure is not None
    assert found.failure.reason is problems.PRELOAD
    assert found.failure.message.startswith("A module of spec.warmPool.preload cannot be imported. No module named x")
    assert len(found.failure.message) <= problems.MESSAGE_MAX
    assert told == ["m", "m"]
    assert agents.key_of(a_pod()) == KEY
    agents.forget(a_pod())
    assert agents.key_of(a_pod()) is None


def test_each_reason_is_in_the_guide() -> None:
    guide = (Path(__file__).parents[3] / "docs/warm-pools.md").read_text()
    assert [one.name for one in problems.ALL if f"`{one.name}`" not in guide] == []
