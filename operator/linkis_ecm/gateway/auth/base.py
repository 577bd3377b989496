"""The caller of a method, and the interface of authenticators, one for each way to log in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from multidict import MultiMapping

from linkis_ecm.gateway.http.errors import no_login


@dataclass(frozen=True, slots=True)
class Caller:
    """The user who makes a call."""

    user: str
    is_admin: bool = False


class Credentials(Protocol):
    """The part of a request that an authenticator reads: an aiohttp request, or a test's object."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def cookies(self) -> Mapping[str, str]: ...

    @property
    def remote(self) -> str | None:
        """The address of the peer: of the proxy, where there is one."""


def single_header(request: Credentials, name: str) -> str:
    """The header's value, "" without one. Raises Refused where it is sent twice: behind a proxy that appends its own,
    the first one would be the client's."""
    values = request.headers.getall(name, []) if isinstance(request.headers, MultiMapping) else []
    if len(values) > 1:
        raise no_login(f"{name} is sent {len(values)} times: send it once; a proxy must replace it, not append to it")
    return request.headers.get(name, "")


class Authenticator(Protocol):
    """Determines the caller. Raises Refused with status -1."""

    async def authenticate(self, request: Credentials) -> Caller: ...
