"""Deleting: whom the version and the uid hold off, what goes at once, what stays for a while, what goes along."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from linkis_ecm.kube.client import KubeClient
from linkis_ecm.kube.errors import Conflict, NotFound
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from tools.testkit.contract.objects import KINDS, making, name_of


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
        patched = await client.patch(ENGINECONNS, name, body, namespace=namespace, subresource="status")
        assert patched["status"] == body["status"], "the status can be written to the end"
        await client.patch(ENGINECONNS, name, {"metadata": {"finalizers": None}}, namespace=namespace)
        with pytest.raises(NotFound):
            await client.get(ENGINECONNS, name, namespace=namespace)


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


BEHAVIOURS = (
    a_delete_of_another_uid_conflicts_and_the_right_one_deletes,
    a_delete_of_an_old_version_conflicts_and_the_new_one_deletes,
    an_unscheduled_pod_goes_at_once_whatever_its_grace,
    a_finalizer_keeps_a_deleted_object_until_it_is_taken_away,
    a_pod_goes_with_the_engine_that_owns_it,
)
