"""What an engine does with a warm pool, rule by rule: it takes a member, or starts cold and says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from linkis_ecm.engine import resizing
from linkis_ecm.engine.admission.in_force import InForce
from linkis_ecm.engine.admission.limits import Refusal
from linkis_ecm.engine.causes.cold_starts import UNMET, Cold, cold_reason
from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import (
    ClaimAgent,
    ClaimPod,
    CreateFailure,
    CreatePod,
    Decision,
    DeletePod,
    DiscardPod,
    ResizeFailure,
    ResizePod,
    Snapshot,
    Warm,
)
from linkis_ecm.engine.names import CLAIMED_ANNOTATION, POOL_LABEL, READY_ANNOTATION, label_hash
from linkis_ecm.engine.pending import digests, own_size, pending
from linkis_ecm.engine.pod_view import Member, PodView, pod_view
from linkis_ecm.engine.status.conditions import SPEC_PENDING, not_resized
from linkis_ecm.engine.view import PluginView, plugin_view
from linkis_ecm.engine.warm import fit
from linkis_ecm.model import reasons
from linkis_ecm.model.agent_key import AgentKeyRef
from linkis_ecm.model.engine_status import ColdReason
from linkis_ecm.model.states import EngineState
from tests.unit.engine.snapshots import (
    COLLECTED,
    IDLE,
    PLUGIN,
    SETTINGS,
    STARTING,
    at,
    decided,
    engine,
    pod,
    report,
    snapshot,
)

REF = AgentKeyRef("p1", "0123456789abcdef0123456789abcdef", "00000000")
OTHER = AgentKeyRef("p2", "0123456789abcdef0123456789abcdef", "00000000")
TAKES = frozenset({"env", "workingDir"})
UNANSWERED = Cold(ColdReason.AGENT_REFUSED, "The agent did not answer.")


def pooled(**pool: Any) -> PluginView:
    assert PLUGIN is not None
    spec = PLUGIN.spec.model_dump(by_alias=True, exclude_none=True) | {"warmPool": {"size": 2} | pool}
    found = plugin_view({"metadata": {"name": PLUGIN.name, "resourceVersion": "1", "uid": "plugin-uid"}, "spec": spec})
    assert found is not None
    return found


def member(**changes: Any) -> PodView:
    has = Member(label_hash("python-3.11"), "digest", REF, TAKES)
    return pod(**{"name": "m1", "owner_uid": "", "owner_name": "", "member": has, "image": "engine:1"} | changes)


def offered(**pool: Any) -> dict[str, Any]:
    """A snapshot's plugin, with a member of its pool."""
    plugin = pooled(**pool)
    return {"plugin": plugin, "warm": Warm(member(), fit.template(plugin, "ns", SETTINGS.pod))}


def claimed(**changes: Any) -> PodView:
    values = {
        "name": "m1", "claimed": 0, "member_key": REF, "image": "engine:1", "cpu_request": "500m",
        "memory_limit": "1Gi",
    }  # fmt: skip
    return pod(**values | changes)


def taken(**changes: Any) -> dict[str, Any]:
    """A snapshot's fields of an engine that has claimed a pod, and whose agent has not confirmed it."""
    return {"plugin": pooled(), "pod": claimed()} | changes


def only(found: Decision, kind: type) -> Any:
    (action,) = found.actions
    assert isinstance(action, kind), action
    return action


def test_a_member_that_fits_is_claimed_and_nothing_is_written() -> None:
    found = decided(snapshot(**offered()))
    claim = only(found, ClaimPod)
    assert claim.member.name == "m1"
    assert claim.attempt == 0
    assert found.patch == {}
    assert found.deadline == at(120).timestamp()
    operations = {(one["op"], one["path"]) for one in claim.patch}
    assert ("test", "/metadata/uid") in operations
    assert ("remove", f"/metadata/labels/{POOL_LABEL.replace('/', '~1')}") in operations
    values = {one["path"]: one.get("value") for one in claim.patch}
    assert values[f"/metadata/annotations/{CLAIMED_ANNOTATION.replace('/', '~1')}"] == "0"
    assert values["/metadata/ownerReferences"][0]["uid"] == "u1"
    assert {"name": "ECM_UID", "value": "u1"} in claim.environment


