"""The Kubernetes API as our client leans on it, told once: each function here holds on the fake and on a real server.

A behaviour gets a client and a namespace that it may fill; it removes what it made. No operator may run beside it: it
would write the engines' status. Must not know which server it talks to.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from linkis_ecm.kube import metrics
from linkis_ecm.kube.client import KubeClient, Object
from linkis_ecm.kube.errors import AlreadyExists, Conflict, Invalid, NotFound
from linkis_ecm.kube.resources import CONFIGMAPS, ENGINECONNS, LEASES, PODS, Resource

RUN = "contract.linkis.example/run"
SPECS: dict[Resource, Object] = {
    ENGINECONNS: {"spec": {"engineType": "python", "user": "hadoop"}},
    CONFIGMAPS: {"data": {"number": "1"}},
    LEASES: {"spec": {"holderIdentity": "one", "leaseDurationSeconds": 8}},
    # A scheduler that nobody is: the pod stays as it was made.
    PODS: {
        "spec": {
            "schedulerName": "nobody", "restartPolicy": "Never", "automountServiceAccountToken": False,
            "containers": [{"name": "engine", "image": "registry.invalid/engine:1"}],
        }
    },
}  # fmt: skip
KINDS = tuple(SPECS)
# A change that each kind lets in.
CHANGES: dict[Resource, Object] = {
    ENGINECONNS: {"spec": {"idleTimeout": "5m"}},
    CONFIGMAPS: {"data": {"number": "2"}},
    LEASES: {"spec": {"holderIdentity": "two"}},
    PODS: {"metadata": {"annotations": {"number": "2"}}},
}


class Made:
    """Objects of one behaviour, each labelled with the same value that no other behaviour has."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.run = uuid.uuid4().hex[:10]
        self.selector = f"{RUN}={self.run}"
        self._client = client
        self._namespace = namespace
        self._things: list[tuple[Resource, str]] = []

    def body(self, resource: Resource, name: str = "", **metadata: Any) -> Object:
        labels = {RUN: self.run} | metadata.pop("labels", {})
        name = name or f"contract-{uuid.uuid4().hex[:10]}"
        meta = {"name": name, "namespace": self._namespace, "labels": labels} | metadata
        return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta} | SPECS[resource]

    async def create(self, resource: Resource, body: Object | None = None) -> Object:
        made = await self._client.create(resource, body or self.body(resource), namespace=self._namespace)
        self._things.append((resource, made["metadata"]["name"]))
        return made

    async def engine(self, **spec: Any) -> Object:
        body = self.body(ENGINECONNS)
        return await self.create(ENGINECONNS, body | {"spec": body["spec"] | spec})

    async def clear(self) -> None:
        for resource, name in self._things:
            try:
                await self._client.delete(resource, name, namespace=self._namespace, grace_seconds=0)
            except NotFound:
                continue


@asynccontextmanager
async def making(client: KubeClient, namespace: str) -> AsyncIterator[Made]:
    made = Made(client, namespace)
    try:
        yield made
    finally:
        await made.clear()


def name_of(item: Object) -> str:
    return str(item["metadata"]["name"])


def version_of(item: Object) -> int:
    return int(item["metadata"]["resourceVersion"])


# Writing


