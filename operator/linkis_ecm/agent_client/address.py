"""Checks where an agent is said to listen, before a token is sent there. Pure."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def agent_host(address: str, port: int) -> str:
    """`host:port` for a URL, of a status's `address`. `port`: the only one that an agent listens on; 0: any.

    Whoever may write a status could name any host, port and path. Raises ValueError for what is not an IP and the port,
    and for the addresses of no pod: loopback where `port` is given, link-local (the cloud's metadata), multicast.
    """
    host, colon, number = address.rpartition(":")
    if not (colon and number.isascii() and number.isdigit() and len(number) <= 5):
        raise ValueError("it is not an IP and a port")
    if port and int(number) != port:
        raise ValueError(f"its port is not {port}")
    found = ip_address(host.removeprefix("[").removesuffix("]"))
    if found.is_link_local or found.is_multicast or found.is_unspecified or (port and found.is_loopback):
        raise ValueError("no pod has such an address")
    return f"[{found}]:{int(number)}" if isinstance(found, IPv6Address) else f"{found}:{int(number)}"
