"""What bounds an engine on its node: local disk, processes, a user namespace; and where its variables come from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from linkis_ecm.engine.causes.start_problems import eviction_of_events
from linkis_ecm.engine.causes.verdicts import verdict_of_ended_pod
from linkis_ecm.engine.pod.launch import PodSettings, kernel_name
from linkis_ecm.engine.pod.spec import InvalidSpecError, build_pod
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.engine.view import engine_view
from linkis_ecm.model import reasons
from linkis_ecm.model.plugin import EngineConnPluginSpec

PLUGIN = {
    "engineType": "python", "engineVersion": "3.11", "image": "example/engine-python:1", "runTypes": ["python"],
    "defaultResources": {"cpu": "500m", "memory": "1Gi"},
}  # fmt: skip
PROCESS = {name: value for name, value in PLUGIN.items() if name != "runTypes"} | {"launch": {"kind": "process"}}
SETTINGS = PodSettings(report_url="http://operator:9103", own_namespace="ns", protected=frozenset({"secret/ecm-auth"}))
FROM_SECRET = {"valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}


def built(plugin: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, base: Any = None) -> dict[str, Any]:
    """The spec of the pod."""
    metadata = {
        "namespace": "ns", "name": "mine", "uid": "u1", "resourceVersion": "5", "generation": 1,
        "creationTimestamp": "2026-11-27T12:00:00Z",
    }  # fmt: skip
    body = {"metadata": metadata, "spec": {"engineType": "python", "user": "ana"} | (spec or {})}
    engine = engine_view(body, epoch=datetime(2026, 11, 27, tzinfo=UTC))
    assert engine.spec is not None, engine.invalid
    offered = EngineConnPluginSpec.model_validate((base or PLUGIN) | (plugin or {}))
    found: dict[str, Any] = build_pod(engine, engine.spec, offered, ticket="t", attempt=0, settings=SETTINGS)["spec"]
    return found


def scratch(name: str, size: str | None = None) -> dict[str, Any]:
    return {"name": name, "mountPath": f"/{name}", "emptyDir": {} if size is None else {"sizeLimit": size}}


def sizes(pod: dict[str, Any]) -> dict[str, str]:
    """Of what is on disk."""
    emptied = {one["name"]: one["emptyDir"] for one in pod["volumes"] if "emptyDir" in one}
    return {name: source["sizeLimit"] for name, source in emptied.items() if "medium" not in source}


def disk(pod: dict[str, Any]) -> tuple[str, str]:
    resources = pod["containers"][0]["resources"]
    return resources["requests"]["ephemeral-storage"], resources["limits"]["ephemeral-storage"]


def test_every_empty_dir_has_a_size_and_the_container_a_limit_over_all() -> None:
    pod = built()
    assert sizes(pod) == {"tmp": "4Gi", "log": "4Gi"}
    # Both, and 64 Mi of the container's own output.
    assert disk(pod) == ("0", f"{8 * 1024 + 64}Mi")
    volumes = {"volumes": [scratch("a"), scratch("b", "1Gi")]}
    pod = built(spec=volumes)
    assert sizes(pod) == {"tmp": "4Gi", "log": "4Gi", "user-a": "8Gi", "user-b": "1Gi"}
    # All scratch volumes together, however many.
    assert disk(pod) == ("0", f"{16 * 1024 + 64}Mi")
    pod = built({"storage": {"tmp": "1Gi", "volumes": "2Gi", "request": "256Mi"}}, volumes)
    assert sizes(pod) == {"tmp": "1Gi", "log": "4Gi", "user-a": "2Gi", "user-b": "1Gi"}
    assert disk(pod) == ("256Mi", f"{7 * 1024 + 64}Mi")


def test_a_process_has_them_too_without_the_agents_log() -> None:
    pod = built({"storage": {"tmp": "1Gi"}}, base=PROCESS)
    assert sizes(pod) == {"tmp": "1Gi"}
    assert disk(pod) == ("0", f"{1024 + 64}Mi")


def test_scratch_space_over_the_plugins_is_refused_with_figure_and_remedy() -> None:
    with pytest.raises(InvalidSpecError) as refused:
        built(spec={"volumes": [scratch("a", "9Gi")]})
    assert "spec.volumes a: sizeLimit 9Gi is over the plugin's 8Gi" in str(refused.value)
    assert "storage.volumes" in str(refused.value)
    assert sizes(built({"storage": {"volumes": "9Gi"}}, {"volumes": [scratch("a", "9Gi")]}))["user-a"] == "9Gi"


@pytest.mark.parametrize(
    ("memory", "size"), [("1Gi", 512 << 20), ("64Mi", 32 << 20), ("1500M", 750_000_000), ("33554433", 16 << 20)]
)
@pytest.mark.parametrize("base", [PLUGIN, PROCESS])
def test_shared_memory_has_half_of_the_memory_and_no_room_on_disk(memory: str, size: int, base: dict[str, Any]) -> None:
    pod = built(spec={"resources": {"memory": memory}}, base=base)
    (volume,) = [one for one in pod["volumes"] if one["name"] == "shm"]
    assert volume == {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(size)}}
    assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
    assert disk(pod) == disk(built(base=base))


# --- where the code starts

DATA = {"volumes": [{"name": "d", "mountPath": "/data/", "emptyDir": {}}]}


@pytest.mark.parametrize(
    ("asked", "folder"),
    [
        ("/data", "/data"),
        ("/data/a/b/", "/data/a/b"),
        ("//data/./a", "/data/a"),
        ("/tmp", "/tmp"),
        ("/tmp/x", "/tmp/x"),
    ],
)
def test_code_starts_in_a_folder_of_a_volume(asked: str, folder: str) -> None:
    pod = built(spec=DATA | {"workingDir": asked})
    assert env(pod)["ECM_WORK_DIR"] == {"value": folder}
    # The runtime would make the folder as root.
    assert "workingDir" not in pod["containers"][0]
    process = built(spec=DATA | {"workingDir": asked}, base=PROCESS)
    assert process["containers"][0]["workingDir"] == folder
    assert "ECM_WORK_DIR" not in env(process)


@pytest.mark.parametrize(
    "asked",
    ["/", "/database", "/data/../etc", "/etc", "/var/log/engine", "/opt/venv", "/dev/shm", "/var/run/linkis-ecm"],
)
def test_a_working_dir_that_is_in_no_volume_is_refused_with_the_remedy(asked: str) -> None:
    with pytest.raises(InvalidSpecError, match=r"spec\.workingDir \S+ is in none of spec\.volumes: take the mountPath"):
        built(spec=DATA | {"workingDir": asked})


def test_the_plugins_working_dir_is_for_engines_that_name_none() -> None:
    assert "ECM_WORK_DIR" not in env(built())
    offered = {"workingDir": "/srv/app/"}
    assert env(built(offered))["ECM_WORK_DIR"] == {"value": "/srv/app"}
    assert env(built(offered, DATA | {"workingDir": "/data"}))["ECM_WORK_DIR"] == {"value": "/data"}


def env(pod: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: {key: one[key] for key in one if key != "name"} for one in pod["containers"][0]["env"]}


def test_the_agent_is_told_how_many_processes_its_engine_may_have() -> None:
    assert env(built())["ECM_MAX_PROCESSES"] == {"value": "2048"}
    assert env(built({"maxProcesses": 0}))["ECM_MAX_PROCESSES"] == {"value": "0"}


def test_a_user_namespace_is_asked_for_where_the_plugin_says_so() -> None:
    assert "hostUsers" not in built()
    assert built({"userNamespaces": True})["hostUsers"] is False


def test_a_variable_from_a_secret_stands_in_the_pod_as_a_reference() -> None:
    spec = {"env": [{"name": "PASSWORD"} | FROM_SECRET, {"name": "COST", "value": "$5"}]}
    found = env(built({"env": [{"name": "LICENSE"} | FROM_SECRET]}, spec))
    assert found["LICENSE"] == FROM_SECRET
    assert found[kernel_name("PASSWORD")] == FROM_SECRET
    assert found[kernel_name("COST")] == {"value": "$$5"}
    assert env(built(spec=spec, base=PROCESS))["PASSWORD"] == FROM_SECRET


def test_what_the_plugin_fixed_is_not_replaced_by_a_secret_nor_its_secret_by_a_text() -> None:
    text = {"name": "A", "value": "1"}
    secret = {"name": "A"} | FROM_SECRET
    for fixed, asked in ((text, secret), (secret, text)):
        with pytest.raises(InvalidSpecError, match=r"spec\.env\.A is fixed"):
            built({"env": [fixed]}, {"env": [asked]})
    built({"env": [secret]}, {"env": [secret]})


@pytest.mark.parametrize("name", ["ecm-auth", "sh.helm.release.v1.ecm.v1"])
def test_no_variable_comes_from_a_secret_of_the_ecm(name: str) -> None:
    with pytest.raises(InvalidSpecError, match=rf"spec\.env A: secret {name} is the ECM's own"):
        built(spec={"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "token-key"}}}]})


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('Usage of EmptyDir volume "tmp" exceeds the limit "4Gi". ', "StorageExceeded"),
        ('Container engine exceeded its local ephemeral storage limit "64Mi". ', "StorageExceeded"),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 8Gi. ", "StorageExceeded"),
        ("The node was low on resource: ephemeral-storage. Container engine was using 9Gi", "Evicted"),
        ("", "Evicted"),
    ],
)
def test_an_engine_that_filled_its_own_disk_is_told_from_one_that_was_in_the_way(message: str, reason: str) -> None:
    status = {"phase": "Failed", "reason": "Evicted", "message": message}
    pod = pod_view({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "1"}, "status": status})
    _, verdict = verdict_of_ended_pod(pod, None, was_ready=True, once=False)
    assert verdict.reason.name == reason
    assert message.strip() in verdict.message
    # Where the container exited with 0 on SIGTERM, the pod's event alone has the words.
    if message:
        by_event = eviction_of_events([{"reason": "Evicted", "note": message}])
        assert by_event is not None
        assert by_event.reason.name == reason


def test_what_an_engine_did_to_itself_is_no_matter_of_the_nodes() -> None:
    """OnInfrastructureFailure does not run it again: it would do the same."""
    assert not {reasons.STORAGE_EXCEEDED, reasons.TOO_MANY_PROCESSES} & reasons.INFRASTRUCTURE
