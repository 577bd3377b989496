"""Collects one task's outputs from the kernel's messages, within bounds. Pure: no sockets, no clocks."""

from __future__ import annotations

from collections import deque
from typing import Any

from linkis_ecm.agent.formats.cells import cell_chars
from linkis_ecm.agent.formats.cursors import Cursor
from linkis_ecm.agent.formats.displays import NAME_CHARS, as_output
from linkis_ecm.agent.formats.escapes import Stripper, plain
from linkis_ecm.agent.formats.rewriting import last_states
from linkis_ecm.agent.formats.tracebacks import shortened

# Code tells how far it is by displaying {"progress": 0.5, "message": "…"} as this type.
PROGRESS_MIME = "application/vnd.linkis.progress+json"
# All outputs of one task together; beyond it the task runs on and its output goes to the log files only.
MAX_BYTES = 16 << 20
MAX_OUTPUTS = 1000
# Of text beyond these bounds, the last so many characters are kept, too: how a flood of it has ended.
LAST_CHARS = 64 << 10
# A line that rewrites itself stands alone where the text before it is longer: who follows is told the whole of it anew.
_TOLD_AGAIN = 16 << 10
# A result behind a flood of text is kept, too: of results, tables, pictures and pages together one for so many bytes of
# that limit, and so many of them. A table of 4 MiB (kernel.tables.display.MAX_CHARS) is among them.
LATE_PART, MAX_LATE = 3, 20
# Changes of earlier displays that a follower can be told one by one; after more it is told everything again.
MAX_UPDATES = 10_000
# Of an error: the value and each line of the traceback.
_ERROR_CHARS, _ERROR_LINES = 64 << 10, 200


