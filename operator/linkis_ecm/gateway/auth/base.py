"""The caller of a method, and the interface of authenticators, one for each way to log in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from multidict import MultiMapping

from linkis_ecm.gateway.http.errors import no_login
from linkis_ecm.model.engineconn import GROUP_MAX

# A company's directory gives a user hundreds of groups at most; a token's size bounds them as well.
GROUPS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Reach:
    """The namespaces of engines that a caller may use, and those of them where the caller is an admin.

    "" is every namespace, as Kubernetes has it.
    """

    namespaces: frozenset[str]
    admin_namespaces: frozenset[str] = frozenset()

    def includes(self, namespace: str) -> bool:
        """Whether the caller may use engines of that namespace."""
        return "" in self.namespaces or namespace in self.namespaces

    def is_admin_in(self, namespace: str) -> bool:
        """Whether the caller may use everybody's engines of that namespace."""
        return "" in self.admin_namespaces or namespace in self.admin_namespaces


@dataclass(frozen=True, slots=True)
class Caller:
    """The user who makes a call. `is_admin`: of everything that this gateway serves."""

    user: str
    is_admin: bool = False
    # None: every namespace. Linkis's tokens and an issuer's say nothing of namespaces. Not a part of who it is.
    reach: Reach | None = field(default=None, compare=False)
    # May call what changes nothing, and nothing else.
    read_only: bool = False
    # The user's groups as the login has them (`people_groups`); None: it says nothing of groups, as Linkis's tokens.
    groups: frozenset[str] | None = field(default=None, compare=False)
    # When the login ends by itself, in seconds since 1970.
    expires: float = field(default=math.inf, compare=False)

    def has_rights_of(self, other: Caller) -> bool:
        """Whether it may do exactly what the other may."""
        return self == other and (self.reach, self.groups) == (other.reach, other.groups)

    @property
    def sees_others(self) -> bool:
        """Whether the caller may use others' engines too, in one namespace at least."""
        return self.is_admin or (self.reach is not None and bool(self.reach.admin_namespaces))

    def may_enter(self, namespace: str) -> bool:
        """Whether the caller may have engines in that namespace."""
        return self.reach is None or self.reach.includes(namespace)

    def is_admin_in(self, namespace: str) -> bool:
        """Whether the caller may use everybody's engines of that namespace."""
        return self.is_admin or (self.reach is not None and self.reach.is_admin_in(namespace))


def people_groups(names: object) -> frozenset[str] | None:
    """The groups of people in a list that an identity provider has sent; None where it is no list.

    Kubernetes's own groups (system:...) are left out, such as the one of all who have logged in; so is what is no name,
    and what comes after GROUPS_MAX.
    """
    if not isinstance(names, list):
        return None
    texts = (name for name in names[:GROUPS_MAX] if isinstance(name, str) and 0 < len(name) <= GROUP_MAX)
    return frozenset(name for name in texts if not name.startswith("system:"))


class Credentials(Protocol):
    """The part of a request that an authenticator reads: an aiohttp request, or a test's object."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def cookies(self) -> Mapping[str, str]: ...

    @property
    def remote(self) -> str | None:
        """The address of the peer: of the proxy, where there is one (http/peers.py knows the client's)."""


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
