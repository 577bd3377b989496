"""Which frames of a traceback IPython makes text of: none of the product, and of long ones (a RecursionError's)
the first and the last. Runs in the kernel.

IPython reads and parses the source around each frame: 1,000 of them take seconds, in which an interrupt waits. Must
not lose the frame that began it, nor the one that failed.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

# Frames that are shown of one error. The first ones hold IPython's own, which it leaves out itself.
FIRST, LAST = 25, 25
_MARK = "linkis_left_out"
# The folder linkis_ecm/agent, whose lines are none of the user's.
_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep


def is_own(filename: str) -> bool:
    """Whether a traceback's frame is of the product, in which users see nothing of use."""
    return filename.startswith(_OWN)


def without_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """`trace` without the frames of the product; as it is where there are no others."""
    return _chain([at for at in _frames(trace) if not is_own(at.tb_frame.f_code.co_filename)]) or trace


def bound_frames(tracebacks: Any) -> None:
    """Let IPython's `InteractiveTB` show the first and the last frames, and how many are between them."""
    get_records, format_record = tracebacks.get_records, tracebacks.format_record

    def get_some_records(trace: TracebackType, *args: Any, **options: Any) -> Any:
        frames = _frames(trace)
        left_out = len(frames) - FIRST - LAST
        if left_out <= 0:
            return get_records(trace, *args, **options)
        first = get_records(_chain(frames[:FIRST]), *args, **options)
        last = get_records(frames[-LAST], *args, **options)
        if last:
            setattr(last[0], _MARK, left_out)
        return first + last

    def format_with_note(record: Any) -> Any:
        left_out = getattr(record, _MARK, 0)
        note = f"    [... {left_out} frames left out ...]\n\n" if left_out else ""
        return note + format_record(record)

    tracebacks.get_records, tracebacks.format_record = get_some_records, format_with_note


def _frames(trace: TracebackType | None) -> list[TracebackType]:
    found = []
    while trace is not None:
        found.append(trace)
        trace = trace.tb_next
    return found


def _chain(frames: list[TracebackType]) -> TracebackType | None:
    """A traceback of these frames alone; the error's own stays whole."""
    made: TracebackType | None = None
    for frame in reversed(frames):
        made = TracebackType(made, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return made