def startup_of(found: Decision) -> dict[str, Any]:
    only(found, CreatePod)
    startup: dict[str, Any] = found.patch["startup"]
    return {name: startup[name] for name in startup if name in ("kind", "coldBecause")}


def test_an_engine_that_asks_for_more_starts_cold_and_names_the_field() -> None:
    found = decided(snapshot(engine=engine(stopGrace="5m"), **offered()))
    because = "A pod that runs already cannot be given what the engine asks for: spec.stopGrace."
    assert startup_of(found) == {"kind": "cold", "coldBecause": because}


def test_an_empty_pool_is_a_cold_start_that_says_so() -> None:
    found = decided(
        snapshot(plugin=pooled(), warm=Warm(because=Cold(ColdReason.POOL_EMPTY, "The warm pool had no pod.")))
    )
    assert startup_of(found) == {"kind": "cold", "coldBecause": "The warm pool had no pod."}


def test_what_no_member_could_take_is_no_lack_of_members() -> None:
    empty = {"plugin": pooled(), "warm": Warm(because=Cold(ColdReason.POOL_EMPTY, "The warm pool had no pod."))}
    startup = decided(snapshot(engine=engine(stopGrace="5m"), **empty)).patch["startup"]
    assert startup["coldReason"] == "Misfit"
    assert startup["coldBecause"].endswith("what the engine asks for: spec.stopGrace.")
    # What a claim carries is no reason.
    carried = engine(env=[{"name": "A", "value": "1"}], workingDir="/tmp/work")
    assert decided(snapshot(engine=carried, **empty)).patch["startup"]["coldReason"] == "PoolEmpty"


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (snapshot(engine=engine(stopGrace="5m"), **offered()), "Misfit"),
        (snapshot(plugin=pooled(), warm=Warm(because=Cold(ColdReason.POOL_EMPTY, "It was empty."))), "PoolEmpty"),
        (snapshot(warm_failed=UNANSWERED, **offered()), "AgentRefused"),
        (snapshot(), None),
    ],
)
def test_a_cold_start_has_its_reason_in_one_word(case: Snapshot, reason: str | None) -> None:
    startup = decided(case).patch["startup"]
    assert startup.get("coldReason") == reason
    assert cold_reason(engine(status={"startup": startup})) == reason


def test_a_reason_of_another_version_is_some_reason() -> None:
    for startup in (
        {"coldBecause": "x"},
        {"coldBecause": "x", "coldReason": "New"},
        {"coldBecause": "x", "coldReason": 3},
    ):
        assert cold_reason(engine(status={"startup": startup})) is ColdReason.OTHER
    for startup in ({}, {"kind": "warm"}, [], None, {"coldReason": "Misfit"}):
        assert cold_reason(engine(status={"startup": startup})) is None
    assert {one.value for one in UNMET} == {"PoolEmpty", "MemberTaken"}


def test_without_a_pool_nothing_is_said_of_one() -> None:
    assert startup_of(decided(snapshot())) == {"kind": "cold"}


def test_after_a_failed_claim_it_starts_cold_though_there_is_a_member() -> None:
    found = decided(snapshot(warm_failed=UNANSWERED, **offered()))
    assert startup_of(found) == {"kind": "cold", "coldBecause": "The agent did not answer."}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"limit": Refusal("user.engines", "It is full.", fatal=False)}, "LimitReached"),
        ({"engine": engine(desiredState="Stopped")}, "StoppedByUser"),
        ({"failure": CreateFailure(Verdict(reasons.QUOTA_EXCEEDED, "tight"), at(10))}, "QuotaExceeded"),
        ({"engine": engine({"attempt": 1, "nextAttemptAt": "2026-11-24T12:01:00Z", "engineState": "Starting"})}, ""),
        ({"other_pods": (pod(name="e-pod-9", uid="p9"),)}, ""),
        ({"ticket_taken": True}, "InvalidSpec"),
        ({"policies": InForce(missing="the policy is not there")}, "NotAdmitted"),
        ({"engine": engine(resources={"memory": "900Gi"})}, "InvalidSpec"),
    ],
)
def test_what_comes_before_a_pod_is_made_comes_before_a_claim(changes: dict[str, Any], reason: str) -> None:
    found = decided(snapshot(**offered() | changes))
    assert not any(isinstance(action, ClaimPod | CreatePod) for action in found.actions)
    assert not reason or found.reason == reason


