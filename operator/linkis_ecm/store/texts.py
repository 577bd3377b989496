"""Makes texts fit their columns, whatever an engine or a user wrote. Pure."""

from __future__ import annotations

from dataclasses import replace

from linkis_ecm.model.record import EngineRecord, ExecutionRecord

# A TEXT column of MySQL holds 65,535 bytes; a character has up to four.
TEXT_BYTES = 60_000
# Of a text that the database refused: enough to see what it was about.
PLAIN_CHARS = 1000


def fitting(text: str) -> str:
    """The text as a TEXT column of charset utf8mb4 takes it: Unicode, and cut by bytes."""
    return text.encode("utf-8", "replace")[:TEXT_BYTES].decode("utf-8", "ignore")


def plain(text: str) -> str:
    """The text as any column takes it: in ASCII, short."""
    return text[:PLAIN_CHARS].encode("ascii", "replace").decode()


def plain_engine(record: EngineRecord) -> EngineRecord:
    """The record with plain words: its state matters more than what is said about it."""
    steps = tuple(replace(step, reason=plain(step.reason), message=plain(step.message)) for step in record.transitions)
    return replace(record, reason=plain(record.reason), message=plain(record.message), transitions=steps)


def plain_execution(record: ExecutionRecord) -> ExecutionRecord:
    """The line with plain words."""
    return replace(record, reason=plain(record.reason), message=plain(record.message))
