"""The caller of a method, and the interface of authenticators, one for each way to log in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Caller:
    """The user who makes a call."""

    user: str
    is_admin: bool = False

    def may_use(self, owner: str) -> bool:
        """Whether the caller may use the owner's engines: the owner and admins. Names are compared exactly, as Linkis
        does for logs."""
        return self.is_admin or self.user == owner


class Credentials(Protocol):
    """The part of a request that an authenticator reads: an aiohttp request, or a test's object."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def cookies(self) -> Mapping[str, str]: ...


class Authenticator(Protocol):
    """Determines the caller. Raises Refused with status -1."""

    async def authenticate(self, request: Credentials) -> Caller: ...