def test_the_agent_of_a_claimed_pod_is_told_and_nothing_is_written() -> None:
    found = decided(snapshot(**taken()))
    claim = only(found, ClaimAgent)
    assert (claim.pod, claim.address, claim.attempt, claim.member_key) == ("m1", "10.0.0.9:9105", 0, REF)
    assert claim.resources is None
    assert found.patch == {}
    assert found.deadline == at(8).timestamp()


def test_a_smaller_pod_gets_its_size_beside_the_claim() -> None:
    found = decided(snapshot(engine=engine(resources={"memory": "2Gi"}), **taken(pod=claimed(memory_limit="256Mi"))))
    claim = only(found, ClaimAgent)
    assert claim.resources == {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}


@pytest.mark.parametrize(
    ("changes", "because", "reason"),
    [
        ({"phase": "Failed"}, "ended before", "MemberEnded"),
        ({"deleting": True}, "ended before", "MemberEnded"),
        ({"restarts": 1}, "not as it was made", "MemberChanged"),
        ({"ephemeral": True}, "not as it was made", "MemberChanged"),
        ({"member_key": None}, "no agent that is known", "AgentRefused"),
        ({"ip": ""}, "no agent that is known", "AgentRefused"),
    ],
)
def test_a_claimed_pod_that_cannot_be_used_is_deleted_at_once(
    changes: dict[str, Any], because: str, reason: str
) -> None:
    found = decided(snapshot(**taken(pod=claimed(**changes))))
    discard = only(found, DiscardPod)
    assert (discard.name, discard.uid) == ("m1", "p1")
    assert because in discard.because.sentence
    assert discard.because.reason == reason
    assert found.patch == {}
    assert found.state is EngineState.STARTING


def test_a_claim_that_failed_deletes_the_pod() -> None:
    found = decided(snapshot(warm_failed=UNANSWERED, **taken()))
    assert only(found, DiscardPod).because == UNANSWERED


def test_a_spec_that_became_invalid_gives_the_pod_up() -> None:
    found = decided(snapshot(engine=engine(resources={"memory": "900Gi"}), **taken()))
    assert "No pod can be made for it any more" in only(found, DiscardPod).because.sentence
    found = decided(snapshot(**taken(plugin=None)))
    assert "No pod can be made for it any more" in only(found, DiscardPod).because.sentence


def test_the_first_report_as_this_engine_is_one_write() -> None:
    heard = report(agent_key=REF, timings={"processStarted": 1.0, "kernelReady": 2.0})
    found = decided(snapshot(report=heard, first_seen={"accepted": at(1), "claimed": at(1.5)}, **taken()))
    assert found.actions == ()
    patch = found.patch
    assert patch["engineState"] == "Idle"
    assert patch["podName"] == "m1"
    assert patch["address"] == "10.0.0.9:9105"
    assert patch["serviceInstance"] == "m1.linkis-engines.ns:9105"
    assert patch["agentKey"]["podUid"] == "p1"
    assert patch["startup"] == {
        "kind": "warm",
        "accepted": "2026-11-24T12:00:01.000000Z",
        "claimed": "2026-11-24T12:00:01.500000Z",
        "ready": "2026-11-24T12:00:02.000000Z",
    }


def test_a_report_of_another_pod_confirms_nothing() -> None:
    only(decided(snapshot(report=report(agent_key=OTHER), **taken())), ClaimAgent)


