"""Whether a body comes as it is. Nothing that comes from outside is unpacked: a few bytes become any number."""

from __future__ import annotations

from multidict import MultiMapping

# "utf-8" packs nothing: Linkis's own client gives the charset as the encoding of what it sends (its DWSHttpClient).
_PLAIN = frozenset({"identity", "utf-8"})


def is_packed(headers: MultiMapping[str]) -> bool:
    """Whether a Content-Encoding names anything that would have to be unpacked; it may be sent several times."""
    return any(name.strip().lower() not in _PLAIN for name in headers.getall("Content-Encoding", ()))
