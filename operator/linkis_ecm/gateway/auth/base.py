"""Whose call it is, and what says so: an Authenticator for each way to log in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is."""

    user: str
    is_admin: bool = False

    def may_use(self, owner: str) -> bool:
        """The owner and admins; names are compared as they are, as Linkis does for logs."""
        return self.is_admin or self.user == owner


class Credentials(Protocol):
    """What an authenticator may look at: an aiohttp request, or a stand-in."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def cookies(self) -> Mapping[str, str]: ...


class Authenticator(Protocol):
    """Says who is calling. Raises Refused with status -1."""

    async def authenticate(self, request: Credentials) -> Caller: ...