class Outputs:
    """One task's outputs in the order in which they came."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_outputs: int = MAX_OUTPUTS) -> None:
        self.progress: tuple[float | None, str] = (None, "")
        self._items: list[dict[str, Any]] = []
        self._pieces: list[str] = []  # of the text output at the end of _items, joined when somebody looks
        self._text_open = False
        self._epoch = 0
        self._updates: list[int] = []
        self._bytes_left = max_bytes
        self._max_bytes = max_bytes
        self._max_outputs = max_outputs
        self._full = False
        self._flooded = False  # it was text that filled them
        self._late_left = self._late_bytes = max_bytes // LATE_PART
        self._late = 0
        self._last_error: int | None = None  # which output is an error that came when they were full
        self._clear_next = False
        self._strippers = {"stdout": Stripper(), "stderr": Stripper()}
        self._displays: dict[str, int] = {}
        self._returned = False  # the open text ends with a carriage return
        self._told = False  # somebody has looked since the last change
        self._last = _LastText()
        self._cut: tuple[int, str] | None = None  # which output says that they are full, and its text

    def stream(self, name: str, text: str) -> None:
        """Text that the code printed. Neighbours of one stream become one output."""
        self._clear_if_due()
        self._print(name, self._strippers[name].feed(text))

    def flush(self) -> None:
        """No more text comes: what was held back as the beginning of an escape sequence is none."""
        for name, stripper in self._strippers.items():
            if held := stripper.flush():
                self._print(name, held)

    def _print(self, name: str, text: str) -> None:
        if self._continues(name):
            if "\r" in text or self._returned:
                text = self._rewrite(text)
        else:
            text = last_states(text)
        kept = self._within_budget(text)
        if kept and not self._continues(name):
            if not self._has_room():
                self._last.add(kept)
                return
            self._begin_text(name)
        if kept:
            self._pieces.append(kept)
            self._returned = kept.endswith("\r")

    def _continues(self, name: str) -> bool:
        """Whether the output at the end is text of this stream that goes on."""
        last = self._items[-1] if self._items else None
        return self._text_open and last is not None and last["type"] == "text" and last["stream"] == name

    def _begin_text(self, name: str) -> None:
        self._end_text()
        self._items.append({"type": "text", "stream": name, "text": ""})
        self._text_open = True

    def _rewrite(self, text: str) -> str:
        """What is to be appended to the open text for `text`, once the line at its end is as a carriage return in
        `text` leaves it."""
        self._join()
        item, index = self._items[-1], len(self._items) - 1
        begin = item["text"].rfind("\n") + 1
        line = item["text"][begin:]
        now = last_states(line + text)
        if now.startswith(line):
            return now[len(line) :]
        item["text"] = item["text"][:begin]
        self._bytes_left += len(line)
        if not self._updates or self._updates[-1] != index or self._told:
            self._told = False
            self._change(index)
        if begin > _TOLD_AGAIN and self._has_room():
            self._begin_text(item["stream"])
        return now

    def message(self, kind: str, content: dict[str, Any]) -> None:
        """One of the kernel's iopub messages other than `stream`."""
        if kind in ("execute_result", "display_data"):
            if self._take_progress(content.get("data", {})):
                return
            self._clear_if_due()
            self._show(content, "result" if kind == "execute_result" else "stdout")
        elif kind == "update_display_data":
            if not self._take_progress(content.get("data", {})):
                self._update(content)
        elif kind == "error":
            self.error(
                str(content.get("ename", "")),
                str(content.get("evalue", "")),
                [str(line) for line in content.get("traceback", [])],
            )
        elif kind == "clear_output":
            self._clear_next = True
            if not content.get("wait"):
                self._clear_if_due()

    def error(self, name: str, value: str, traceback: list[str]) -> None:
        """An error ends a task, so the last one is kept even where the outputs are full; it has a bound of its own."""
        self._clear_if_due()
        self._end_text()
        lines = [plain(line)[:_ERROR_CHARS] for line in shortened(traceback, _ERROR_LINES)]
        item = {
            "type": "error",
            "name": plain(name)[:NAME_CHARS],
            "value": plain(value)[:_ERROR_CHARS],
            "traceback": lines,
        }
        if self._has_room() and self._fits(item):
            self._items.append(item)
        elif self._last_error is None:
            self._last_error = len(self._items)
            self._items.append(item)
        else:
            self._replace(self._last_error, item)

    def has_display(self, content: dict[str, Any]) -> bool:
        """Whether one of the outputs is the display that this message changes, or the message is of none."""
        data = content.get("data", {})
        return PROGRESS_MIME in data or str(content.get("transient", {}).get("display_id")) in self._displays

    def last_error(self) -> dict[str, Any] | None:
        """The error among the outputs that came last."""
        return next((item for item in reversed(self._items) if item["type"] == "error"), None)

    def result(self) -> list[dict[str, Any]]:
        """The outputs, as the interface has them."""
        self._join()
        self._show_last()
        return self._items

    @property
    def size(self) -> int:
        """Bytes that they take, as the bounds count them."""
        beyond = 0 if self._last_error is None else _size(self._items[self._last_error])
        return self._max_bytes - self._bytes_left + self._late_bytes - self._late_left + beyond

    def since(self, seen: Cursor, until: Cursor | None = None) -> tuple[list[dict[str, Any]], Cursor]:
        """What a follower at `seen` has to be told, and where it is then: at `until`, an earlier follower's place, or
        at the end. Raises ValueError where `until` is before `seen` or was never reached.

        Each is {"index", "output"}, an output's text from where the follower is; {"index", "output", "replaces": true}
        for one that changed; {"reset": true} where all that was told is void.
        """
        self._join()
        self._show_last()
        self._told = True
        changes: list[dict[str, Any]] = []
        if until is not None:
            if not until.reaches(seen) or not self._has_reached(until):
                raise ValueError(f"{until} is no place behind {seen}")
            if until.epoch < self._epoch:
                return changes, until  # all of it is void, which whoever goes on from there is told
        if not self._knows(seen):
            changes.append({"reset": True})
            seen = Cursor(epoch=self._epoch, updates=len(self._updates) if until is None else until.updates)
        items, chars = seen.items, seen.chars
        changed = set(self._updates[seen.updates : None if until is None else until.updates])
        # Of the last one that was told only a part may be: it is told from its beginning where that has changed.
        part = {items} if chars and items in changed else set()
        for index in sorted({index for index in changed if index < items} | part):
            changes.append({"index": index, "output": self._output(index, until), "replaces": True})
        for index in range(items, len(self._items) if until is None else until.items + bool(until.chars)):
            item = self._output(index, until)
            if index in part:
                chars = len(item["text"])
            if chars:
                item = item | {"text": item["text"][chars:]}
            if item.get("text") != "" or item["type"] != "text":
                changes.append({"index": index, "output": item})
            growing = self._text_open and index == len(self._items) - 1
            items, chars = (index, chars + len(item["text"])) if growing else (index + 1, 0)
        return changes, until or Cursor(self._epoch, items, chars, len(self._updates))

    def _knows(self, seen: Cursor) -> bool:
        """Whether a follower can have been at `seen`: where it cannot, what it has seen is of another task."""
        if seen.epoch != self._epoch or seen.items > len(self._items) or seen.updates > len(self._updates):
            return False
        # A text of which more was told than it has now is among the changes since.
        if not seen.chars or seen.items in self._updates[seen.updates :]:
            return True
        return seen.items < len(self._items) and seen.chars <= len(self._items[seen.items].get("text", ""))

    def _has_reached(self, place: Cursor) -> bool:
        if place.epoch != self._epoch:
            return place.epoch < self._epoch
        count = len(self._items)
        is_text = place.items < count and self._items[place.items]["type"] == "text"
        return place.items <= count and place.updates <= len(self._updates) and (is_text or not place.chars)

    def _output(self, index: int, until: Cursor | None) -> dict[str, Any]:
        """The output at `index`; only the part of its text that belongs to `until`, if that is within it."""
        item = self._items[index]
        within = until is not None and until.chars and index == until.items
        return item | {"text": item["text"][: until.chars]} if until is not None and within else item

    def _take_progress(self, data: dict[str, Any]) -> bool:
        changes = data.get(PROGRESS_MIME)
        if not isinstance(changes, dict):
            return False
        value = changes.get("progress")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
            self.progress = (float(value), str(changes.get("message") or "")[:200])
        return True

    def _show(self, content: dict[str, Any], stream: str) -> None:
        item = as_output(content.get("data", {}), stream)
        if item is None or not ((self._has_room() and self._fits(item)) or self._fits_late(item)):
            return
        self._end_text()
        identifier = content.get("transient", {}).get("display_id")
        if identifier is not None:
            self._displays[str(identifier)] = len(self._items)
        self._items.append(item)

    def _update(self, content: dict[str, Any]) -> None:
        """A display that changes, such as a progress bar: the last version is the output."""
        position = self._displays.get(str(content.get("transient", {}).get("display_id")))
        item = as_output(content.get("data", {}), "stdout")
        if position is not None and item is not None and self._fits(item):
            self._bytes_left += _size(self._items[position])
            self._replace(position, item)

    def _replace(self, position: int, item: dict[str, Any]) -> None:
        self._items[position] = item
        self._change(position)

    def _change(self, position: int) -> None:
        """Who has been told this output is told it again."""
        self._updates.append(position)
        if len(self._updates) > MAX_UPDATES:
            self._new_epoch()

    def _clear_if_due(self) -> None:
        if self._clear_next:
            self._clear_next = False
            self._items.clear()
            self._pieces.clear()
            self._text_open = False
            self._displays.clear()
            for stripper in self._strippers.values():
                stripper.flush()
            self._new_epoch()
            self._bytes_left = self._max_bytes
            self._full = self._flooded = False
            self._late, self._late_left = 0, self._late_bytes
            self._last_error = None
            self._last = _LastText()
            self._cut = None

    def _within_budget(self, text: str) -> str:
        if self._full:
            self._last.add(text)
            return ""
        if len(text) > self._bytes_left:
            text, beyond = text[: self._bytes_left], text[self._bytes_left :]
            self._bytes_left = 0
            self._stop(text)
            self._last.add(beyond)
            self._flooded = True
            return ""
        self._bytes_left -= len(text)
        return text

    def _fits(self, item: dict[str, Any]) -> bool:
        size = _size(item)
        if self._full:
            return False
        if size > self._bytes_left:
            self._stop("")
            return False
        self._bytes_left -= size
        return True

    def _fits_late(self, item: dict[str, Any]) -> bool:
        """Whether it is kept behind the note that says that the outputs are full: a result is worth more than the text
        that filled them."""
        size = _size(item)
        result = item["type"] != "text" or item["stream"] == "result"
        if not result or not self._flooded or self._late == MAX_LATE or size > self._late_left:
            return False
        self._late += 1
        self._late_left -= size
        return True

    def _has_room(self) -> bool:
        if not self._full and len(self._items) >= self._max_outputs:
            self._stop("")
        return not self._full

    def _stop(self, rest: str) -> None:
        self._full = True
        self._end_text()
        note = f"\n[output cut here: a task returns {self._max_bytes} bytes and {self._max_outputs} outputs at most]\n"
        self._cut = (len(self._items), rest + note)
        self._items.append({"type": "text", "stream": "stdout", "text": rest + note})

    def _show_last(self) -> None:
        """Put the end of what was cut behind the note that says so."""
        if self._cut is None or not self._last.changed:
            return
        index, text = self._cut
        self._items[index] = self._items[index] | {"text": text + self._last.shown()}
        self._change(index)

    def _new_epoch(self) -> None:
        self._epoch += 1
        self._updates.clear()

    def _end_text(self) -> None:
        self._join()
        self._text_open = False

    def _join(self) -> None:
        if self._pieces:
            self._items[-1]["text"] += "".join(self._pieces)
            self._pieces.clear()


