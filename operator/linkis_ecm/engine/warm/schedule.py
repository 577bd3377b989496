"""Which size the schedule of a warm pool gives now, and when that changes. The clock is given.

A window is a time of the day on some days of the week, by the clock of a time zone. A time that the zone has twice on
the night of a change counts when it comes first, and one that it leaves out is the moment of the change: so no window
ends before it begins. The zones are read from the files of the system's database, once each. Must not know members or
engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from linkis_ecm.model.warm_pool import DAYS, PoolWindow

# From the day before, whose windows may last until today, to a week from now: each window begins at least once.
_FIRST_DAY, _LAST_DAY = -1, 7
# More zones are in use nowhere; a name that is not known is remembered, too.
_ZONES = 64
_END_OF_DAY = "24:00"


@dataclass(frozen=True, slots=True)
class Scheduled:
    """`size` is None where no window holds. `until`: when a window begins or ends next. `unknown` zones' windows never
    hold."""

    size: int | None = None
    until: datetime | None = None
    unknown: tuple[str, ...] = ()


def scheduled(windows: Sequence[PoolWindow], now: datetime) -> Scheduled:
    """What the windows say at that time: of those that hold, the largest size counts."""
    sizes: list[int] = []
    borders: list[datetime] = []
    unknown: dict[str, None] = {}
    for window in windows:
        zone = zone_of(window.time_zone)
        if zone is None:
            unknown[str(window.time_zone)] = None
            continue
        for start, end in _times(window, zone, now):
            if start <= now < end:
                sizes.append(window.size)
            borders += [border for border in (start, end) if border > now]
    return Scheduled(max(sizes, default=None), min(borders, default=None), tuple(unknown))


@lru_cache(maxsize=_ZONES)
def zone_of(name: str | None) -> tzinfo | None:
    """The zone of that name; UTC without one; None where the system's database has no such zone."""
    if name is None:
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # no such zone, a file that is none, a folder
        return None


def _times(window: PoolWindow, zone: tzinfo, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """When the window begins and ends, for each time that it may hold now or begins within a week."""
    today = now.astimezone(zone).date()
    overnight = window.to <= window.start
    for distance in range(_FIRST_DAY, _LAST_DAY + 1):
        day = today + timedelta(days=distance)
        if window.days is None or DAYS[day.weekday()] in window.days:
            last = day + timedelta(days=1) if overnight else day
            yield _instant(day, window.start, zone), _instant(last, window.to, zone)


def _instant(day: date, clock: str, zone: tzinfo) -> datetime:
    if clock == _END_OF_DAY:
        day, clock = day + timedelta(days=1), "00:00"
    local = datetime.combine(day, time.fromisoformat(clock), zone)
    found = local.astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return found
    return _change(local.replace(fold=1).astimezone(UTC), found, zone)


def _change(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The second between those two, in UTC, from which on the zone's clock has the offset of `after`."""
    offset = after.astimezone(zone).utcoffset()
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return before + timedelta(seconds=high)
