"""What the behaviours make: a small object of each kind, a change that it lets in, and its removal."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from linkis_ecm.kube.client import KubeClient, Object
from linkis_ecm.kube.errors import NotFound
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
