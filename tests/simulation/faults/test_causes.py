"""What an engine waits for and what ended it, under its own reason: what others put into its pod, and what the cluster
does with it. Each test tries several members of one kind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkis_ecm.kube.resources import EVENTS, LIMIT_RANGES, PODS
from tools.testkit.fakes.cluster import loop_now, timestamp
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, Script, World

pytestmark = pytest.mark.looptime

WAITS = {"waiting": {"reason": "PodInitializing"}}
PENDING = {"phase": "Pending", "containerStatuses": [{"name": "engine", "state": WAITS}]}
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def key_of(world: World, name: str) -> tuple[str, str]:
    (pod,) = world.pods(name)
    return NAMESPACE, pod["metadata"]["name"]


async def stuck(world: World, status: dict[str, Any], spec: dict[str, Any] | None = None, **engine: Any) -> str:
    """An engine whose pod has this status, and these fields of the spec; its uid."""
    world.cluster.admit_pod = lambda pod: pod["spec"].update(spec or {})
    uid = world.create("e", Script(stuck=status), **engine)
    await world.until(lambda: bool(world.pods("e")))
    return uid


def with_init(name: str, state: dict[str, Any]) -> dict[str, Any]:
    return PENDING | {"initContainerStatuses": [{"name": name, "state": state}]}


def pod_event(world: World, reason: str, note: str, kind: str = "Warning") -> None:
    body = {"metadata": {"name": f"e.{reason.lower()}"}, "type": kind, "reason": reason, "note": note,
            "eventTime": timestamp(loop_now()),
            "regarding": {"kind": "Pod", "name": key_of(world, "e")[1]}}  # fmt: skip
    world.cluster.create(EVENTS, body, namespace=NAMESPACE)


# --- init containers


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ({"exitCode": 3, "reason": "Error"}, "Its exit code was 3."),
        ({"exitCode": 137, "reason": "OOMKilled"}, "more memory than its own limit"),
        ({"exitCode": 1, "reason": "Error", "message": "no route to mesh"}, "no route to mesh"),
    ],
)
async def test_an_init_container_that_fails_is_named_with_its_code_and_log(
    world: World, ended: dict[str, Any], words: str
) -> None:
    uid = world.create("e", Script(stuck=with_init("mesh-init", {"terminated": ended}) | {"phase": "Failed"}))
    await world.until_state("e", "Failed")
    status = world.status("e")
    assert status["reason"] == "InitContainerFailed"
    assert "It is the init container mesh-init." in status["message"]
    assert words in status["message"]
    # The kubelet's log of that container, not of the engine's, which never ran.
    assert ("from the kubelet" in status["message"]) != ("message" in ended)
    assert world.archive.bundles[uid, 0]["container.log"] == b"from the kubelet\n"
    assert "StartTimeout" not in str(status)


async def test_an_init_container_that_hangs_is_named_while_it_does_and_at_the_end(world: World) -> None:
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    await stuck(world, with_init("mesh-init", state), {"nodeName": "node"}, startTimeout="40s")
    await world.until(lambda: world.status("e").get("reason") == "InitContainerRuns", 15)
    assert "mesh-init" in world.status("e")["message"]
    await world.until_state("e", "Failed", 60)
    assert world.status("e")["reason"] == "InitContainerRuns"
    assert "within its startTimeout" in world.status("e")["message"]
    assert "from the kubelet" in world.status("e")["message"]


@pytest.mark.parametrize(
    ("waiting", "always", "reason", "kind"),
    [
        ("ErrImagePull", False, "ImagePullBackOff", "init container"),
        ("CreateContainerConfigError", False, "CreateContainerConfigError", "init container"),
        ("ImagePullBackOff", True, "ImagePullBackOff", "sidecar container"),
        ("CrashLoopBackOff", True, "InitContainerFailed", "sidecar container"),
    ],
)
async def test_another_container_that_keeps_the_engine_from_starting_is_named(
    world: World, waiting: str, always: bool, reason: str, kind: str
) -> None:
    spec = {"initContainers": [{"name": "mesh", "restartPolicy": "Always"} if always else {"name": "mesh"}]}
    state = {"waiting": {"reason": waiting, "message": "words of the kubelet"}}
    await stuck(world, with_init("mesh", state), spec, startTimeout="30s")
    await world.until(lambda: world.status("e").get("reason") == reason, 10)
    assert f"It is the {kind} mesh." in world.status("e")["message"]
    assert "words of the kubelet" in world.status("e")["message"]
    await world.until_state("e", "Failed", 60)
    assert world.status("e")["reason"] == reason


# --- the scheduler


async def test_time_behind_a_scheduling_gate_is_not_the_starts(world: World) -> None:
    gates = {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}, {"name": "other.io/gate"}]}
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "Scheduling is blocked"}
    await stuck(world, {"phase": "Pending", "conditions": [gated]}, gates, startTimeout="25s")
    await world.until(lambda: world.status("e").get("reason") == "SchedulingGated")
    assert "kueue.x-k8s.io/admission, other.io/gate" in world.status("e")["message"]
    assert "less cpu" not in world.status("e")["message"]
    await asyncio.sleep(3600)
    assert world.status("e")["reason"] == "SchedulingGated"
    told = [event["type"] for event in world.cluster.all(EVENTS) if event["reason"] == "SchedulingGated"]
    assert told == ["Normal"]
    # Its queue lets it in: from now on its time counts, also for the next operator.
    world.cluster.change(PODS, key_of(world, "e"), lambda item: item["spec"].pop("schedulingGates"))
    await world.until(lambda: "admitted" in world.status("e")["startup"], 5)
    await world.crash(world.operators[0])
    await world.start("two")
    await asyncio.sleep(20)
    assert world.state("e") == "Starting"
    await world.until_state("e", "Failed", 15)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("0/3 nodes are available: 3 Insufficient cpu.", "Ask for less cpu or memory"),
        ('persistentvolumeclaim "data" not found', "Create the claim"),
        ("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.", "kubectl describe pvc"),
        ("0/3 nodes are available: 3 node(s) had untolerated taint {gpu: true}.", "toleration"),
        ("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.", "nodeSelector"),
    ],
)
async def test_what_the_scheduler_says_has_the_remedy_that_fits(world: World, words: str, remedy: str) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
    await stuck(world, {"phase": "Pending", "conditions": [condition]}, startTimeout="30s")
    await world.until(lambda: world.status("e").get("reason") == "Unschedulable")
    for _ in range(2):
        message = world.status("e")["message"]
        assert words in message
        assert remedy in message
        assert ("less cpu" in message) == ("Insufficient" in words)
        if world.state("e") == "Starting":
            await world.until_state("e", "Failed", 60)


# --- the node


@pytest.mark.parametrize(
    ("event", "note", "reason"),
    [
        ("FailedMount", 'MountVolume.SetUp failed for volume "user-s" : secret "s" not found', "MountFailed"),
        ("FailedAttachVolume", "Multi-Attach error for volume", "MountFailed"),
        ("FailedCreatePodSandBox", "failed to set up pod network: no IP addresses left", "NodeCannotStart"),
        ("NetworkNotReady", "network is not ready: cni plugin not initialized", "NodeCannotStart"),
    ],
)
async def test_what_the_node_says_is_told_while_the_engine_waits(
    world: World, event: str, note: str, reason: str
) -> None:
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    status = {"phase": "Pending", "conditions": [SCHEDULED],
              "containerStatuses": [{"name": "engine", "state": waiting}]}  # fmt: skip
    await stuck(world, status, {"nodeName": "node"}, startTimeout="90s")
    pod_event(world, "Scheduled", "assigned", "Normal")
    await world.until(lambda: world.status("e").get("reason") == "PodScheduled", 15)
    assert "waits for a node" not in world.status("e")["message"]
    pod_event(world, event, note)
    await world.until(lambda: world.status("e").get("reason") == reason, 40)
    assert note in world.status("e")["message"]
    await world.until_state("e", "Failed", 100)
    assert world.status("e")["reason"] == reason
    assert note in world.status("e")["message"]


async def test_a_start_of_usual_length_costs_no_read_of_events(world: World) -> None:
    world.create("e", Script(start=3, ready=5))
    await world.until_state("e", "Idle")
    assert not [one for one in world.server.log if one.call.resource is EVENTS and one.call.verb == "list"]


KUBELET = "TerminationByKubelet"


def disrupted(reason: str, message: str = "") -> dict[str, Any]:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}


@pytest.mark.parametrize(
    ("status", "code", "reason", "words"),
    [
        ({"reason": "Evicted", "message": "emptyDir over its limit"}, 143, "Evicted", "emptyDir over its limit"),
        ({"conditions": [disrupted(KUBELET, "Pod was terminated in response to imminent node shutdown.")]}, 143,
         "NodeShutdown", "imminent node shutdown"),
        ({"reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown."}, 0,
         "NodeShutdown", "imminent node shutdown"),
        ({"conditions": [disrupted(KUBELET, "The node was low on resource: memory.")]}, 137, "Evicted", "memory"),
        ({"conditions": [disrupted(KUBELET, "Preempted in order to admit critical pod")]}, 143, "Preempted",
         "critical pod"),
        ({"reason": "DeadlineExceeded", "message": "Pod was active longer than the deadline"}, 143, "AgentExited",
         "active longer than the deadline"),
    ],
)  # fmt: skip
async def test_what_ended_the_pod_of_a_running_engine_is_told_in_the_clusters_words(
    world: World, status: dict[str, Any], code: int, reason: str, words: str
) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    ended = {"terminated": {"exitCode": code, "reason": "Error"}}
    change = status | {"phase": "Failed", "containerStatuses": [{"name": "engine", "state": ended}]}
    world.cluster.change(PODS, key_of(world, "e"), lambda item: item["status"].update(change))
    await world.until_state("e", "Failed")
    assert world.status("e")["reason"] == reason
    assert words in world.status("e")["message"]


@pytest.mark.parametrize(
    ("reason", "words"),
    [("OutOfcpu", "Node didn't have enough resource: cpu"), ("UnexpectedAdmissionError", "device plugin went"),
     ("NodeAffinity", "Predicate NodeAffinity failed")],
)  # fmt: skip
async def test_a_pod_that_its_kubelet_does_not_take_has_not_exited(world: World, reason: str, words: str) -> None:
    world.create("e", Script(stuck={"phase": "Failed", "reason": reason, "message": words}))
    await world.until_state("e", "Failed")
    status = world.status("e")
    assert status["reason"] == "PodNotStarted"
    assert (reason in status["message"], words in status["message"]) == (True, True)
    assert "stderr" not in status["message"]


async def test_a_container_that_the_kubelet_does_not_find_any_more_is_its_nodes_loss(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.exit_pod(world.pods("e")[0], 137, "ContainerStatusUnknown")
    await world.until_state("e", "Failed")
    assert world.status("e")["reason"] == "NodeLost"
    assert "ContainerStatusUnknown" in world.status("e")["message"]


@pytest.mark.parametrize("code", [0, 143])
async def test_an_eviction_that_only_the_pods_events_tell_is_one_and_restarts_by_its_policy(
    world: World, code: int
) -> None:
    """A container that exits with 0 on SIGTERM is a success for the kubelet, which then drops its reason."""
    world.create("e", restartPolicy={"type": "OnInfrastructureFailure", "maxAttempts": 2})
    await world.until_state("e", "Idle")
    note = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi."
    pod_event(world, "Evicted", note)
    world.exit_pod(world.pods("e")[0], code)
    await world.until(lambda: world.status("e").get("reason") == "Restarting")
    assert world.status("e")["lastEnd"]["reason"] == "Evicted"
    assert note in world.status("e")["lastEnd"]["message"]
    await world.until_state("e", "Idle", 60)
    assert world.status("e")["attempt"] == 1


async def test_a_job_that_has_succeeded_stays_a_success_though_its_pod_was_evicted_at_its_end(world: World) -> None:
    uid = world.create("e", Script(once=0), mode="once", code="1")
    await world.until_state("e", "Running")
    pod_event(world, "Evicted", "low on memory")
    await world.until_state("e", "Success")
    assert world.status("e")["reason"] == "Completed"
    assert b'"Completed"' in world.archive.bundles[uid, 0]["bundle.json"]


async def test_a_stop_stays_a_stop_though_the_pod_was_about_to_be_evicted(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    pod_event(world, "Evicted", "low on memory")
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    assert world.status("e")["reason"] == "StoppedByUser"


# --- sidecars


@pytest.mark.parametrize("how", ["stop", "exit", "job", "fails"])
async def test_a_pod_that_a_sidecar_keeps_running_goes_when_the_engine_has_ended(world: World, how: str) -> None:
    world.create(
        "e", Script(once=0) if how == "job" else None, **({"mode": "once", "code": "1"} if how == "job" else {})
    )
    await world.until_state("e", "Running" if how == "job" else "Idle")
    key = key_of(world, "e")
    world.sidecar = "mesh-proxy"
    if how == "stop":
        world.edit("e", desiredState="Stopped")
    elif how != "job":
        world.exit_pod(world.pods("e")[0], 0 if how == "exit" else 1)
    await world.until_state("e", "Failed" if how == "fails" else "Success")
    await world.until(lambda: world.cluster.peek(PODS, key) is None, 30)


async def test_a_pod_whose_only_container_has_ended_stays_for_whoever_reads_its_log(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.exit_pod(world.pods("e")[0], 0)
    await world.until_state("e", "Success")
    await asyncio.sleep(600)
    assert world.pods("e")


# --- the API server and what stands behind it


def refuse_pods(world: World, code: int, reason: str, words: str) -> Fault:
    """The API server's answer to each POST of a pod, until `world.server.faults.clear()`."""
    return world.server.faults.add(
        Fault(verb="create", resource=PODS, times=None, status=code, reason=reason, message=words)
    )


