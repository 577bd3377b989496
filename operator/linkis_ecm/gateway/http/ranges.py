"""Byte ranges and entity tags of logs (RFC 9110), for files that only grow. Pure.

A tag names the file and how long it was. A resumed download is given its rest also where the log has grown since: the
bytes before are the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from linkis_ecm.gateway.http.errors import Refused

_PACKED = "-gzip"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Range:
    """From `first` to `last`, both included; of the last `last` bytes where `first` is None."""

    first: int | None
    last: int | None

    def within(self, total: int) -> tuple[int, int]:
        """(begin, end) of a file of `total` bytes. Raises Refused where nothing of it is in the range."""
        if self.first is None:
            begin, end = max(0, total - (self.last or 0)), total
        else:
            begin, end = self.first, total if self.last is None else min(self.last + 1, total)
        if begin >= end:
            raise Refused(
                f"Range: the log has {total} bytes, and none of them is asked for: ask for less",
                http=416,
                headers={"Content-Range": f"bytes */{total}"},
            )
        return begin, end


def parse(header: str | None) -> Range | None:
    """The one range that is asked for; None for no header, for several ranges, and for what is none (RFC 9110, 14.2:
    such a header is ignored)."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not any(found.groups()):
        return None
    first, last = (int(text) if text else None for text in found.groups())
    if first is not None and last is not None and last < first:
        return None
    return Range(first, last)


def etag(identity: str, total: int, *, packed: bool = False) -> str:
    """The log as it is now; its packed form is another (RFC 9110, 8.8.3.3)."""
    return f'"{identity}-{total}{_PACKED if packed else ""}"'


def matches(header: str | None, identity: str, total: int) -> bool:
    """If-None-Match: the client has exactly this, packed or not."""
    if not header:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return "*" in tags or not tags.isdisjoint((etag(identity, total), etag(identity, total, packed=True)))


def still_valid(header: str | None, identity: str, total: int) -> bool:
    """If-Range: what the client has is the beginning of this log. A packed one's bytes are others, a weak tag or a date
    does not say which."""
    if not header:
        return True
    name, _, size = header.strip().removeprefix('"').removesuffix('"').rpartition("-")
    return name == identity and size.isascii() and size.isdigit() and len(size) < 19 and int(size) <= total
