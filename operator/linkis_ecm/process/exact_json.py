"""Reads JSON without changing a number. For what engines answer.

orjson makes a float of a whole number beyond 64 bits, and refuses one beyond a float. Pure.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

# What any whole number beyond 64 bits has in it. Most answers have none, also within their texts.
_LONG = re.compile(rb"[0-9]{20}|-9[2-9][0-9]{17}")
# A text, or a whole number of so many digits. The text is matched so that digits within it are left alone. One without
# an end goes to the last byte: it would else be looked for from each quote in it, which is quadratic.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|(?<![\w.+-])-?[0-9]{19,}+(?![.eE])', re.DOTALL)
# Of a number of 64 bits, at most, with a sign.
_MAX_DIGITS = 20


def loads(content: bytes) -> Any:
    """The value; whole numbers beyond 64 bits are texts of their digits. Raises orjson.JSONDecodeError."""
    return orjson.loads(content if _LONG.search(content) is None else _TOKEN.sub(_quoted, content))


def _quoted(found: re.Match[bytes]) -> bytes:
    token = found.group()
    if token.startswith(b'"') or (len(token) <= _MAX_DIGITS and -(1 << 63) <= int(token) < 1 << 64):
        return token
    return b'"' + token + b'"'