WEBHOOK = 'Internal error occurred: failed calling webhook "mesh.io": no endpoints available for service "mesh"'


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [(500, "InternalError", WEBHOOK), (503, "ServiceUnavailable", "etcd is not there"), (504, "Timeout", "too slow"),
     (429, "TooManyRequests", "later")],
)  # fmt: skip
async def test_a_pod_that_cannot_be_made_now_is_told_with_the_servers_words(
    world: World, code: int, reason: str, words: str
) -> None:
    refuse_pods(world, code, reason, words)
    world.create("e", startTimeout="90s")
    await world.until(lambda: world.status("e").get("reason") == "PodNotMade", 10)
    assert words in world.status("e")["message"]
    assert world.state("e") == "Starting"
    assert [event["type"] for event in world.cluster.all(EVENTS) if event["reason"] == "PodNotMade"] == ["Warning"]
    world.server.faults.clear()
    await world.until_state("e", "Idle", 15)


async def test_an_engine_whose_pod_was_never_made_ends_in_time_with_the_words(world: World) -> None:
    refuse_pods(world, 500, "InternalError", WEBHOOK)
    world.create("e", startTimeout="45s")
    await world.until_state("e", "Failed", 50)
    assert world.status("e")["reason"] == "PodNotMade"
    assert WEBHOOK in world.status("e")["message"]


