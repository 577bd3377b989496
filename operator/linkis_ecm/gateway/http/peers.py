"""From which client a call comes: the connection's address, or the one that a trusted proxy names in a header.

Anybody can write such a header, so it is believed only from an address of the configured networks, and from the right:
each proxy appends the address that it has seen itself. Must not know what the address is used for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

from multidict import MultiMapping

from linkis_ecm.process.addresses import Address, address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

X_FORWARDED_FOR, FORWARDED = "X-FORWARDED-FOR", "FORWARDED"
# Proxies behind each other that are looked through. A client can put as many entries before them as a header takes.
HOPS = 16
# RFC 7239: `for=192.0.2.60`, `for="[2001:db8::1]:4711"`.
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^;"\s]*))\s*(?=;|$)', re.IGNORECASE)


class Peers:
    """`proxies`: the networks of trusted proxies. `header`: the one header that they set, X_FORWARDED_FOR or FORWARDED;
    the other one would be passed on as the client wrote it."""

    def __init__(self, proxies: Sequence[Network] = (), header: str = X_FORWARDED_FOR) -> None:
        self._proxies = tuple(proxies)
        self._header = header

    def client(self, remote: str | None, headers: Mapping[str, str]) -> str:
        """The address of the client as text; of the nearest proxy where it does not say whom it serves. The text of
        `remote` where that is no address."""
        last = address(remote or "")
        if last is None:
            return remote or ""
        if not self._is_proxy(last):
            return str(last)
        for entry in self._entries(headers):
            found = address(_host(entry))
            if found is None:  # "unknown", an obfuscated name, or not what a proxy writes
                break
            last = found
            if not self._is_proxy(found):
                break
        return str(last)

    def _entries(self, headers: Mapping[str, str]) -> list[str]:
        """The addresses that proxies have appended, the nearest one's first. An entry that cannot be read is ""."""
        lines = (
            headers.getall(self._header, []) if isinstance(headers, MultiMapping) else [headers.get(self._header, "")]
        )
        # Several lines of a header are one list (RFC 9110, 5.3).
        entries = [entry.strip() for entry in ",".join(lines).rsplit(",", HOPS)[-HOPS:]]
        if self._header == FORWARDED:
            entries = [_forwarded_for(entry) for entry in entries]
        return entries[::-1]

    def _is_proxy(self, found: Address) -> bool:
        return any(found in network for network in self._proxies if network.version == found.version)


def _host(entry: str) -> str:
    """An entry without its port: 192.0.2.1:4711, [2001:db8::1]:4711, 2001:db8::1."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def _forwarded_for(entry: str) -> str:
    found = _FOR.search(entry)
    return (found[1] or found[2] or "") if found else ""
