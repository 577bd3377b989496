"""In which form of the interface a task's outputs have what the kernel displays: table, picture, html or text. Pure.

User code may display anything as any type. Must not bound or keep outputs: `agent.outputs` does.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any, TypeGuard

from linkis_ecm.agent.formats.cells import MIME as TABLE_MIME
from linkis_ecm.agent.formats.cells import whole_cell
from linkis_ecm.agent.formats.escapes import plain
from linkis_ecm.agent.formats.result_files import is_id

PICTURES = ("image/png", "image/jpeg", "image/svg+xml", "image/gif", "image/webp")
# Shown as text, with what an object is in its own words before the text of its class.
_TEXTS = ("text/markdown", "text/latex")
# What Python and libraries say of an object beside its picture: its class, or the call that makes it.
_BARE = r"(?s)<[\w.]+( [^<>\n]{0,200})?>|[A-Za-z_][\w.]*\(.*\)"
# Types that a note names.
_NAMED_TYPES = 5
# What a table may say of itself beside its columns and rows (tables.py, spill.py); whatever else user code adds is left
# out.
_TABLE_FIELDS = ("totalRows", "truncated", "resultBytes", "resultRows")
# Of the name of a column or an error.
NAME_CHARS = 1000


def as_output(data: dict[str, Any], stream: str) -> dict[str, Any] | None:
    """The richest form of what was displayed: table, picture, html, text. A note where there is none of these."""
    if _is_table(table := data.get(TABLE_MIME)):
        return {"type": "table", **_columns_and_rows(table), **_table_fields(table)}
    for mime in PICTURES:
        if (picture := _text_of(data.get(mime))) is not None:
            return {"type": "picture", "mime": mime, "data": _image_base64(mime, picture)}
    if (html := _text_of(data.get("text/html"))) is not None:
        return {"type": "html", "text": html}
    text = _as_text(data)
    return None if text is None else {"type": "text", "stream": stream, "text": plain(text)}


def _as_text(data: dict[str, Any]) -> str | None:
    """What was displayed in words; None where there is nothing at all."""
    for mime in _TEXTS:
        if (text := _text_of(data.get(mime))) is not None:
            return text
    if "application/json" in data:
        return json.dumps(data["application/json"], ensure_ascii=False)
    text = _text_of(data.get("text/plain"))
    others = [mime for mime in data if mime != "text/plain"]
    if text is None:
        text = next((found for mime in others if mime.startswith("text/") and (found := _text_of(data[mime]))), None)
    if text is not None and not (others and re.fullmatch(_BARE, text)):
        return text
    if not data or (text is not None and not others):
        return text
    kinds = ", ".join(mime[:100] for mime in (others or list(data))[:_NAMED_TYPES])
    note = f"[a display of type {kinds} is not shown]"
    return f"{text}\n{note}" if text else note


def _text_of(value: Any) -> str | None:
    """A text, which may come as a list of its lines, as in a notebook's file; None for anything else."""
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        return "".join(value)
    return value if isinstance(value, str) else None


def _is_table(table: Any) -> TypeGuard[dict[str, Any]]:
    """User code may display anything as a table."""
    if not isinstance(table, dict):
        return False
    columns, rows = table.get("columns"), table.get("rows")
    return (
        isinstance(columns, list)
        and isinstance(rows, list)
        and all(isinstance(column, dict) for column in columns)
        and all(isinstance(row, list) for row in rows)
    )


def _columns_and_rows(table: dict[str, Any]) -> dict[str, Any]:
    """As our own formatter makes them, for user code may display anything as a table: every reader has them then."""
    columns = [
        {name: str(column[name])[:NAME_CHARS] for name in ("name", "type") if name in column}
        for column in table["columns"]
    ]
    rows = [
        [value if value is None or type(value) is str else _json_cell(value) for value in row] for row in table["rows"]
    ]
    return {"columns": columns, "rows": rows}


def _json_cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else whole_cell(value)


def _table_fields(table: dict[str, Any]) -> dict[str, Any]:
    facts = {name: table[name] for name in _TABLE_FIELDS if _is_fact(table.get(name, ""))}
    return facts | ({"resultId": table["resultId"]} if is_id(table.get("resultId")) else {})


def _is_fact(value: Any) -> bool:
    """Whether it is a count that every reader of JSON keeps exactly, or nothing, which is what nobody has counted."""
    return value is None or (isinstance(value, int) and 0 <= value <= 1 << 53)


def _image_base64(mime: str, data: str) -> str:
    """Base64 without line ends. Jupyter sends SVG as text, the interface has base64 for every picture."""
    if mime == "image/svg+xml":
        return base64.b64encode(data.encode()).decode()
    return data.replace("\n", "")