@pytest.mark.parametrize("new_operator", [False, True])
async def test_a_refusal_stays_the_reason_and_keeps_its_words_until_the_end(world: World, new_operator: bool) -> None:
    words = "admission webhook 'x' denied the request: no engines on Fridays"
    refuse_pods(world, 403, "Forbidden", words)
    world.create("e", startTimeout="60s")
    await world.until(lambda: world.status("e").get("reason") == "PodRefused")
    if new_operator:
        await world.crash(world.operators[0])
        await asyncio.sleep(120)
        world.server.faults.clear()
        await world.start("two")
    await world.until_state("e", "Failed", 70)
    assert world.status("e")["reason"] == "PodRefused"
    assert words in world.status("e")["message"]
    assert "within its startTimeout" in world.status("e")["message"]


@pytest.mark.parametrize(
    ("code", "words", "reason", "remedy"),
    [
        (403, "failed quota: few: must specify limits.cpu for: engine", "QuotaExceeded", "spec.resources.cpuLimit"),
        (403, "failed quota: few: must specify limits.cpu for: engine; requests.ephemeral-storage for: engine",
         "QuotaExceeded", "LimitRange in the namespace give a default for requests.ephemeral-storage"),
        (403, "exceeded quota: few, requested: limits.cpu=1, used: limits.cpu=4, limited: limits.cpu=4",
         "QuotaExceeded", "ResourceQuota raised"),
        (403, "maximum cpu usage per Container is 200m, but limit is 500m", "LimitRangeExceeded", "small-ones"),
        (403, "minimum memory usage per Container is 2Gi, but request is 1Gi", "LimitRangeExceeded",
         "Set spec.resources.memory within"),
        (422, 'Pod "e" is invalid: spec.containers[0].resources.requests: Invalid value: "500m": must be less than or'
         " equal to cpu limit of 200m", "LimitRangeExceeded", "spec.resources.cpuLimit"),
        (403, "unable to validate against any security context constraint: [provider restricted-v2]", "PodRefused",
         "SecurityContextConstraint"),
        (403, "unable to create new content in namespace engines because it is being terminated", "PodRefused",
         "another one"),
        (403, 'pods is forbidden: User "system:serviceaccount:x:y" cannot create resource "pods"', "PodRefused",
         "Role"),
    ],
)  # fmt: skip
async def test_a_refusal_says_the_remedy_that_fits(
    world: World, code: int, words: str, reason: str, remedy: str
) -> None:
    for name, limits in (("small-ones", {"default": {"cpu": "200m"}}), ("of-volumes", {"max": {"storage": "1Gi"}})):
        body = {"metadata": {"name": name}, "spec": {"limits": [{"type": "Container"} | limits]}}
        world.cluster.create(LIMIT_RANGES, body, namespace=NAMESPACE)
    refuse_pods(world, code, "Forbidden" if code == 403 else "Invalid", words)
    world.create("e", startTimeout="60s")
    await world.until(lambda: world.status("e").get("reason") == reason)
    message = world.status("e")["message"]
    assert words in message
    assert remedy in message
    assert "of-volumes" not in message
    assert ("small-ones" in message) == (reason == "LimitRangeExceeded" and "cpu" in words)
    world.server.faults.clear()
    await world.until_state("e", "Idle", 15)


async def test_other_words_of_a_refusal_are_told_after_a_change_of_the_spec(world: World) -> None:
    refuse_pods(world, 403, "Forbidden", "failed quota: few: must specify limits.cpu for: engine")
    world.create("e", startTimeout="60s")
    await world.until(lambda: "spec.resources.cpuLimit" in world.status("e").get("message", ""))
    world.server.faults.clear()
    refuse_pods(world, 403, "Forbidden", "exceeded quota: few, requested: limits.cpu=1")
    world.edit("e", resources={"cpuLimit": "1"})
    await world.until(lambda: "exceeded quota" in world.status("e")["message"], 15)
    assert "must specify" not in world.status("e")["message"]
