"""From which client a call comes: the connection's address, or the one that a trusted proxy names in a header.

Anybody can write such a header, so it is believed only from an address of the configured networks, and from the right:
each proxy appends the address that it has seen itself. Must not know what the address is used for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from multidict import MultiMapping

from linkis_ecm.process.ports.addresses import Address, address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

X_FORWARDED_FOR, FORWARDED = "X-FORWARDED-FOR", "FORWARDED"
# Proxies behind each other that are looked through. A client can put as many entries before them as a header takes.
HOPS = 16
# Characters of the header that are read, its last ones: 16 entries of proxies have 2 KiB. What is cut off is no entry.
MAX_READ = 4 << 10
# In place of what is cut off: neither an address nor a parameter of Forwarded begins with it.
_CUT = "?"
# RFC 7239: `for=192.0.2.60;proto=http`, `for="[2001:db8::1]:4711"`. One parameter, or none, up to its semicolon. Blanks
# beside `=` are none of its, but nobody's harm. Each repetition is possessive: a match that fails fails at once. The
# group with names is not: Python 3.11.2 keeps what a possessive group has captured and given up.
_PARAMETER = re.compile(
    r"[ \t]*+(?:(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]++)[ \t]*+=[ \t]*+"
    r'(?:"(?P<quoted>(?:[^"\\]++|\\.)*+)"|(?P<token>[^\s;"\\]*+))[ \t]*+)?(?:;|\Z)',
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


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

    def _entries(self, headers: Mapping[str, str]) -> Iterator[str]:
        """The addresses that proxies have appended, the nearest one's first. One that cannot be read is no address.

        One after the other: what stands before the entry that decides is the client's, and is not read.
        """
        lines = (
            headers.getall(self._header, []) if isinstance(headers, MultiMapping) else [headers.get(self._header, "")]
        )
        # Several lines of a header are one list (RFC 9110, 5.3).
        text = ",".join(lines)
        if len(text) > MAX_READ:
            text = _CUT + text[-MAX_READ:]
        found: Iterable[str]
        if self._header == FORWARDED:
            found = map(_forwarded_for, _elements(text))
        else:
            found = (entry.strip() for entry in reversed(text.split(",")))
        return islice(found, HOPS)

    def _is_proxy(self, found: Address) -> bool:
        return any(found in network for network in self._proxies if network.version == found.version)


def _host(entry: str) -> str:
    """An entry without its port: 192.0.2.1:4711, [2001:db8::1]:4711, 2001:db8::1."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def _elements(text: str) -> Iterator[str]:
    """The elements of a list with quoted strings, the last one first.

    From the right, as the last ones are a proxy's, which closes each quote that it opens: a quote that the client has
    left open before them hides nothing. Linear: each character is looked at twice at most.
    """
    end, quoted = len(text), False
    for at in range(len(text) - 1, -1, -1):
        if text[at] == '"':
            quoted = not quoted or _is_escaped(text, at)
        elif text[at] == "," and not quoted:
            yield text[at + 1 : end]
            end = at
    yield text[:end]


def _is_escaped(text: str, at: int) -> bool:
    """Whether a quote within a quoted string has an odd number of backslashes before it."""
    before = at
    while before and text[before - 1] == "\\":
        before -= 1
    return (at - before) % 2 == 1


def _forwarded_for(element: str) -> str:
    """The value of `for`; "" where the element is not well formed, or names it twice or not at all."""
    found: list[str] = []
    at = 0
    while at < len(element):
        parameter = _PARAMETER.match(element, at)
        if parameter is None:
            return ""
        at = parameter.end()
        if (parameter["name"] or "").lower() == "for":
            quoted = parameter["quoted"]
            found.append(parameter["token"] if quoted is None else _ESCAPED.sub(r"\1", quoted))
    return found[0] if len(found) == 1 else ""