class _LastText:
    """The end of a text of any length."""

    def __init__(self) -> None:
        self.changed = False
        self._pieces: deque[str] = deque()
        self._kept = 0
        self._all = 0

    def add(self, text: str) -> None:
        """More of it."""
        self.changed = self.changed or bool(text)
        self._all += len(text)
        text = text[-LAST_CHARS:]
        self._pieces.append(text)
        self._kept += len(text)
        while self._kept - len(self._pieces[0]) >= LAST_CHARS:
            self._kept -= len(self._pieces.popleft())

    def shown(self) -> str:
        """The last LAST_CHARS characters, with what is left out before them."""
        self.changed = False
        whole = "".join(self._pieces)
        text = last_states(whole[-LAST_CHARS:])
        if self._all <= LAST_CHARS:
            return text
        # The first line is none.
        text = text[text.find("\n") + 1 :]
        return f"[{self._all - len(whole)} characters left out here; the last ones:]\n{text}"


# Brackets and comma of a row, however empty.
_LIST = 3


def _size(item: dict[str, Any]) -> int:
    if item["type"] == "table":
        cells = sum(cell_chars(value) for row in item["rows"] for value in row)
        return cells + _LIST * len(item["rows"]) + sum(map(cell_chars, item["columns"]))
    if item["type"] == "error":
        return sum(map(cell_chars, (item["name"], item["value"], *item["traceback"])))
    return len(item.get("text") or item.get("data") or "")
