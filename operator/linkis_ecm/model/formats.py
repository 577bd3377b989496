"""Texts in the formats that Linkis writes and parses: labels, log folders, resource JSON, memory sizes.

Pure functions of their arguments. Linkis's own parsers define these formats: a text that differs makes its history page
show nothing or fail. Must not read clocks or settings.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache

# Linkis splits a label at "-" and refuses another count than two, so user and creator carry none; a first character
# other than "." keeps ".." out of the log folder that is made of them. People's names are mapped to it (model.users).
LABEL_RULE = "Linkis writes it into a label and splits that at '-' and ','"
USER_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.]*$"
CREATOR_PATTERN = USER_PATTERN
ENGINE_TYPE_PATTERN = r"^[a-z][a-z0-9_]*$"
# Linkis's own run types (sql, py, hql, …) and the languages of kernels, such as c#, c++17 and .net-csharp; the same
# characters as agent.formats.names.run_type_of leaves.
RUN_TYPE_PATTERN = r"^[a-z0-9_.][a-z0-9_.+#-]*$"
# As people write it in a request: `Python` means python.
WRITTEN_RUN_TYPE_PATTERN = r"^[A-Za-z0-9_.][A-Za-z0-9_.+#-]*$"
RUN_TYPE_MAX = 30
# An object's name as Kubernetes has it (RFC 1123), a variable's, and the ids of a task and of an event of its.
OBJECT_NAME_PATTERN = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
ENV_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
TASK_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$"
EVENT_ID_PATTERN = r"^[0-9.]{0,64}$"
VERSION_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.]*$"
# log_dir_suffix is varchar(128): user/8 digits/type/36 of a UUID/logs, so 40 + 30 + 52 fit.
USER_MAX = 40
ENGINE_TYPE_MAX = 30

_QUANTITY = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
_FACTOR = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18), "Ki": Decimal(2**10), "Mi": Decimal(2**20),
    "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip
# Seconds. A longer duration counts as a century: nobody waits for its end, and no sum with a time overflows.
DURATION_MAX = 100 * 365 * 86400.0
_DURATION = re.compile(r"^(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?$")


@lru_cache(maxsize=1024)
def parse_quantity(text: str) -> Decimal:
    """A Kubernetes quantity (`500m`, `1.5`, `2Gi`) as a number of its base unit.

    Raises ValueError for anything else, with the text in it.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity: write cpu like 500m or 2, memory like 512Mi or 2Gi")
    try:
        return Decimal(match[1]) * _FACTOR[match[2] or ""]
    except InvalidOperation as error:  # pragma: no cover - the pattern admits numbers only
        raise ValueError(f"{text!r} is not a quantity") from error


@lru_cache(maxsize=1024)
def parse_duration(text: str) -> float:
    """A duration such as `90s`, `30m`, `1h30m` in seconds, DURATION_MAX at most. Raises ValueError for anything
    else."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text!r} is not a duration: write it like 90s, 30m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(min(hours * 3600 + minutes * 60 + seconds, int(DURATION_MAX)))


def as_sentence(text: str) -> str:
    """A text with a full stop, if it has none; its first letter stays, for it may begin with a field's name."""
    text = text.strip()
    return f"{text}{'' if text.endswith(('.', '!', '?')) else '.'}" if text else ""


def sentences(*texts: str) -> str:
    """The texts as sentences with a space between them. Whoever joins texts for people to read does it by this."""
    return " ".join(filter(None, map(as_sentence, texts)))


def label_value(user: str, creator: str, engine_type: str, version: str) -> str:
    """The combined label of an engine, `user-creator,engineType-version` (Linkis: CombinedLabelImpl)."""
    return f"{user}-{creator},{engine_type}-{version}"


def log_dir_suffix(user: str, created: datetime, engine_type: str, ticket_id: str) -> str:
    """`<user>/<yyyyMMdd>/<engineType>/<ticketId>/logs`; the day is the creation's, fixed for the engine's life.

    Linkis's own ECM takes today's date at each call, so its folder changes at midnight.
    """
    return f"{user}/{created:%Y%m%d}/{engine_type}/{ticket_id}/logs"


def bytes_text(size: int) -> str:
    """A size as Linkis's ByteTimeUtils prints it: `%.1f` of the largest unit of which there are at least two."""
    for unit, factor in (("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if size >= 2 * factor:
            return f"{size / factor:.1f} {unit}"
    return f"{float(size):.1f} B"


@lru_cache(maxsize=1024)
def resource_json(*, memory_bytes: int, cpu_milli: int, engine_type: str, namespace: str) -> str:
    """The resource JSON of a record's `*_resource` columns.

    For most engines a LoadInstanceResource, `{"instance":1,"memory":"2.0 GB","cpu":1}`; for spark and flink the
    driver-and-Kubernetes form, without which Linkis's history page shows nothing. `cpu` counts whole cores in the
    first (rounded up: Linkis's class holds an int) and milli-cores in the Kubernetes part.
    """
    load = {"instance": 1, "memory": bytes_text(memory_bytes), "cpu": -(-cpu_milli // 1000)}
    if "spark" in engine_type or "flink" in engine_type:
        kubernetes = {"namespace": namespace, "memory": bytes_text(memory_bytes), "cpu": cpu_milli}
        return json.dumps({"driver": load, "kubernetes": kubernetes}, separators=(",", ":"))
    return json.dumps(load, separators=(",", ":"))