async def a_create_under_a_taken_name_is_refused_as_already_exists(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        for resource in KINDS:
            first = await made.create(resource)
            with pytest.raises(AlreadyExists) as refusal:
                await client.create(resource, made.body(resource, name_of(first)), namespace=namespace)
            assert (refusal.value.status, refusal.value.reason) == (409, "AlreadyExists")
            assert await client.get(resource, name_of(first), namespace=namespace) == first


async def a_pod_created_twice_under_one_name_is_one_pod(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        name = f"contract-{made.run}"
        bodies = [made.body(PODS, name) for _ in range(2)]
        outcomes = await asyncio.gather(*(made.create(PODS, body) for body in bodies), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadyExists", "dict"]
        (winner,) = [outcome for outcome in outcomes if isinstance(outcome, dict)]
        found = await client.list(PODS, namespace=namespace, label_selector=made.selector)
        assert [pod["metadata"]["uid"] for pod in found.items] == [winner["metadata"]["uid"]]


async def what_is_absent_is_not_found_by_get_patch_and_delete(client: KubeClient, namespace: str) -> None:
    absent = f"absent-{uuid.uuid4().hex}"
    for resource in KINDS:
        for call in (
            client.get(resource, absent, namespace=namespace),
            client.patch(resource, absent, {"metadata": {"labels": {"a": "b"}}}, namespace=namespace),
            client.delete(resource, absent, namespace=namespace),
            client.delete(resource, absent, namespace=namespace, uid=str(uuid.uuid4())),
        ):
            with pytest.raises(NotFound) as refusal:
                await call
            assert (refusal.value.status, refusal.value.reason) == (404, "NotFound")
            assert absent in refusal.value.message
    status = {"status": {"engineState": "Idle"}}
    with pytest.raises(NotFound):
        await client.patch(ENGINECONNS, absent, status, namespace=namespace, subresource="status")


async def an_object_made_anew_under_its_name_has_another_uid(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        for resource in KINDS:
            first = await made.create(resource)
            await client.delete(resource, name_of(first), namespace=namespace)
            second = await made.create(resource, made.body(resource, name_of(first)))
            assert second["metadata"]["uid"] != first["metadata"]["uid"]
            assert version_of(second) > version_of(first)


async def a_patch_of_an_old_version_conflicts_and_changes_nothing(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        for resource in KINDS:
            old = await made.create(resource)
            stale = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}}
            now = await client.patch(
                resource, name_of(old), {"metadata": {"labels": {"by": "another"}}}, namespace=namespace
            )
            change = CHANGES[resource]
            body = change | {"metadata": change.get("metadata", {}) | stale["metadata"]}
            with pytest.raises(Conflict) as refusal:
                await client.patch(resource, name_of(old), body, namespace=namespace)
            assert (type(refusal.value), refusal.value.reason) == (Conflict, "Conflict")
            assert await client.get(resource, name_of(old), namespace=namespace) == now
            body["metadata"] = body["metadata"] | {"resourceVersion": now["metadata"]["resourceVersion"]}
            changed = await client.patch(resource, name_of(old), body, namespace=namespace)
            assert version_of(changed) > version_of(now)


async def a_status_patch_of_an_old_version_conflicts_and_changes_nothing(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        old = await made.engine()
        now = await client.patch(ENGINECONNS, name_of(old), {"spec": {"idleTimeout": "1m"}}, namespace=namespace)
        version = {"resourceVersion": old["metadata"]["resourceVersion"]}
        body = {"metadata": version, "status": {"engineState": "Idle"}}
        with pytest.raises(Conflict):
            await client.patch(ENGINECONNS, name_of(old), body, namespace=namespace, subresource="status")
        assert await client.get(ENGINECONNS, name_of(old), namespace=namespace) == now


async def another_uid_is_refused_in_a_patch_but_guards_no_status_patch(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        another = {"metadata": {"uid": str(uuid.uuid4())}}
        for resource in KINDS:
            now = await made.create(resource)
            with pytest.raises(Invalid) as refusal:
                await client.patch(resource, name_of(now), another, namespace=namespace)
            assert "metadata.uid" in refusal.value.message
            assert await client.get(resource, name_of(now), namespace=namespace) == now
        # Of a custom resource's status patch the server takes no metadata but the resourceVersion: an engine made
        # anew under its name is kept from its predecessor's status by that alone.
        engine = await made.engine()
        body = another | {"status": {"engineState": "Idle"}}
        taken = await client.patch(ENGINECONNS, name_of(engine), body, namespace=namespace, subresource="status")
        assert taken["status"] == {"engineState": "Idle"}
        assert taken["metadata"]["uid"] == engine["metadata"]["uid"]


async def a_patch_with_null_takes_a_field_away_and_leaves_the_others(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        engine = await made.engine(idleTimeout="5m", maxLifetime="1h")
        patched = await client.patch(
            ENGINECONNS, name_of(engine), {"spec": {"idleTimeout": None}}, namespace=namespace
        )  # fmt: skip
        assert "idleTimeout" not in patched["spec"]
        assert patched["spec"] == {key: value for key, value in engine["spec"].items() if key != "idleTimeout"}


async def a_status_patch_reaches_the_status_alone_and_no_generation(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        engine = await made.engine()
        assert engine["metadata"]["generation"] == 1
        body = {
            "metadata": {"labels": {"from": "status"}},
            "spec": {"idleTimeout": "5m"},
            "status": {"engineState": "Idle", "message": "ready"},
        }
        patched = await client.patch(ENGINECONNS, name_of(engine), body, namespace=namespace, subresource="status")
        assert patched["status"] == {"engineState": "Idle", "message": "ready"}
        assert patched["spec"] == engine["spec"]
        assert patched["metadata"]["generation"] == 1
        assert version_of(patched) > version_of(engine)
        assert patched["metadata"]["labels"] == engine["metadata"]["labels"]


async def a_spec_patch_raises_the_generation_and_leaves_the_status(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        engine = await made.engine()
        name, status = name_of(engine), {"status": {"engineState": "Idle"}}
        before = await client.patch(ENGINECONNS, name, status, namespace=namespace, subresource="status")
        body = {"spec": {"idleTimeout": "5m"}, "status": {"engineState": "Failed"}}
        after = await client.patch(ENGINECONNS, name, body, namespace=namespace)
        assert after["spec"] == engine["spec"] | {"idleTimeout": "5m"}
        assert after["status"] == before["status"] == {"engineState": "Idle"}
        assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1 == 2
        labelled = await client.patch(ENGINECONNS, name, {"metadata": {"labels": {"a": "b"}}}, namespace=namespace)
        assert labelled["metadata"]["generation"] == 2, "metadata is no spec"


async def a_status_given_at_creation_is_ignored(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        engine = await made.create(ENGINECONNS, made.body(ENGINECONNS) | {"status": {"engineState": "Idle"}})
        assert "status" not in engine
        assert engine["metadata"]["generation"] == 1


async def a_write_that_changes_nothing_makes_no_new_version(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        for resource in KINDS:
            name = name_of(await made.create(resource))
            # The first write also notes the writer (managedFields).
            first = await client.patch(resource, name, CHANGES[resource], namespace=namespace)
            # Field managers' times have whole seconds: a second one must not count as a change.
            await asyncio.sleep(1.1)
            assert await client.patch(resource, name, CHANGES[resource], namespace=namespace) == first
        name, body = name_of(await made.engine()), {"status": {"engineState": "Idle", "startup": {"accepted": "now"}}}
        once = await client.patch(ENGINECONNS, name, body, namespace=namespace, subresource="status")
        await asyncio.sleep(1.1)
        again = await client.patch(ENGINECONNS, name, body, namespace=namespace, subresource="status")
        assert again == once


async def a_delete_of_another_uid_conflicts_and_the_right_one_deletes(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        for resource in KINDS:
            item = await made.create(resource)
            name, uid = name_of(item), item["metadata"]["uid"]
            with pytest.raises(Conflict) as refusal:
                await client.delete(resource, name, namespace=namespace, uid=str(uuid.uuid4()))
            assert (type(refusal.value), refusal.value.reason) == (Conflict, "Conflict")
            assert await client.get(resource, name, namespace=namespace) == item
            await client.delete(resource, name, namespace=namespace, uid=uid)
            with pytest.raises(NotFound):
                await client.get(resource, name, namespace=namespace)


async def a_delete_of_an_old_version_conflicts_and_the_new_one_deletes(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        old = await made.engine()
        name, label = name_of(old), {"metadata": {"labels": {"a": "b"}}}
        now = await client.patch(ENGINECONNS, name, label, namespace=namespace)
        version = old["metadata"]["resourceVersion"]
        with pytest.raises(Conflict):
            await client.delete(ENGINECONNS, name, namespace=namespace, resource_version=version)
        assert await client.get(ENGINECONNS, name, namespace=namespace) == now
        version = now["metadata"]["resourceVersion"]
        await client.delete(ENGINECONNS, name, namespace=namespace, resource_version=version)
        with pytest.raises(NotFound):
            await client.get(ENGINECONNS, name, namespace=namespace)


async def an_unscheduled_pod_goes_at_once_whatever_its_grace(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        name = name_of(await made.create(PODS))
        await client.delete(PODS, name, namespace=namespace, grace_seconds=30)
        with pytest.raises(NotFound):
            await client.get(PODS, name, namespace=namespace)


async def a_finalizer_keeps_a_deleted_object_until_it_is_taken_away(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        engine = await made.create(
            ENGINECONNS, made.body(ENGINECONNS, finalizers=["contract.linkis.example/hold"])
        )  # fmt: skip
        name = name_of(engine)
        await client.delete(ENGINECONNS, name, namespace=namespace)
        held = await client.get(ENGINECONNS, name, namespace=namespace)
        assert "deletionTimestamp" in held["metadata"]
        assert held["metadata"]["generation"] == 2
        body = {"status": {"engineState": "ShuttingDown"}}
        told = await client.patch(ENGINECONNS, name, body, namespace=namespace, subresource="status")
        assert told["status"] == body["status"], "the status can be written to the end"
        await client.patch(ENGINECONNS, name, {"metadata": {"finalizers": None}}, namespace=namespace)
        with pytest.raises(NotFound):
            await client.get(ENGINECONNS, name, namespace=namespace)


# What is let in


async def an_invalid_engine_is_refused_and_its_field_named(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        for field, spec in (
            ("spec.user", {"user": "not-a-user"}),
            ("spec.code", {"mode": "once"}),
            ("spec.engineType", {"engineType": None}),
            ("spec.desiredState", {"desiredState": "Asleep"}),
            ("spec.idleTimeout", {"idleTimeout": "90"}),
        ):
            body = made.body(ENGINECONNS)
            body["spec"] = {key: value for key, value in (body["spec"] | spec).items() if value is not None}
            with pytest.raises(Invalid) as refusal:
                await made.create(ENGINECONNS, body)
            assert (refusal.value.status, refusal.value.reason) == (422, "Invalid")
            assert field in refusal.value.message
            with pytest.raises(NotFound):
                await client.get(ENGINECONNS, name_of(body), namespace=namespace)


async def an_invalid_status_is_refused_and_its_field_named(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        engine = await made.engine()
        for field, status in (
            ("status.engineState", {"engineState": "Asleep"}),
            ("status.attempt", {"attempt": -1}),
            ("status.conditions", {"conditions": [{"type": "Ready"}]}),
        ):
            body = {"status": status}
            with pytest.raises(Invalid) as refusal:
                await client.patch(ENGINECONNS, name_of(engine), body, namespace=namespace, subresource="status")
            assert field in refusal.value.message
        assert await client.get(ENGINECONNS, name_of(engine), namespace=namespace) == engine


async def an_engine_is_defaulted_and_loses_its_unknown_fields(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        engine = await made.engine(colour="blue", resources={"cpu": "1", "colour": "blue"})
        assert engine["spec"] == {
            "engineType": "python", "user": "hadoop", "creator": "IDE", "mode": "computation",
            "desiredState": "Running", "resources": {"cpu": "1"},
        }  # fmt: skip
        body = {"status": {"engineState": "Idle", "colour": "blue"}}
        patched = await client.patch(ENGINECONNS, name_of(engine), body, namespace=namespace, subresource="status")
        assert patched["status"] == {"engineState": "Idle"}


async def a_free_object_of_an_engine_keeps_all_its_fields(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"nodeSelector": {"pool": "x"}, "colour": "blue"}}
        engine = await made.engine(podTemplate=template)
        assert engine["spec"]["podTemplate"] == template


async def an_engines_identity_cannot_change(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        engine = await made.engine()
        for field, value in (
            ("user", "eve"), ("creator", "other"), ("engineType", "shell"), ("engineVersion", "3"), ("tenant", "t"),
            ("env", [{"name": "A", "value": "b"}]),
        ):  # fmt: skip
            with pytest.raises(Invalid) as refusal:
                await client.patch(ENGINECONNS, name_of(engine), {"spec": {field: value}}, namespace=namespace)
            assert f"spec.{field}" in refusal.value.message
        assert await client.get(ENGINECONNS, name_of(engine), namespace=namespace) == engine


async def a_pods_spec_cannot_change(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        pod = await made.create(PODS)
        with pytest.raises(Invalid) as refusal:
            await client.patch(PODS, name_of(pod), {"spec": {"restartPolicy": "Always"}}, namespace=namespace)
        assert "spec" in refusal.value.message
        assert await client.get(PODS, name_of(pod), namespace=namespace) == pod


async def a_stopped_engine_cannot_be_wanted_running_again(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        name = name_of(await made.engine())
        stop = {"spec": {"desiredState": "Stopped"}}
        stopped = await client.patch(ENGINECONNS, name, stop, namespace=namespace)
        assert stopped["spec"]["desiredState"] == "Stopped"
        # Taken away, the field is defaulted to Running: that is no way back either.
        for back in ("Running", None):
            with pytest.raises(Invalid) as refusal:
                await client.patch(ENGINECONNS, name, {"spec": {"desiredState": back}}, namespace=namespace)
            assert "spec.desiredState" in refusal.value.message
        assert await client.get(ENGINECONNS, name, namespace=namespace) == stopped


async def a_lease_keeps_its_times_to_the_microsecond(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        body = made.body(LEASES)
        body["spec"] = body["spec"] | {"renewTime": "2026-11-24T04:45:28.000123Z", "leaseTransitions": 0}
        lease = await made.create(LEASES, body)
        assert lease["spec"]["renewTime"] == "2026-11-24T04:45:28.000123Z"
        freed = await client.patch(LEASES, name_of(lease), {"spec": {"holderIdentity": ""}}, namespace=namespace)
        assert not freed["spec"].get("holderIdentity")


# Reading


def _lists(resource: Resource) -> float:
    return float(metrics.REQUESTS.labels("list", resource.plural, "200")._value.get())


async def a_list_in_pages_gives_everything_once(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        for resource in KINDS:
            names = sorted([name_of(await made.create(resource)) for _ in range(5)])
            before = _lists(resource)
            paged = await client.list(resource, namespace=namespace, label_selector=made.selector, limit=2)
            assert _lists(resource) - before == 3
            assert [name_of(item) for item in paged.items] == names
            whole = await client.list(resource, namespace=namespace, label_selector=made.selector)
            assert whole.items == paged.items
            assert int(paged.resource_version) >= max(version_of(item) for item in paged.items)
            everywhere = await client.list(resource, label_selector=made.selector)
            assert everywhere.items == whole.items


async def an_empty_list_has_a_version_to_watch_from(client: KubeClient, namespace: str) -> None:
    found = await client.list(CONFIGMAPS, namespace=namespace, label_selector=f"{RUN}={uuid.uuid4().hex}")
    assert found.items == []
    assert int(found.resource_version) > 0


async def a_label_selector_chooses(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        names = {
            colour: name_of(await made.create(PODS, made.body(PODS, labels={"colour": colour} if colour else {})))
            for colour in ("red", "blue", "")
        }
        for selector, expected in (
            ("colour=red", {"red"}),
            ("colour!=red", {"blue", ""}),
            ("colour in (red, blue)", {"red", "blue"}),
            ("colour notin (red, blue)", {""}),
            ("colour", {"red", "blue"}),
            ("!colour", {""}),
            ("colour,colour!=red", {"blue"}),
        ):
            found = await client.list(PODS, namespace=namespace, label_selector=f"{made.selector},{selector}")
            assert {name_of(item) for item in found.items} == {names[colour] for colour in expected}, selector


async def a_field_selector_chooses(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        pods = [await made.create(PODS) for _ in range(2)]
        for field, expected in (
            (f"metadata.name={name_of(pods[0])}", pods[:1]),
            (f"metadata.name!={name_of(pods[0])}", pods[1:]),
            ("status.phase=Pending", pods),
            ("status.phase=Running", []),
        ):
            found = await client.list(
                PODS, namespace=namespace, label_selector=made.selector, field_selector=field
            )  # fmt: skip
            assert {name_of(item) for item in found.items} == {name_of(pod) for pod in expected}, field
        alice = await made.engine(user="alice")
        await made.engine(user="bob")
        found = await client.list(
            ENGINECONNS, namespace=namespace, label_selector=made.selector, field_selector="spec.user=alice"
        )
        assert [name_of(item) for item in found.items] == [name_of(alice)]


async def _watched(
    client: KubeClient, resource: Resource, namespace: str, version: str, selector: str, count: int
) -> list[tuple[str, Object]]:
    """The first `count` changes after that version, within 60 s."""
    told: list[tuple[str, Object]] = []
    watch = client.watch(resource, resource_version=version, namespace=namespace, label_selector=selector)
    async with asyncio.timeout(60), aclosing(watch):
        async for event in watch:
            if event.type != "BOOKMARK":
                told.append((event.type, event.object))
            if len(told) == count:
                break
    return told


async def a_watch_from_a_list_tells_each_change_in_order(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        for resource in KINDS:
            await made.create(resource)
            # A pod is marked before it goes, even where it has nothing to wait for.
            marks = ["MODIFIED"] if resource == PODS else []
            kinds = ["ADDED", "MODIFIED", *marks, "DELETED"]
            start = (await client.list(resource, namespace=namespace, label_selector=made.selector)).resource_version
            live = asyncio.create_task(_watched(client, resource, namespace, start, made.selector, len(kinds)))
            created = await made.create(resource)
            patched = await client.patch(resource, name_of(created), CHANGES[resource], namespace=namespace)
            await client.delete(resource, name_of(created), namespace=namespace)
            # Open while it happened, and opened afterwards: the same story.
            late = await _watched(client, resource, namespace, start, made.selector, len(kinds))
            for story in (await live, late):
                assert [kind for kind, _ in story] == kinds
                assert {item["metadata"]["uid"] for _, item in story} == {created["metadata"]["uid"]}
                for _, item in story[2:-1]:
                    assert item["metadata"]["deletionGracePeriodSeconds"] == 0
                    assert item["metadata"]["generation"] == created["metadata"]["generation"] + 1
                versions = [version_of(item) for _, item in story]
                assert versions[:2] == [version_of(created), version_of(patched)]
                assert versions == sorted(set(versions)), "each event is newer than the one before"
                assert int(start) < versions[0]
                assert {(item["kind"], item["apiVersion"]) for _, item in story} == {
                    (resource.kind, resource.api_version)
                }


async def an_object_that_leaves_the_selection_is_deleted_for_its_watch(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        start = (await client.list(PODS, namespace=namespace)).resource_version
        pod = await made.create(PODS, made.body(PODS, labels={"colour": "red"}))
        for colour in ("blue", "red"):
            label = {"metadata": {"labels": {"colour": colour}}}
            await client.patch(PODS, name_of(pod), label, namespace=namespace)
        story = await _watched(client, PODS, namespace, start, f"{made.selector},colour=red", 3)
        assert [kind for kind, _ in story] == ["ADDED", "DELETED", "ADDED"]
        versions = [version_of(item) for _, item in story]
        assert versions == sorted(set(versions))


async def a_watch_ends_by_itself_after_its_time(client: KubeClient, namespace: str) -> None:
    start = (await client.list(LEASES, namespace=namespace)).resource_version
    loop = asyncio.get_running_loop()
    begun = loop.time()
    nothing = f"{RUN}={uuid.uuid4().hex}"
    watch = client.watch(
        LEASES, resource_version=start, namespace=namespace, label_selector=nothing, timeout_seconds=2
    )  # fmt: skip
    async with asyncio.timeout(60), aclosing(watch):
        told = [event async for event in watch if event.type != "BOOKMARK"]
    assert told == []
    # The server's own time for a watch that names none is half an hour and more.
    assert 1.5 <= loop.time() - begun <= 30


# The garbage collector


async def a_pod_goes_with_the_engine_that_owns_it(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        owner, other = await made.engine(), await made.engine()
        pods = []
        for engine in (owner, other):
            reference = {
                "apiVersion": ENGINECONNS.api_version, "kind": "EngineConn", "name": name_of(engine),
                "uid": engine["metadata"]["uid"], "controller": True, "blockOwnerDeletion": False,
            }  # fmt: skip
            pods.append(await made.create(PODS, made.body(PODS, ownerReferences=[reference])))
        await client.delete(ENGINECONNS, name_of(owner), namespace=namespace)
        # A collector that does not know the engines' kind yet looks for new ones twice a minute.
        deadline = asyncio.get_running_loop().time() + 90
        while True:
            found = await client.list(PODS, namespace=namespace, label_selector=made.selector)
            left = {name_of(pod) for pod in found.items}
            if name_of(pods[0]) not in left:
                break
            assert asyncio.get_running_loop().time() < deadline, "the pod outlived its engine by 90 s"
            await asyncio.sleep(0.2)
        assert left == {name_of(pods[1])}


BEHAVIOURS: dict[str, Callable[[KubeClient, str], Awaitable[None]]] = {
    function.__name__: function
    for function in (
        a_create_under_a_taken_name_is_refused_as_already_exists,
        a_pod_created_twice_under_one_name_is_one_pod,
        what_is_absent_is_not_found_by_get_patch_and_delete,
        an_object_made_anew_under_its_name_has_another_uid,
        a_patch_of_an_old_version_conflicts_and_changes_nothing,
        a_status_patch_of_an_old_version_conflicts_and_changes_nothing,
        another_uid_is_refused_in_a_patch_but_guards_no_status_patch,
        a_patch_with_null_takes_a_field_away_and_leaves_the_others,
        a_status_patch_reaches_the_status_alone_and_no_generation,
        a_spec_patch_raises_the_generation_and_leaves_the_status,
        a_status_given_at_creation_is_ignored,
        a_write_that_changes_nothing_makes_no_new_version,
        a_delete_of_another_uid_conflicts_and_the_right_one_deletes,
        a_delete_of_an_old_version_conflicts_and_the_new_one_deletes,
        an_unscheduled_pod_goes_at_once_whatever_its_grace,
        a_finalizer_keeps_a_deleted_object_until_it_is_taken_away,
        an_invalid_engine_is_refused_and_its_field_named,
        an_invalid_status_is_refused_and_its_field_named,
        an_engine_is_defaulted_and_loses_its_unknown_fields,
        a_free_object_of_an_engine_keeps_all_its_fields,
        an_engines_identity_cannot_change,
        a_pods_spec_cannot_change,
        a_stopped_engine_cannot_be_wanted_running_again,
        a_lease_keeps_its_times_to_the_microsecond,
        a_list_in_pages_gives_everything_once,
        an_empty_list_has_a_version_to_watch_from,
        a_label_selector_chooses,
        a_field_selector_chooses,
        a_watch_from_a_list_tells_each_change_in_order,
        an_object_that_leaves_the_selection_is_deleted_for_its_watch,
        a_watch_ends_by_itself_after_its_time,
        a_pod_goes_with_the_engine_that_owns_it,
    )
}
