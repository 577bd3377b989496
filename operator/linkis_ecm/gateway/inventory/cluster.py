"""What the gateway asks of the API server: the part of kube's client that endpoints use. Tests hand in another."""

from __future__ import annotations

from typing import Any, Protocol

from linkis_ecm.kube.client import ObjectList
from linkis_ecm.kube.resources import Resource


class Cluster(Protocol):
    """Writing and reading single objects. Raises kube's ApiError."""

    async def create(
        self, resource: Resource, body: dict[str, Any], *, namespace: str | None = None
    ) -> dict[str, Any]: ...

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> dict[str, Any]: ...

    async def list(self, resource: Resource, *, namespace: str | None = None) -> ObjectList: ...

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: dict[str, Any],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> dict[str, Any]: ...
