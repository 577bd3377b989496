"""An engine that runs a process, not an agent: ready by the kubelet, stopped by SIGTERM, ended by its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkis_ecm.engine.decide import decide
from linkis_ecm.engine.decision import (
    CollectEvidence,
    ConfirmPodGone,
    CreatePod,
    Decision,
    DeletePod,
    Evidence,
    GetAgentStatus,
    GetNodeCondition,
    Silence,
    Snapshot,
    Stop,
    StopAgent,
)
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod.launch import AFTER_GRACE
from linkis_ecm.engine.pod_view import PodView, Terminated, pod_view
from linkis_ecm.engine.view import EngineView, PluginView, Report, engine_view, plugin_view
from linkis_ecm.model import reasons
from linkis_ecm.model.states import FINAL, EngineState, may_follow
from tests.unit.engine.snapshots import COLLECTED, SETTINGS, T0, at
from tools.testkit.fakes.rules import merged

S = EngineState
TCP = {"kind": "process", "port": 8080}
HTTP = {"kind": "process", "port": 8080, "ready": {"http": {"path": "/healthz", "port": 8081}, "periodSeconds": 5}}
NO_PORT = {"kind": "process"}
DELAYED = {"kind": "process", "ready": {"initialDelaySeconds": 20}}


def plugin(launched: dict[str, Any] | None = None, **spec: Any) -> PluginView:
    body = {
        "engineType": "web", "engineVersion": "3", "image": "stock:1", "command": ["python3"],
        "args": ["-m", "http.server", "8080"], "env": [{"name": "LANG", "value": "C"}],
        "defaultResources": {"cpu": "100m", "memory": "64Mi"}, "startTimeout": "2m", "idleTimeout": "10m",
        "launch": TCP if launched is None else launched,
    }  # fmt: skip
    found = plugin_view({"metadata": {"name": "web", "resourceVersion": "1"}, "spec": body | spec})
    assert found is not None
    return found


def engine(status: dict[str, Any] | None = None, **spec: Any) -> EngineView:
    metadata = {
        "namespace": "ns", "name": "w", "uid": "u1", "resourceVersion": "5", "generation": 1,
        "creationTimestamp": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    body = {"metadata": metadata, "spec": {"plugin": "web", "user": "hadoop"} | spec, "status": status or {}}
    return engine_view(body, epoch=T0)


def pod(**changes: Any) -> PodView:
    values: dict[str, Any] = {
        "namespace": "ns", "name": "w-pod-0", "uid": "p1", "version": 9, "owner_uid": "u1", "owner_name": "w",
        "phase": "Running", "ip": "10.0.0.9", "node": "n1", "scheduled": T0, "started": at(1), "memory_limit": "64Mi",
    }  # fmt: skip
    return PodView(**values | changes)


READY = {"ready": True, "ready_since": at(3)}
STARTING = {
    "engineState": "Starting", "reason": "PodCreated", "podName": "w-pod-0", "observedGeneration": 1, "launch": TCP,
}  # fmt: skip
IDLE = STARTING | {
    "engineState": "Idle", "reason": "ProcessReady", "stateSince": "2026-11-24T12:00:03.000000Z", "attempt": 0,
    "readyTime": "2026-11-24T12:00:03.000000Z", "engineType": "web", "engineVersion": "3",
}  # fmt: skip


def snapshot(**changes: Any) -> Snapshot:
    values: dict[str, Any] = {"engine": engine(), "pod": None, "plugin": plugin(), "silence": Silence(at(0))}
    return Snapshot(**values | changes)


def decided(s: Snapshot, seconds: float = 3.2) -> Decision:
    return decide(s, at(seconds), SETTINGS)


def ended(code: int, reason: str = "Error", message: str = "") -> Terminated:
    return Terminated(reason=reason, exit_code=code, signal=0, message=message, finished=at(9))


oom, clean = ended(137, "OOMKilled"), ended(0, "Completed")
start_error = ended(128, "StartError")
stopped = {"desiredState": "Stopped"}
deleting = {"deleting": True, "deleted_at": at(9), "grace_ends_at": at(39)}
SILENT = Silence(at(0), 9, at(900), "ready")
delayed, no_port = STARTING | {"launch": DELAYED}, STARTING | {"launch": NO_PORT}

# what, snapshot, seconds, state, reason, actions
ROWS: list[tuple[str, Callable[[], Snapshot], float, EngineState, str, tuple[Any, ...]]] = [
    ("new", snapshot, 0, S.STARTING, "PodCreated", (CreatePod,)),
    ("a job for a process", lambda: snapshot(engine=engine(mode="once", code="1")), 0, S.FAILED, "InvalidSpec", ()),
    ("runs, and does not answer yet", lambda: snapshot(engine=engine(STARTING), pod=pod()), 3, S.STARTING,
     "PodCreated", ()),
    ("answers", lambda: snapshot(engine=engine(STARTING), pod=pod(**READY)), 3, S.IDLE, "ProcessReady", ()),
    ("no port: runs", lambda: snapshot(engine=engine(no_port), pod=pod(**READY)), 3, S.IDLE, "ProcessReady", ()),
    ("no port, before its delay", lambda: snapshot(engine=engine(delayed), pod=pod(**READY)), 20, S.STARTING,
     "PodCreated", ()),
    ("no port, after its delay", lambda: snapshot(engine=engine(delayed), pod=pod(**READY)), 21, S.IDLE,
     "ProcessReady", ()),
    ("never ready", lambda: snapshot(engine=engine(STARTING), pod=pod(), evidence=COLLECTED), 121, S.FAILED,
     "ProcessNeverAnswered", (DeletePod("w-pod-0", "p1", AFTER_GRACE),)),
    ("image", lambda: snapshot(engine=engine(STARTING), pod=pod(waiting_reason="ErrImagePull", started=None)), 3,
     S.STARTING, "ImagePullBackOff", ()),
    ("bad image name", lambda: snapshot(
        engine=engine(STARTING), pod=pod(waiting_reason="InvalidImageName", started=None), evidence=COLLECTED), 3,
     S.FAILED, "ImagePullBackOff", (DeletePod,)),
    ("no room", lambda: snapshot(engine=engine(STARTING), pod=pod(unschedulable="0/1 nodes", started=None)), 3,
     S.STARTING, "Unschedulable", ()),
    ("does not answer any more", lambda: snapshot(engine=engine(IDLE), pod=pod()), 60, S.IDLE, "ProcessNotReady", ()),
    ("answers again", lambda: snapshot(
        engine=engine(IDLE | {"reason": "ProcessNotReady"}), pod=pod(**READY | {"ready_since": at(70)})), 71, S.IDLE,
     "ProcessReady", ()),
    ("nobody waits for its reports", lambda: snapshot(engine=engine(IDLE), pod=pod(**READY), silence=SILENT), 3000,
     S.IDLE, "ProcessReady", ()),
    ("not even if it does not answer", lambda: snapshot(engine=engine(IDLE), pod=pod(), silence=SILENT), 3000, S.IDLE,
     "ProcessNotReady", ()),
    ("idle time is not counted", lambda: snapshot(engine=engine(IDLE, idleTimeout="1m"), pod=pod(**READY)), 3000,
     S.IDLE, "ProcessReady", ()),
    ("too old", lambda: snapshot(engine=engine(IDLE, maxLifetime="1m"), pod=pod(**READY)), 61, S.SHUTTING_DOWN,
     "LifetimeOver", (DeletePod("w-pod-0", "p1", 30),)),
    ("soon too old", lambda: snapshot(engine=engine(IDLE, maxLifetime="100m"), pod=pod(**READY)), 5990, S.IDLE,
     "CullSoon", ()),
    ("its plugin was deleted", lambda: snapshot(engine=engine(IDLE), pod=pod(**READY), plugin=None), 60, S.IDLE,
     "ProcessReady", ()),
    ("its plugin launches an agent now", lambda: snapshot(
        engine=engine(IDLE), pod=pod(**READY), plugin=plugin({"kind": "agent"}, runTypes=["python"])), 60, S.IDLE,
     "ProcessReady", ()),
    ("stop", lambda: snapshot(engine=engine(IDLE, **stopped), pod=pod(**READY)), 9, S.SHUTTING_DOWN, "StoppedByUser",
     (DeletePod("w-pod-0", "p1", 30),)),
    ("stop with its own grace", lambda: snapshot(engine=engine(IDLE, stopGrace="3s", **stopped), pod=pod(**READY)), 9,
     S.SHUTTING_DOWN, "StoppedByUser", (DeletePod("w-pod-0", "p1", 3),)),
    ("stop without grace still asks the kubelet", lambda: snapshot(
        engine=engine(IDLE, stopGrace="0s", **stopped), pod=pod(**READY)), 9, S.SHUTTING_DOWN, "StoppedByUser",
     (DeletePod("w-pod-0", "p1", 1),)),
    ("stop while starting", lambda: snapshot(engine=engine(STARTING, **stopped), pod=pod()), 9, S.SHUTTING_DOWN,
     "StoppedByUser", (DeletePod("w-pod-0", "p1", 30),)),
    ("stop before it has a pod", lambda: snapshot(engine=engine(**stopped)), 1, S.SUCCESS, "StoppedByUser", ()),
    ("stop, within the grace", lambda: snapshot(
        engine=engine(IDLE, **stopped), pod=pod(**deleting), stop=Stop(at(9), reasons.STOPPED_BY_USER)), 38,
     S.SHUTTING_DOWN, "StoppedByUser", ()),
    ("stop, its kubelet is dead", lambda: snapshot(
        engine=engine(IDLE, **stopped), pod=pod(**deleting), evidence=COLLECTED,
        stop=Stop(at(9), reasons.STOPPED_BY_USER)), 100, S.SUCCESS, "StoppedByUser",
     (DeletePod("w-pod-0", "p1", 0),)),
    ("stopped", lambda: snapshot(
        engine=engine(IDLE, **stopped), pod=pod(terminated=ended(143), **deleting), evidence=COLLECTED,
        stop=Stop(at(9), reasons.STOPPED_BY_USER)), 12, S.SUCCESS, "StoppedByUser", ()),
    ("stopped, and killed after its grace", lambda: snapshot(
        engine=engine(IDLE, **stopped), pod=pod(terminated=ended(137), **deleting), evidence=COLLECTED,
        stop=Stop(at(9), reasons.STOPPED_BY_USER)), 39, S.SUCCESS, "StoppedByUser", ()),
    ("ended, evidence first", lambda: snapshot(engine=engine(IDLE), pod=pod(terminated=clean)), 9, S.IDLE,
     "ProcessReady", (CollectEvidence,)),
    ("exit 0", lambda: snapshot(engine=engine(IDLE), pod=pod(terminated=clean), evidence=COLLECTED), 9, S.SUCCESS,
     "Completed", ()),
    ("exit 0 before it was ready", lambda: snapshot(
        engine=engine(STARTING), pod=pod(terminated=clean), evidence=COLLECTED), 9, S.FAILED, "ProcessNeverReady", ()),
    ("exit 0 before anybody saw it, of one that nobody waits for", lambda: snapshot(
        engine=engine(STARTING | {"launch": NO_PORT}), pod=pod(terminated=clean), evidence=COLLECTED), 9, S.SUCCESS,
     "Completed", ()),
    ("its command is not there", lambda: snapshot(
        engine=engine(STARTING), pod=pod(terminated=start_error), evidence=COLLECTED), 9, S.FAILED, "StartError", ()),
    ("exit 3", lambda: snapshot(engine=engine(IDLE), pod=pod(terminated=ended(3)), evidence=COLLECTED), 9, S.FAILED,
     "ProcessExited", ()),
    ("exit 3 while starting", lambda: snapshot(
        engine=engine(STARTING), pod=pod(terminated=ended(3)), evidence=COLLECTED), 9, S.FAILED, "ProcessExited", ()),
    ("out of memory", lambda: snapshot(engine=engine(IDLE), pod=pod(terminated=oom), evidence=COLLECTED), 9, S.FAILED,
     "OOMKilled", ()),
    ("evicted", lambda: snapshot(engine=engine(IDLE), pod=pod(phase="Failed", reason="Evicted"), evidence=COLLECTED),
     9, S.FAILED, "Evicted", ()),
    ("deleted by somebody", lambda: snapshot(engine=engine(IDLE), pod=pod(**deleting)), 12, S.SHUTTING_DOWN,
     "PodDeleted", ()),
    ("deleted by somebody, ended", lambda: snapshot(
        engine=engine(IDLE), pod=pod(terminated=clean, **deleting), evidence=COLLECTED), 12, S.FAILED, "PodDeleted",
     ()),
    ("node lost: Kubernetes deletes the pod and nobody confirms", lambda: snapshot(
        engine=engine(IDLE), pod=pod(disruption="DeletionByTaintManager", **deleting), evidence=COLLECTED), 100,
     S.FAILED, "NodeLost", (DeletePod("w-pod-0", "p1", 0),)),
    ("missing from the cache", lambda: snapshot(engine=engine(IDLE)), 9, S.IDLE, "ProcessReady", (ConfirmPodGone,)),
    ("another attempt follows", lambda: snapshot(
        engine=engine(IDLE, restartPolicy={"type": "OnFailure"}), pod=pod(terminated=ended(3)), evidence=COLLECTED), 9,
     S.STARTING, "Restarting", (DeletePod("w-pod-0", "p1", 0),)),
    ("no attempt follows on exit 0", lambda: snapshot(
        engine=engine(IDLE, restartPolicy={"type": "OnFailure"}), pod=pod(terminated=clean), evidence=COLLECTED), 9,
     S.SUCCESS, "Completed", ()),
    ("a crash is no infrastructure", lambda: snapshot(
        engine=engine(IDLE, restartPolicy={"type": "OnInfrastructureFailure"}), pod=pod(terminated=ended(3)),
        evidence=COLLECTED), 9, S.FAILED, "ProcessExited", ()),
    ("a start that timed out is tried again", lambda: snapshot(
        engine=engine(STARTING, restartPolicy={"type": "OnFailure"}), pod=pod(), evidence=COLLECTED), 121, S.STARTING,
     "Restarting", (DeletePod("w-pod-0", "p1", AFTER_GRACE),)),
]  # fmt: skip


@pytest.mark.parametrize(("what", "make", "seconds", "state", "reason", "actions"), ROWS, ids=[row[0] for row in ROWS])
def test_each_situation_of_a_process_has_its_answer(
    what: str, make: Callable[[], Snapshot], seconds: float, state: EngineState, reason: str, actions: tuple[Any, ...]
) -> None:
    decision = decided(make(), seconds)
    assert (decision.state, decision.reason) == (state, reason), what
    found = tuple(
        action if not isinstance(wanted, type) else type(action)
        for action, wanted in zip(decision.actions, actions, strict=False)
    )
    assert found == actions
    assert len(decision.actions) == len(actions)


def manifest(launched: dict[str, Any], **spec: Any) -> dict[str, Any]:
    (create,) = decided(snapshot(plugin=plugin(launched, **spec)), 0).actions
    assert isinstance(create, CreatePod)
    return create.pod


def test_a_processs_pod_has_nothing_of_an_agent() -> None:
    made = manifest(TCP)
    (container,) = made["spec"]["containers"]
    assert (container["command"], container["args"]) == (["python3"], ["-m", "http.server", "8080"])
    assert container["env"] == [{"name": "LANG", "value": "C"}]
    assert container["ports"] == [{"name": "engine", "containerPort": 8080}]
    text = json.dumps(made)
    assert "ECM_" not in text
    assert "9105" not in text
    assert made["spec"]["terminationGracePeriodSeconds"] == 30
    assert [volume["name"] for volume in made["spec"]["volumes"]] == ["tmp", "shm"]
    assert made["spec"]["restartPolicy"] == "Never"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_an_agents_pod_proves_itself_by_a_token_of_the_kubelet_and_holds_no_secret() -> None:
    made = manifest({"kind": "agent"}, runTypes=["python"])
    (container,) = made["spec"]["containers"]
    env = {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}
    assert env["ECM_MODE"] == "computation"
    assert env["ECM_POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert not [name for name in env if "TOKEN" in name or "KEY" in name]
    assert "readinessProbe" not in container
    (identity,) = [volume for volume in made["spec"]["volumes"] if volume["name"] == "identity"]
    (source,) = identity["projected"]["sources"]
    assert source == {"serviceAccountToken": {"audience": "linkis-ecm", "expirationSeconds": 600, "path": "token"}}
    assert {"name": "identity", "mountPath": "/var/run/linkis-ecm", "readOnly": True} in container["volumeMounts"]


BOUNDS = {"initialDelaySeconds": 0, "periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 3}


@pytest.mark.parametrize(
    ("launched", "probe"),
    [
        (TCP, {"tcpSocket": {"port": 8080}} | BOUNDS),
        (TCP | {"ready": {"tcp": {}, "failureThreshold": 5}},
         {"tcpSocket": {"port": 8080}} | BOUNDS | {"failureThreshold": 5}),
        (TCP | {"ready": {"tcp": {"port": 9}, "initialDelaySeconds": 7}},
         {"tcpSocket": {"port": 9}} | BOUNDS | {"initialDelaySeconds": 7}),
        (TCP | {"ready": {"http": {}}}, {"httpGet": {"path": "/", "port": 8080}} | BOUNDS),
        (HTTP, {"httpGet": {"path": "/healthz", "port": 8081}} | BOUNDS | {"periodSeconds": 5}),
        (NO_PORT, None),
        (DELAYED, None),
    ],
)  # fmt: skip
def test_the_kubelet_is_asked_to_check_what_the_plugin_says(
    launched: dict[str, Any], probe: dict[str, Any] | None
) -> None:
    assert manifest(launched)["spec"]["containers"][0].get("readinessProbe") == probe


@pytest.mark.parametrize(
    ("launched", "port", "address"), [(TCP, 8080, "10.0.0.9:8080"), (HTTP, 8080, "10.0.0.9:8080"), (NO_PORT, 0, None)]
)
def test_a_ready_process_has_its_own_port_as_address(launched: dict[str, Any], port: int, address: str | None) -> None:
    s = snapshot(engine=engine(STARTING | {"launch": launched}), plugin=plugin(launched), pod=pod(**READY))
    patch = decided(s).patch
    assert patch["serviceInstance"].endswith(f".linkis-engines.ns:{port}")
    assert patch.get("address") == address
    assert patch["timesReady"] == 1
    assert patch["cullBlockedBy"].startswith("a process reports no activity")
    assert patch["cullBlockedBy"].endswith("and without a maxLifetime it stays")
    limited = replace(s, engine=engine(STARTING | {"launch": launched}, maxLifetime="1h"))
    assert decided(limited).patch["cullBlockedBy"].endswith("only maxLifetime ends it")
    assert "nextCullAt" not in patch
    conditions = {c["type"]: c["status"] for c in patch["conditions"]}
    assert conditions == {"Ready": "True", "PodScheduled": "True", "Draining": "False"}, "nobody registers"
    record = decided(s).record
    assert record is not None
    assert (record.status, record.reason, record.used_times) == (S.IDLE, "ProcessReady", 1)


def test_the_launch_is_written_with_the_pod_and_goes_with_its_attempt() -> None:
    assert decided(snapshot(), 0).patch["launch"] == TCP
    assert "launch" not in decided(snapshot(plugin=plugin({"kind": "agent"}, runTypes=["py"])), 0).patch
    s = snapshot(
        engine=engine(IDLE, restartPolicy={"type": "OnFailure"}), pod=pod(terminated=ended(3)), evidence=COLLECTED
    )
    patch = decided(s, 9).patch
    assert (patch["launch"], patch["podName"], patch["attempt"]) == (None, None, 1)


def test_an_unready_process_says_so_in_its_condition_alone() -> None:
    patch = decided(snapshot(engine=engine(IDLE), pod=pod()), 60).patch
    conditions = {c["type"]: c for c in patch["conditions"]}
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Ready"]["reason"] == "ProcessNotReady"
    assert "kubectl logs" in conditions["Ready"]["message"]
    assert "engineState" not in patch
    assert "stateSince" not in patch


@pytest.mark.parametrize(
    ("now", "ready_since", "ready"),
    [
        # Seen at once: this pass's clock is finer than the API's whole seconds. Later: the API's time counts.
        (3.4, 3, "12:00:03.400000Z"),
        (40, 3, "12:00:03.000000Z"),
    ],
)
def test_a_process_is_ready_from_when_the_kubelet_said_so(now: float, ready_since: float, ready: str) -> None:
    s = snapshot(
        engine=engine(STARTING), pod=pod(ready=True, ready_since=at(ready_since)), first_seen={"accepted": at(0)}
    )
    patch = decided(s, now).patch
    assert patch["readyTime"] == f"2026-11-24T{ready}"
    startup = patch["startup"]
    assert [startup[phase] for phase in ("scheduled", "containerStarted", "ready")] == sorted(
        startup[phase] for phase in ("scheduled", "containerStarted", "ready")
    )
    assert "kernelReady" not in startup


def test_a_crash_tells_the_exit_code_and_the_last_lines() -> None:
    crashed = pod(terminated=ended(3, message="one\ntwo\nno such module\n"))
    message = decided(snapshot(engine=engine(IDLE), pod=crashed, evidence=COLLECTED), 9).message
    assert "Its exit code was 3. Its last lines: one\ntwo\nno such module" in message


@pytest.mark.parametrize(
    ("launched", "words"),
    [
        (TCP, "port 8080 takes no connection"),
        (HTTP, "GET /healthz on port 8081 is not answered with 200 to 399"),
        ({"kind": "process", "ready": {"initialDelaySeconds": 600}}, "not yet for launch.ready.initialDelaySeconds"),
    ],
)
def test_a_start_timeout_says_what_did_not_answer(launched: dict[str, Any], words: str) -> None:
    status = STARTING | {"launch": launched}
    ready = READY if "port" not in launched else {}
    s = snapshot(engine=engine(status), plugin=plugin(launched), pod=pod(**ready), evidence=COLLECTED)
    decision = decided(s, 121)
    assert decision.reason == ("ProcessNeverAnswered" if "port" in launched else "StartTimeout")
    assert words in decision.message


def test_the_next_pass_is_due_when_the_delay_is_over() -> None:
    decision = decided(snapshot(engine=engine(STARTING | {"launch": DELAYED}), pod=pod(**READY)), 5)
    assert decision.deadline == at(21).timestamp()


def test_a_stopping_process_is_looked_at_until_its_kubelet_counts_as_dead() -> None:
    s = snapshot(engine=engine(IDLE, **stopped), pod=pod(**deleting), stop=Stop(at(9), reasons.STOPPED_BY_USER))
    assert decided(s, 20).deadline == (at(39) + timedelta(seconds=60)).timestamp()


def test_readiness_is_read_from_the_pods_condition() -> None:
    def seen(status: str) -> PodView:
        ready = {"type": "Ready", "status": status, "lastTransitionTime": "2026-11-24T12:00:07Z"}
        return pod_view({"metadata": {"name": "p"}, "status": {"phase": "Running", "conditions": [ready]}})

    assert (seen("True").ready, seen("True").ready_since) == (True, at(7))
    # Of a node that does not answer Kubernetes says False here, while the container is still called ready.
    assert (seen("False").ready, seen("False").ready_since) == (False, None)


LAUNCHES = st.sampled_from([TCP, HTTP, NO_PORT, DELAYED, {"kind": "agent"}, {"kind": "x"}, "x", 3, None])
STATUSES = st.builds(
    lambda launched, status: status | {"launch": launched},
    LAUNCHES,
    st.sampled_from([{}, STARTING, IDLE, IDLE | {"engineState": "ShuttingDown", "reason": "StoppedByUser"}]),
)
PODS = st.one_of(
    st.none(),
    st.builds(
        lambda going, **more: pod(**going | more),
        st.sampled_from([{}, deleting]),
        ready=st.booleans(),
        ready_since=st.sampled_from([None, at(3), at(70)]),
        started=st.sampled_from([None, at(1)]),
        terminated=st.sampled_from([None, None, clean, oom, ended(3)]),
        ip=st.sampled_from(["", "10.0.0.9"]),
    ),
)
REPORTS = st.one_of(
    st.none(), st.builds(lambda s: Report(attempt=0, sequence=1, state=s, changed=at(2)), st.sampled_from(list(S)))
)
SNAPSHOTS = st.builds(
    lambda status, spec, **more: snapshot(engine=engine(status, **spec), **more),
    STATUSES,
    st.sampled_from([{}, stopped, {"restartPolicy": {"type": "OnFailure"}}, {"maxLifetime": "30s"}]),
    pod=PODS,
    plugin=st.sampled_from([None, plugin(), plugin(NO_PORT), plugin({"kind": "agent"}, runTypes=["py"])]),
    report=REPORTS,
    pod_gone=st.booleans(),
    evidence=st.sampled_from([None, COLLECTED, Evidence(0, {})]),
    silence=st.sampled_from([None, Silence(at(0)), SILENT]),
)


@settings(max_examples=400, deadline=None)
@given(s=SNAPSHOTS, seconds=st.floats(0, 2000))
def test_a_process_is_never_asked_anything_and_never_goes_back(s: Snapshot, seconds: float) -> None:
    decision = decided(s, seconds)
    if not launch.has_agent(launch.of(s.engine, s.plugin)):
        assert not [
            action for action in decision.actions if isinstance(action, GetAgentStatus | GetNodeCondition | StopAgent)
        ]
        assert decision.reason not in ("AgentLost", "KernelDied", "IdleTimeout")
    restarted = (decision.patch.get("attempt") or 0) > (s.engine.status.get("attempt") or 0)
    assert restarted or may_follow(s.engine.state, decision.state)
    if s.engine.state in FINAL:
        assert decision.state is s.engine.state


@settings(max_examples=400, deadline=None)
@given(s=SNAPSHOTS, seconds=st.floats(0, 2000))
def test_decide_writes_nothing_more_on_its_own_result(s: Snapshot, seconds: float) -> None:
    decision = decided(s, seconds)
    if not decision.patch or any(isinstance(a, CollectEvidence | ConfirmPodGone | CreatePod) for a in decision.actions):
        return
    if decision.patch.get("attempt"):
        return
    status = merged(s.engine.status, decision.patch)
    again = decided(replace(s, engine=replace(s.engine, status=status), stop=decision.stop), seconds)
    assert again.patch == {}


@pytest.mark.parametrize(
    ("why", "code", "message", "words"),
    [
        ("Error", 3, "boom", "process ended with an error. Its exit code was 3. Its last lines: boom. See its log"),
        ("Error", 3, "boom!", "Its last lines: boom! See its log"),
        ("Error", 3, "", "Its exit code was 3. See its log, which is kept as its stdout."),
        ("Completed", 0, "done", "before it was ready. Its exit code was 0. Its last lines: done. Let the program"),
        (
            "StartError", 128, 'exec: "nope": executable file not found in $PATH',
            "The engine's container could not be started. Kubernetes says StartError: "
            'exec: "nope": executable file not found in $PATH. Mend the EngineConnPlugin\'s command',
        ),
        ("ContainerCannotRun", 127, "no such file", "Kubernetes says ContainerCannotRun: no such file. Mend"),
    ],
)  # fmt: skip
def test_a_process_that_failed_is_told_with_a_remedy_that_it_has(why: str, code: int, message: str, words: str) -> None:
    gone = pod(terminated=Terminated(why, code, 0, message, at(8)))
    told = decided(snapshot(engine=engine(STARTING), pod=gone, evidence=COLLECTED), 9).message
    assert words in told
    assert "agent" not in told.lower()
    assert "stderr" not in told


def test_each_condition_has_a_reason_and_a_message_of_its_own() -> None:
    """Draining False with the engine's reason KernelReady, and an empty message, said nothing."""
    ready = STARTING | {"launch": TCP}
    patch = decided(snapshot(engine=engine(ready), plugin=plugin(TCP), pod=pod(**READY)), 3).patch
    found = {c["type"]: (c["status"], c["reason"], c["message"]) for c in patch["conditions"]}
    assert found["PodScheduled"] == ("True", "Scheduled", "The engine's pod has a node.")
    assert found["Draining"][:2] == ("False", "NotDraining")
    assert found["Ready"][:2] == ("True", "ProcessReady")
    assert all(message for _, _, message in found.values())
