"""How Kubernetes writes a time to the microsecond (MicroTime): RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)


def micro_time(moment: datetime) -> str:
    """Such as 2026-11-24T04:45:28.000123Z: always six digits, or the API server refuses it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
