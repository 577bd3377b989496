"""Pages of lines out of a log of any length: by number, from its end, filtered by words, over an index of line ends.

The index holds how many lines end in each block of the file, so that line 5,000,000 is found by reading one block.
A log may have lost its beginning: numbers of lines and bytes count from its true one nevertheless, and a sentence
stands in place of what is gone. Reads through a function, so that files here and in an archive are the same. Must not
open anything.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_LINES = 5000  # as Linkis: "Cannot fetch more than 5000 lines of logs"
MAX_LINE_BYTES = 64 << 10
MAX_PAGE_BYTES = 8 << 20
# Of a log are looked through for one page of a filter; the page ends there and says where to go on. 0.1 s or so.
MAX_SCAN_BYTES = 64 << 20
BLOCK = 256 << 10
# A line that begins so is an entry of the log; others that follow belong to it, as a stack trace does, and are left out
# with it (Linkis's EngineConnLogOperator, 500 at most). Linkis does so after any line left out: where code prints lines
# of its own, that loses lines which hold the very word.
_ENTRY = re.compile(rb"\d{4}-\d{2}-\d{2}\s+\d{2}:\d{2}:\d{2}\.\d{3}")
MAX_FOLLOWING = 500

ReadAt = Callable[[int, int], bytes]

# In place of the dropped beginning of a log; a person reads it, and so does whoever numbers an archived log.
_DROPPED = b"[the first %d bytes, %d lines, of this log were dropped: it keeps its last %d MiB]"
_DROPPED_NOTE = re.compile(
    rb"\[the first (\d{1,16}) bytes, (\d{1,16}) lines, of this log were dropped: [^\n]{0,60}\][\n ]"
)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a log begins. `at` bytes were dropped, whole blocks of them, and `ends` lines ended in these; what is shown
    begins at `begin`, and `head` is said in place of the bytes before that."""

    at: int = 0
    ends: int = 0
    begin: int = 0
    head: bytes = b""

    @property
    def first(self) -> int:
        """Where the sentence begins."""
        return self.begin - len(self.head)

    @property
    def line(self) -> int:
        """The number of the first line that is shown: the sentence has that of the last line dropped."""
        return max(1, self.ends + (self.begin > self.at))


WHOLE = Start()


def dropped(*, at: int, ends: int, begin: int, keep: int) -> Start:
    """The start of a log that keeps its last `keep` bytes or so. Where not even one line has ended, its first line goes
    on behind the sentence."""
    lines = ends + (begin > at)
    said = _DROPPED % (begin, lines, keep >> 20)
    return Start(at, ends, begin, said + (b"\n" if lines else b" "))


