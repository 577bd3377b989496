"""Collects one task's outputs from the kernel's messages, within bounds. Pure: no sockets, no clocks."""

from __future__ import annotations

import base64
import re
from typing import Any

TABLE_MIME = "application/vnd.linkis.table+json"
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
# All outputs of one task together; beyond it the task runs on and its output goes to the log files only.
MAX_BYTES = 16 << 20
MAX_OUTPUTS = 1000
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def plain(text: str) -> str:
    """`text` without ANSI escape sequences."""
    return _ESCAPES.sub("", text) if "\x1b" in text else text


class Outputs:
    """One task's outputs in the order in which they came."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_outputs: int = MAX_OUTPUTS) -> None:
        self._items: list[dict[str, Any]] = []
        self._pieces: list[str] = []  # of the text output at the end of _items, joined when it ends
        self._left = max_bytes
        self._max_bytes = max_bytes
        self._max_outputs = max_outputs
        self._full = False
        self._clear_next = False
        self._displays: dict[str, int] = {}

    def stream(self, name: str, text: str) -> None:
        """Text that the code printed. Neighbours of one stream become one output."""
        self._clear_if_due()
        text = self._take(text)
        if not text:
            return
        last = self._items[-1] if self._items else None
        if last is None or last["type"] != "text" or last["stream"] != name or not self._pieces:
            if not self._room():
                return
            self._end_text()
            self._items.append({"type": "text", "stream": name, "text": ""})
        self._pieces.append(text)

    def message(self, kind: str, content: dict[str, Any]) -> None:
        """One of the kernel's iopub messages other than `stream`."""
        if kind in ("execute_result", "display_data"):
            self._clear_if_due()
            self._show(content, "result" if kind == "execute_result" else "stdout")
        elif kind == "update_display_data":
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
        """An error ends a task, so it is kept even where the outputs are full; it has a bound of its own."""
        self._end_text()
        lines = [plain(line)[: 64 << 10] for line in traceback][-200:]
        self._items.append(
            {"type": "error", "name": name, "value": plain(value)[: 64 << 10], "traceback": lines},
        )

    def result(self) -> list[dict[str, Any]]:
        """The outputs, as the interface has them."""
        self._end_text()
        return self._items

    def _show(self, content: dict[str, Any], stream: str) -> None:
        item = _display(content.get("data", {}), stream)
        if item is None or not self._room() or not self._fits(item):
            return
        self._end_text()
        identifier = content.get("transient", {}).get("display_id")
        if identifier is not None:
            self._displays[str(identifier)] = len(self._items)
        self._items.append(item)

    def _update(self, content: dict[str, Any]) -> None:
        """A display that changes, such as a progress bar: the last version is the output."""
        position = self._displays.get(str(content.get("transient", {}).get("display_id")))
        item = _display(content.get("data", {}), "stdout")
        if position is not None and item is not None and self._fits(item):
            self._left += _size(self._items[position])
            self._items[position] = item

    def _clear_if_due(self) -> None:
        if self._clear_next:
            self._clear_next = False
            self._items.clear()
            self._pieces.clear()
            self._displays.clear()
            self._left = self._max_bytes
            self._full = False

    def _take(self, text: str) -> str:
        if self._full:
            return ""
        if len(text) > self._left:
            text = text[: self._left]
            self._left = 0
            self._stop(text)
            return ""
        self._left -= len(text)
        return text

    def _fits(self, item: dict[str, Any]) -> bool:
        size = _size(item)
        if self._full:
            return False
        if size > self._left:
            self._stop("")
            return False
        self._left -= size
        return True

    def _room(self) -> bool:
        if not self._full and len(self._items) >= self._max_outputs:
            self._stop("")
        return not self._full

    def _stop(self, rest: str) -> None:
        self._full = True
        self._end_text()
        note = f"\n[output cut here: a task returns {self._max_bytes} bytes and {self._max_outputs} outputs at most]\n"
        self._items.append({"type": "text", "stream": "stdout", "text": rest + note})

    def _end_text(self) -> None:
        if self._pieces:
            self._items[-1]["text"] += "".join(self._pieces)
            self._pieces.clear()


def _display(data: dict[str, Any], stream: str) -> dict[str, Any] | None:
    """The richest form of what was displayed: table, picture, html, text."""
    if isinstance(table := data.get(TABLE_MIME), dict):
        return {"type": "table", **table}
    for mime in PICTURES:
        if isinstance(picture := data.get(mime), str):
            return {"type": "picture", "mime": mime, "data": _picture(mime, picture)}
    if isinstance(html := data.get("text/html"), str):
        return {"type": "html", "text": html}
    if isinstance(text := data.get("text/plain"), str):
        return {"type": "text", "stream": stream, "text": plain(text)}
    return None


def _picture(mime: str, data: str) -> str:
    """Base64 without line ends. Jupyter sends SVG as text, the interface has base64 for every picture."""
    if mime == "image/svg+xml":
        return base64.b64encode(data.encode()).decode()
    return data.replace("\n", "")


def _size(item: dict[str, Any]) -> int:
    if item["type"] == "table":
        return sum(8 if not isinstance(value, str) else len(value) + 3 for row in item["rows"] for value in row)
    return len(item.get("text") or item.get("data") or "")
