"""Bounds on what the kernel sends to the agent, at the one place that every message passes.

Agent and kernel share the container's memory, and a message exists there several times over. So a picture, table or
page above 16 MiB, which no task can return anyway, is replaced by a sentence before it is sent. Texts are cut, not left
out: `streams`. Runs in the kernel.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import zmq as _zmq

from linkis_ecm.agent.formats.tracebacks import shortened

# The same as outputs.MAX_BYTES: what all outputs of a task may hold together.
MAX_MESSAGE_BYTES = 16 << 20
_ERROR_CHARS, _ERROR_LINES = 64 << 10, 20

# pyproject.toml tells mypy to skip the modules that zmq's names come from.
XPUB_NODROP: Any = getattr(_zmq, "XPUB_NODROP")  # noqa: B009

Pack = Callable[[Any], bytes]


def bounded(pack: Pack) -> Pack:
    """`pack`, a Session's way to make bytes of a message's parts, with a bound on its result."""

    def pack_bounded(part: Any) -> bytes:
        packed = _pack_any(pack, part)
        if len(packed) <= MAX_MESSAGE_BYTES or not isinstance(part, dict):
            return packed
        return _pack_any(pack, substitute(part, len(packed)))

    return pack_bounded


def substitute(content: dict[str, Any], size: int) -> dict[str, Any]:
    """What is sent in place of a content of `size` bytes."""
    note = f"[output of {size} bytes left out: {MAX_MESSAGE_BYTES} bytes are the most that a task returns]"
    short = {key: value for key, value in content.items() if key in ("status", "execution_count", "name", "ename")}
    if "traceback" in content:
        short["evalue"] = str(content.get("evalue", ""))[:_ERROR_CHARS]
        short["traceback"] = [line[:_ERROR_CHARS] for line in shortened(content["traceback"], _ERROR_LINES)]
    elif "data" in content:
        short |= {"data": {"text/plain": note}, "metadata": {}, "transient": content.get("transient", {})}
    return short


def _pack_any(pack: Pack, part: Any) -> bytes:
    try:
        return pack(part)
    except UnicodeEncodeError:
        # Half of a surrogate pair, which UTF-8 cannot hold; as an escape, JSON can.
        return json.dumps(part, default=str).encode()