def test_with_a_stop_the_pod_goes_and_the_engine_ends_as_stopped() -> None:
    found = decided(snapshot(engine=engine(desiredState="Stopped"), **taken()))
    assert only(found, DeletePod).name == "m1"
    assert (found.state, found.reason) == (EngineState.SHUTTING_DOWN, "StoppedByUser")
    assert found.patch["podName"] == "m1"
    status = STARTING | {"engineState": "ShuttingDown", "reason": "StoppedByUser", "podName": "m1"}
    found = decided(snapshot(engine=engine(status, desiredState="Stopped"), pod_gone=True, evidence=COLLECTED))
    assert (found.state, found.reason) == (EngineState.SUCCESS, "StoppedByUser")


def test_a_confirmed_pod_is_an_engines_pod_like_any_other() -> None:
    status = IDLE | {"podName": "m1"}
    found = decided(snapshot(engine=engine(status), **taken(pod=claimed(phase="Failed"), evidence=COLLECTED)))
    assert found.state is EngineState.FAILED
    found = decided(snapshot(engine=engine(status), report=report(agent_key=REF), **taken()), 40)
    assert found.state is EngineState.IDLE
    assert found.patch.get("podName", "m1") == "m1"


def test_a_second_pod_of_the_attempt_is_deleted() -> None:
    second = claimed(name="m2", uid="p2")
    s = snapshot(engine=engine(IDLE | {"podName": "m1"}), report=report(agent_key=REF), other_pods=(second,), **taken())
    assert [action for action in decided(s).actions if isinstance(action, DeletePod)] == [DeletePod("m2", "p2", 0)]
    old = pod(name="e-pod-9", uid="p9")
    s = snapshot(engine=engine(IDLE | {"podName": "m1"}), report=report(agent_key=REF), other_pods=(old,), **taken())
    assert decided(s).actions == ()


def test_another_installations_second_pod_is_left_until_the_engine_is_ours() -> None:
    second = claimed(name="m2", uid="p2", instance=label_hash("other:9102"))
    s = snapshot(report=report(agent_key=REF), other_pods=(second,), **taken())
    assert not any(isinstance(action, DeletePod) for action in decided(s).actions)
    mine = engine(IDLE | {"podName": "m1", "ecmInstance": "ecm:9102"})
    s = snapshot(engine=mine, report=report(agent_key=REF), other_pods=(second,), **taken())
    assert DeletePod("m2", "p2", 0) in decided(s).actions


def test_a_size_that_could_not_be_given_is_a_condition_and_no_end() -> None:
    asked = engine(resources={"memory": "2Gi"})
    assert asked.spec is not None
    small = claimed(memory_limit="256Mi", member_size="500m//256Mi", made_from=digests(asked.spec))
    failure = ResizeFailure(down=False, sentence="too old", retry_at=at(2))
    found = decided(snapshot(engine=asked, report=report(agent_key=REF), resize_failure=failure, **taken(pod=small)))
    assert found.state is EngineState.IDLE
    (condition,) = [one for one in found.patch["conditions"] if one["type"] == "Resized"]
    assert condition["status"] == "False"
    assert "256Mi" in condition["message"]
    assert "too old" in condition["message"]
    assert all(one["type"] != SPEC_PENDING for one in found.patch["conditions"])
    waiting = claimed(resize_pending="Infeasible: no room")
    found = decided(snapshot(report=report(agent_key=REF), **taken(pod=waiting)))
    assert not_resized(found.patch["conditions"])
    # A pod that was made for its engine is the gateway's to resize.
    found = decided(snapshot(report=report(agent_key=REF), pod=pod(resize_pending="Infeasible: no room")))
    assert not not_resized(found.patch["conditions"])


