"""What the API server keeps of the statuses that this operator writes.

Helm never changes CRDs, so they may be older than the operator: the API server then drops the fields that it does not
know, without a word, or gives them a default. What a pass would write is missing again at the next pass, and the write
would never end. The answer of a write shows it. A status that lacks such fields alone is then no reason for a write;
it is said once, with the remedy. Must not change what is written: a write that has another reason has the whole
status, and shows early that the CRDs are applied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.kube.events import EventRecorder
from linkis_ecm.model.engineconn import API_VERSION

log = logging.getLogger(__name__)

REASON = "StatusPruned"
# After that time it is tried again whether a field is kept: by one write of the first status that lacks it.
AGAIN = timedelta(minutes=10)
# Fields that are known at a time, and that a sentence names: a map in a status has any number of keys.
FIELDS_MAX, _NAMED = 100, 8
REMEDY = (
    "The CRDs of this release are not applied, as Helm never changes them: `kubectl apply --server-side"
    " --force-conflicts -f crds`, see docs/upgrades.md. No restart is needed then."
)


class KeptFields:
    """Of one kind of objects: a CRD holds for all of them. A field is a path such as `warmPool.namespaces[].stuck`."""

    def __init__(
        self, *, kind: str, clock: Callable[[], datetime], recorder: EventRecorder, events_in: str = ""
    ) -> None:
        """`events_in`: where the events of objects without a namespace go; empty: `default`, where `kubectl describe`
        looks for them."""
        self._kind = kind
        self._clock = clock
        self._recorder = recorder
        self._events_in = events_in
        # Until when a field that was not kept is no reason for a write.
        self._dropped: dict[str, datetime] = {}

    def worth_writing(self, status: Mapping[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
        """The merge patch; empty where it would change no more than fields that the API server drops."""
        now = self._clock()
        dropped = {field for field, until in self._dropped.items() if now < until}
        if not patch or not dropped:
            return patch
        after = _merged(status, patch)
        return {} if _without(after, dropped) == _without(dict(status), dropped) else patch

    def note(self, name: str, uid: str, patch: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """The answer of a write of that patch."""
        status, metadata = answer.get("status"), answer.get("metadata")
        if not isinstance(status, Mapping) or not isinstance(metadata, Mapping):
            return
        fates: dict[str, bool] = {}
        for field, is_kept in _fates(patch, status):
            fates[field] = fates.get(field, True) and is_kept
        kept = [field for field, is_kept in fates.items() if is_kept and field in self._dropped]
        for field in kept:
            del self._dropped[field]
        if kept:
            log.info("%s: the API server keeps these fields of its status now: %s", self._kind, _named(kept))
        dropped = sorted(field for field, is_kept in fates.items() if not is_kept)
        new = [field for field in dropped if field not in self._dropped]
        until = self._clock() + AGAIN
        self._dropped |= dict.fromkeys(dropped, until)
        while len(self._dropped) > FIELDS_MAX:
            del self._dropped[next(iter(self._dropped))]
        if new:
            self._say(name, uid, str(metadata.get("namespace") or ""), new)

    def _say(self, name: str, uid: str, namespace: str, fields: list[str]) -> None:
        said = f"The API server does not keep fields of the status of each {self._kind}: {_named(fields)}. {REMEDY}"
        log.warning("%s", said)
        regarding = {"apiVersion": API_VERSION, "kind": self._kind, "name": name, "uid": uid}
        if where := namespace or self._events_in:
            regarding["namespace"] = where
        self._recorder.record(regarding, REASON, said, action="WriteStatus", kind="Warning")


def _named(fields: list[str]) -> str:
    more = f" and {len(fields) - _NAMED} more" if len(fields) > _NAMED else ""
    return f"{', '.join(fields[:_NAMED])}{more}"


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _fates(written: Mapping[str, Any], found: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, bool]]:
    """Each field that was written, and whether it is there as it was written; of one that is not there, nothing
    below."""
    for name, value in written.items():
        field = _below(path, str(name))
        if value is None:
            continue  # It was to go.
        if name not in found:
            yield field, False
        else:
            yield from _fate(value, found[name], field)


def _fate(written: Any, found: Any, field: str) -> Iterator[tuple[str, bool]]:
    if isinstance(written, Mapping) and isinstance(found, Mapping):
        yield field, True
        yield from _fates(written, found, field)
    elif _is_list_of_maps(written) and _is_list_of_maps(found) and len(written) == len(found):
        yield field, True
        for one, other in zip(written, found, strict=True):
            yield from _fates(one, other, f"{field}[]")
    else:
        yield field, bool(written == found)


def _is_list_of_maps(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, Mapping) for one in value)


def _without(value: Any, dropped: Collection[str], path: str = "") -> Any:
    if isinstance(value, Mapping):
        below = ((name, one, _below(path, str(name))) for name, one in value.items())
        return {name: _without(one, dropped, field) for name, one, field in below if field not in dropped}
    if isinstance(value, list):
        return [_without(one, dropped, f"{path}[]") for one in value]
    return value


def _merged(before: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(before) if isinstance(before, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result
