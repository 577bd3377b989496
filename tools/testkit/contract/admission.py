"""What is let in: what the schemas and their rules refuse, what is defaulted, dropped or kept as it was sent."""

from __future__ import annotations

import pytest

from linkis_ecm.kube.client import KubeClient
from linkis_ecm.kube.errors import Invalid, NotFound
from linkis_ecm.kube.resources import ENGINECONNS, LEASES, PODS
from tools.testkit.contract.objects import making, name_of


async def an_invalid_engine_is_refused_and_its_field_named(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        for field, spec in (
            ("spec.user", {"user": " not a user"}),
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


async def an_engines_pod_template_keeps_the_fields_that_it_may_have(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        toleration = {"key": "a", "operator": "Exists"}
        spec = {"nodeSelector": {"pool": "x"}, "tolerations": [toleration]}
        template = {"metadata": {"labels": {"a": "b"}}, "spec": spec}
        junk = {"colour": "blue", "junk": [[], [{}]], "tolerations": [toleration | {"junk": [[]]}]}
        engine = await made.engine(podTemplate=template | {"spec": spec | junk, "status": {"junk": [[]]}})
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


BEHAVIOURS = (
    an_invalid_engine_is_refused_and_its_field_named,
    an_invalid_status_is_refused_and_its_field_named,
    an_engine_is_defaulted_and_loses_its_unknown_fields,
    an_engines_pod_template_keeps_the_fields_that_it_may_have,
    an_engines_identity_cannot_change,
    a_pods_spec_cannot_change,
    a_stopped_engine_cannot_be_wanted_running_again,
    a_lease_keeps_its_times_to_the_microsecond,
)
