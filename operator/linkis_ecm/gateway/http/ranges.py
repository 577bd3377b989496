"""Byte ranges and entity tags of logs (RFC 9110), for files that only grow. Pure.

A tag names the file and its length then. A resumed download gets the rest also where the log has grown since: the bytes
before are the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from linkis_ecm.gateway.http.errors import Refused

_GZIP = "-gzip"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes `first` to `last`, both included; the last `last` bytes where `first` is None."""

    first: int | None
    last: int | None

    def within(self, total: int) -> tuple[int, int]:
        """(begin, end) in a file of `total` bytes, end not included. Raises Refused where the range has no byte of
        it."""
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
    """The single range of a Range header; None for no header, several ranges, and a malformed header (RFC 9110, 14.2:
    it is ignored)."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not any(found.groups()):
        return None
    first, last = (int(text) if text else None for text in found.groups())
    if first is not None and last is not None and last < first:
        return None
    return Range(first, last)


def etag(identity: str, total: int, *, gzip: bool = False) -> str:
    """The entity tag of the log as it is now; the compressed form has its own (RFC 9110, 8.8.3.3)."""
    return f'"{identity}-{total}{_GZIP if gzip else ""}"'


def matches(header: str | None, tag: str) -> bool:
    """If-None-Match: whether the client has what the answer with this tag would send. A compressed form is not the log
    itself: a cache that has one of them must not take the other's tag for it (RFC 9110, 15.4.5)."""
    if not header:
        return False
    tags = {part.strip().removeprefix("W/") for part in header.split(",")}
    return "*" in tags or tag in tags


def still_valid(header: str | None, identity: str, total: int) -> bool:
    """If-Range: whether the client's bytes are the beginning of this log. Not for a compressed form, whose bytes
    differ, nor for a weak tag or a date, which do not identify the bytes."""
    if not header:
        return True
    name, _, size = header.strip().removeprefix('"').removesuffix('"').rpartition("-")
    return name == identity and size.isascii() and size.isdigit() and len(size) < 19 and int(size) <= total
