"""How a client's address is read and counted. Pure. Must not know what is limited."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# A client has a /64 of IPv6 at least: all addresses of it are one client.
IPV6_PREFIX = 64


def address(text: str) -> Address | None:
    """The address; None for what is none. IPv4 that a socket of both families shows as ::ffff:192.0.2.1 is IPv4."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def counted_as(text: str) -> str:
    """Under which name an address is counted by limits: IPv6 by its network, of which one client has all addresses."""
    found = address(text)
    if not isinstance(found, ipaddress.IPv6Address) or found.is_loopback or found.is_link_local:
        return text
    return str(ipaddress.IPv6Network((found, IPV6_PREFIX), strict=False))