def test_a_size_that_was_refused_is_asked_for_again_until_somebody_else_decides() -> None:
    asked = engine(resources={"memory": "2Gi"})
    assert asked.spec is not None
    made_from = digests(asked.spec)
    small = claimed(memory_limit="256Mi", member_size="500m//256Mi", made_from=made_from)

    def resizes(at_pod: PodView, **changes: Any) -> list[ResizePod]:
        found = decided(snapshot(**{"engine": asked, "report": report(agent_key=REF)} | changes, **taken(pod=at_pod)))
        return [one for one in found.actions if isinstance(one, ResizePod)]

    # Also by a process that knows nothing of the refusal.
    (resize,) = resizes(small)
    assert resize.resources["limits"]["memory"] == "2Gi"
    assert (resize.down, resize.claimed, resize.version) == (False, True, small.version)
    assert own_size(asked, small) == {"cpu": "500m", "memory": "256Mi"}
    found = decided(snapshot(engine=asked, report=report(agent_key=REF), **taken(pod=small)))
    assert not_resized(found.patch["conditions"])
    refused = ResizeFailure(down=False, sentence="no", retry_at=at(1000))
    assert resizes(small, resize_failure=refused) == []
    # To what the spec asks for by then, of which nothing else is said.
    bigger = engine(resources={"memory": "4Gi"})
    (resize,) = resizes(small, engine=bigger)
    assert resize.resources["limits"]["memory"] == "4Gi"
    assert own_size(bigger, small) == {"cpu": "500m", "memory": "256Mi"}
    assert pending(bigger, small) == ""
    assert resizes(small, engine=engine(resources={"cpu": "500m", "memory": "256Mi"})) == []
    # It has its size, somebody has given it another one, or the pod ends.
    assert resizes(replace(small, memory_limit="2Gi")) == []
    assert resizes(replace(small, memory_limit="512Mi")) == []
    assert resizes(replace(small, deleting=True)) == []
    for said in ("", "x", "500m//much", "1/2/3/4"):
        assert resizes(replace(small, member_size=said)) == []
    # Its kubelet has no room: it has what it had in the pool.
    full = replace(small, memory_limit="2Gi", resize_pending="Deferred: no room")
    assert own_size(asked, full) == {"cpu": "500m", "memory": "256Mi"}
    edited = replace(small, memory_limit="4Gi", resize_pending="Infeasible: no room")
    assert own_size(bigger, edited) == {"cpu": "500m", "memory": "256Mi"}


SIZES = {
    "cpu alone": ({"cpu": "1"}, ("500m", "", "1Gi"), "with cpu 500m in place of 1: "),
    "memory alone": ({"memory": "2Gi"}, ("500m", "", "256Mi"), "with memory 256Mi in place of 2Gi: "),
    "both": ({"cpu": "1", "memory": "2Gi"}, ("50m", "", "256Mi"), "cpu 50m in place of 1 and memory 256Mi in place"),
    "the limit of cpu": ({"cpuLimit": "2"}, ("500m", "1", "1Gi"), "with a cpu limit of 1 in place of 2: "),
    "no limit of cpu": ({"cpuLimit": "2"}, ("500m", "", "1Gi"), "with no cpu limit of 2: "),
    "a limit that nobody asked for": ({"cpu": "1"}, ("500m", "4", "1Gi"), "with cpu 500m in place of 1: "),
}


@pytest.mark.parametrize("case", SIZES)
@pytest.mark.parametrize("word", ["", "Deferred: full", "Infeasible: too much"])
def test_a_size_that_is_missing_is_named_and_no_other(case: str, word: str) -> None:
    asks, has, words = SIZES[case]
    asked = engine(IDLE, resources=asks)
    cpu, limit, memory = has
    small = claimed(cpu_request=cpu, cpu_limit=limit, memory_limit=memory, member_size="/".join(has),
                    made_from=digests(asked.spec))  # fmt: skip
    failure = ResizeFailure(down=False, sentence="exceeded quota: q, requested: cpu=500m", retry_at=at(1000))
    if word:
        given = {"cpu": small.cpu_request, "cpuLimit": small.cpu_limit, "memory": small.memory_limit} | asks
        small = replace(small, cpu_request=given["cpu"], cpu_limit=given["cpuLimit"], memory_limit=given["memory"],
                        resize_pending=word)  # fmt: skip
        failure = replace(failure, sentence="")
    s = snapshot(engine=asked, report=report(agent_key=REF), resize_failure=failure, **taken(pod=small))
    (condition,) = [one for one in decided(s).patch["conditions"] if one["type"] == "Resized"]
    assert condition["message"].startswith("The engine runs with ")
    assert words in condition["message"]
    assert (word or "(exceeded quota: q, requested: cpu=500m)") in condition["message"]
    for name in {"cpu", "memory"} - {one.removesuffix("Limit") for one in asks}:
        assert f"{name} {has[0] if name == 'cpu' else has[2]}" not in condition["message"]


