"""Writing: what is created once, what a patch reaches, and whom the version and the uid hold off."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from linkis_ecm.kube.client import KubeClient
from linkis_ecm.kube.errors import AlreadyExists, Conflict, Invalid, NotFound
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from tools.testkit.contract.objects import CHANGES, KINDS, making, name_of, version_of


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


BEHAVIOURS = (
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
)