def said(beginning: bytes) -> tuple[int, int]:
    """(the true place of a log's first byte, the true number of its first line), of a log that was kept elsewhere with
    the sentence before it; (0, 1) where there is none."""
    found = _DROPPED_NOTE.match(beginning)
    if found is None:
        return 0, 1
    return max(0, int(found[1]) - found.end()), max(1, int(found[2]))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which lines are wanted: those with one of `only` (if any is given) and none of `ignore`."""

    only: tuple[bytes, ...] = ()
    ignore: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.only or self.ignore)

    def matches(self, line: bytes) -> bool:
        if self.only and not any(word in line for word in self.only):
            return False
        return not any(word in line for word in self.ignore)

    @classmethod
    def parse(cls, only: str, ignore: str) -> Filter:
        """Of Linkis's lists: words with commas between them."""
        return cls(
            *(tuple(word.encode() for part in text.split(",") if (word := part.strip())) for text in (only, ignore))
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Lines, and the number of the last that was looked at; from the end, it counts from there."""

    logs: list[str]
    end_line: int

    def as_json(self) -> dict[str, object]:
        return {"logs": self.logs, "endLine": self.end_line, "rows": len(self.logs)}


class LineIndex:
    """How many lines end before each block of one file, as far as it was read. Grows with the file."""

    def __init__(self) -> None:
        self.start = WHOLE
        # The block that the counts begin with: those before it were dropped.
        self._base = 0
        self._ends = array("Q", [0])

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return len(self._ends) * self._ends.itemsize

    def extend(self, read_at: ReadAt, size: int, start: Start = WHOLE) -> None:
        """Count what is new of a file of `size` bytes that begins at `start`; whole blocks only. A file that became
        shorter is read anew."""
        first, known = start.at // BLOCK, self._base + len(self._ends) - 1
        if size < known * BLOCK or not self._base <= first <= known:
            self._ends, known = array("Q", [start.ends]), first
        else:
            del self._ends[: first - self._base]
        self._base, self.start = first, start
        for number in range(known, size // BLOCK):
            block = read_at(number * BLOCK, BLOCK)
            if len(block) < BLOCK:
                return
            self._ends.append(self._ends[-1] + block.count(b"\n"))

    def count(self, read_at: ReadAt, size: int) -> int:
        """How many lines the file has had; the last one counts though it has no end."""
        blocks = min(self._base + len(self._ends) - 1, size // BLOCK)
        ends, offset, last = self._ends[blocks - self._base], blocks * BLOCK, b"\n"
        while offset < size and (data := read_at(offset, min(BLOCK, size - offset))):
            ends += data.count(b"\n")
            offset += len(data)
            last = data[-1:]
        if offset == blocks * BLOCK and offset:
            last = read_at(offset - 1, 1)
        return ends + (last != b"\n")

    def offset_of(self, read_at: ReadAt, size: int, line: int) -> int | None:
        """Where the 1-based `line`, or the first one that there is, begins; None where there are fewer lines."""
        start = self.start
        if line <= start.line:
            return start.first
        if line == start.line + 1 and start.head.endswith(b"\n"):
            return start.begin
        skip = line - 1
        # The block in which the line before ends.
        block = bisect_right(self._ends, skip - 1) - 1
        left, offset = skip - self._ends[block], (self._base + block) * BLOCK
        while offset < size and (data := read_at(offset, min(BLOCK, size - offset))):
            found = data.count(b"\n")
            if found >= left:
                position = -1
                for _ in range(left):
                    position = data.index(b"\n", position + 1)
                return offset + position + 1
            left -= found
            offset += len(data)
        return None


def page(read_at: ReadAt, size: int, index: LineIndex, *, from_line: int, count: int, wanted: Filter) -> Page:
    """`count` lines from the 1-based `from_line` (0 is 1, as in Linkis), or from the first that there is. Ends early at
    the bounds above."""
    first = max(from_line, index.start.line)
    offset = index.offset_of(read_at, size, first)
    if offset is None or offset >= size:
        return Page([], min(first - 1, index.count(read_at, size)))
    logs: list[str] = []
    number, taken, following = first - 1, 0, 0
    for start, line, length in _lines(read_at, offset, size):
        if taken >= MAX_PAGE_BYTES or len(logs) >= count or (wanted and start - offset > MAX_SCAN_BYTES):
            break
        number += 1
        if wanted:
            keep, following = _apply_filter(line, following, wanted)
            if not keep:
                continue
        logs.append(_text(line, length))
        taken += len(line) + 1
    return Page(logs, number)


def tail(read_at: ReadAt, size: int, index: LineIndex, *, from_line: int, count: int, wanted: Filter) -> Page:
    """The same counted from the end: page 1 holds the newest `count` lines, in the order in which they were written."""
    total, oldest = index.count(read_at, size), index.start.line
    # It goes through the log from its end, in runs of lines; each run is checked from its first line on.
    logs: list[str] = []
    seen, looked, taken, all_seen = max(from_line, 1) - 1, 0, 0, total - oldest + 1
    full = False
    while seen < all_seen and not full and looked < MAX_SCAN_BYTES:
        run = min(MAX_LINES if wanted else count - len(logs), all_seen - seen)
        at = index.offset_of(read_at, size, total - seen - run + 1) or 0
        # The last ones of the run, as many and as long as the page has room for.
        kept: deque[tuple[int, str, int]] = deque()
        following, left_out = 0, 0
        for number, (_, line, length) in zip(range(run), _lines(read_at, at, size), strict=False):
            looked += length + 1
            keep, following = _apply_filter(line, following, wanted)
            if keep:
                kept.append((number, _text(line, length), len(line) + 1))
                taken += len(line) + 1
            while len(kept) > count - len(logs) or (taken > MAX_PAGE_BYTES and len(kept) + len(logs) > 1):
                number_out, _, size_out = kept.popleft()
                taken, left_out, full = taken - size_out, number_out + 1, True
        # Where the page is full, what lies before its first line has not been looked at.
        seen += run - (kept[0][0] if kept else left_out) if full else run
        logs[:0] = [text for _, text, _ in kept]
        full = full or len(logs) >= count
    return Page(logs, seen if seen < all_seen else max(total, seen))


def last_rows(read_at: ReadAt, size: int, index: LineIndex, *, rows: int) -> Page:
    """The last `rows` lines."""
    return tail(read_at, size, index, from_line=1, count=rows, wanted=Filter())


def _apply_filter(line: bytes, following: int, wanted: Filter) -> tuple[bool, int]:
    """Whether the line stays, and how many that are no entries are left out after it.

    A line that has a wanted word stays wherever it stands: what code prints and what a traceback says has no time.
    """
    is_entry = _ENTRY.match(line) is not None
    if following and not is_entry:
        return bool(wanted.only) and wanted.matches(line), following - 1
    keep = wanted.matches(line)
    return keep, MAX_FOLLOWING if is_entry and not keep else 0


def _lines(read_at: ReadAt, offset: int, size: int) -> Iterator[tuple[int, bytes, int]]:
    """(where it begins, the line without its end, its whole length); a long line is cut to MAX_LINE_BYTES."""
    begin = offset
    line = b""
    length = 0
    while offset < size:
        block = read_at(offset, min(BLOCK, size - offset))
        if not block:
            break
        offset += len(block)
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            piece = block[start:end]
            yield begin, _grown(line, piece), length + len(piece)
            begin += length + len(piece) + 1
            line, length, start = b"", 0, end + 1
        rest = block[start:]
        line = _grown(line, rest)
        length += len(rest)
    if length:
        yield begin, line, length


def _grown(line: bytes, piece: bytes) -> bytes:
    """A line and what follows of it, MAX_LINE_BYTES at most; of one that rewrites itself its last state."""
    if line.endswith(b"\r") and piece.strip(b"\r"):
        line = b""
    if b"\r" in piece:
        body = piece.rstrip(b"\r")
        if (at := body.rfind(b"\r")) >= 0:
            line, piece = b"", piece[at + 1 :]
    return (line + piece[: MAX_LINE_BYTES - len(line)]) if line else piece[:MAX_LINE_BYTES]


def _text(line: bytes, length: int) -> str:
    text = line.decode(errors="replace").rstrip("\r")
    return (
        text
        if len(line) < MAX_LINE_BYTES or length <= len(line)
        else f"{text}… [{length} bytes, cut at {MAX_LINE_BYTES}]"
    )
