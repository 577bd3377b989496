"""What engines reported of themselves by reportResourceUsage: the last report of each. Must not judge it."""

from __future__ import annotations

from collections import OrderedDict

from linkis_ecm.api.models import Usage

# Engines whose own report is remembered.
REPORTS = 10_000


class UsageReports:
    """The last reportResourceUsage of each engine, by uid; the oldest go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Usage] = OrderedDict()

    def get(self, uid: str) -> Usage | None:
        return self._kept.get(uid)

    def put(self, uid: str, usage: Usage) -> None:
        self._kept.pop(uid, None)
        self._kept[uid] = usage
        if len(self._kept) > REPORTS:
            self._kept.popitem(last=False)