KUBELET = {
    "Infeasible": ("its node can never give its pod the size that it asks for", "nobody tries that again", "another"),
    "Deferred": ("its node has no room now", "The kubelet gives it when other pods of the node have ended"),
    "Error": ("its pod could not be resized", "repeat it when the node has room"),
}


@pytest.mark.parametrize("word", KUBELET)
def test_what_the_kubelet_says_of_a_resize_is_said_with_what_helps(word: str) -> None:
    condition_of = "PodResizeInProgress" if word == "Error" else "PodResizePending"
    said = {condition_of: {"status": "True", "reason": word, "message": "Node didn't have enough"}}
    why = resizing.pending(said)
    asked = engine(IDLE, resources={"memory": "2Gi"})
    full = claimed(memory_limit="2Gi", member_size="500m//256Mi", made_from=digests(asked.spec), resize_pending=why)
    found = decided(snapshot(engine=asked, report=report(agent_key=REF), **taken(pod=full)))
    assert found.state is EngineState.IDLE
    (condition,) = [one for one in found.patch["conditions"] if one["type"] == "Resized"]
    assert (condition["status"], condition["reason"]) == ("False", word)
    assert f"({word}: Node didn't have enough)" in condition["message"]
    for words in KUBELET[word]:
        assert words in condition["message"]
    assert found.patch["resources"] == {"cpu": "500m", "memory": "256Mi"}


def test_the_kubelets_change_of_mind_is_written() -> None:
    asked = engine(resources={"memory": "2Gi"})
    full = claimed(memory_limit="2Gi", member_size="500m//256Mi", made_from=digests(asked.spec))
    deferred = replace(full, resize_pending="Deferred: full")
    first = decided(snapshot(engine=asked, report=report(agent_key=REF), **taken(pod=deferred))).patch
    status = {name: value for name, value in first.items() if value is not None}
    known = engine(status, resources={"memory": "2Gi"})
    again = snapshot(engine=known, report=report(agent_key=REF), **taken(pod=deferred))
    assert decided(again).patch == {}
    never = replace(again, pod=replace(full, resize_pending="Infeasible: too much"))
    (condition,) = [one for one in decided(never).patch["conditions"] if one["type"] == "Resized"]
    assert condition["reason"] == "Infeasible"


@pytest.mark.parametrize("reason", [None, "InProgress", "Deferred"])
def test_a_resize_that_goes_on_is_no_trouble(reason: str | None) -> None:
    assert resizing.pending({"PodResizeInProgress": {"status": "True", "reason": reason}}) == ""
    assert resizing.pending({"PodResizeInProgress": {"status": "False", "reason": "Error"}}) == ""


def test_a_claimed_pod_says_what_it_is_for() -> None:
    body = {
        "metadata": {
            "namespace": "ns", "name": "m1", "uid": "p1",
            "annotations": {
                CLAIMED_ANNOTATION: "3",
                READY_ANNOTATION: '{"enrolment": "0123456789abcdef0123456789abcdef", "keyId": "00000000"}',
            },
            "ownerReferences": [{"kind": "EngineConn", "name": "e", "uid": "u1"}],
        },
        "status": {"conditions": [{"type": "PodResizePending", "status": "True", "reason": "Deferred"}]},
    }  # fmt: skip
    found = pod_view(body)
    assert (found.claimed, found.member_key, found.member) == (3, REF, None)
    assert found.resize_pending == "Deferred: no message"
