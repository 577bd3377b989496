"""The parts of an EngineConnPlugin that keep engines warm: its pool, the soft pause, and the pool's status.

See `model.engineconn` for how models, CRD and parsing hang together.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field

from linkis_ecm.model.amounts import WHOLE, Amount, Duration
from linkis_ecm.model.engineconn import Camel, rule

# A module's name, as Python's import takes it.
Module = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", max_length=200), WHOLE]
NamespaceName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63), WHOLE]


class SmallResources(Camel):
    """What a pod of a warm pool has until an engine takes it; of spec.warmPool."""

    cpu: Amount = Field(description="CPU, such as 50m.")
    memory: Amount = Field(description="Memory, such as 256Mi: kernel and preload must fit.")


# A name of the zone database (IANA), such as Europe/Berlin or Etc/GMT+5. The operator looks whether there is that zone.
TimeZone = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$", max_length=64), WHOLE]
Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
DAYS: tuple[str, ...] = get_args(Day)
# Of a day, as in 08:30; 24:00 is its end.
ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", max_length=5), WHOLE]
ClockEnd = Annotated[str, Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", max_length=5), WHOLE]


class PoolWindow(Camel):
    """A time of the day with a size of its own; of spec.warmPool."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.from != self.to",
                    "an entry of spec.warmPool.schedule must have a time to that is not its time from: for a whole day"
                    " write from 00:00 and to 24:00",
                )
            ]
        }
    )

    days: list[Day] | None = Field(
        None,
        min_length=1,
        max_length=7,
        description="On which days it begins; on each where absent.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    start: ClockTime = Field(alias="from", description="When it begins, such as 08:00.")
    to: ClockEnd = Field(description="When it ends, such as 19:00; on the next day where it is not after from.")
    time_zone: TimeZone | None = Field(
        None,
        description="Whose clock this is, by its name in the zone database, such as Europe/Berlin; UTC where absent.",
    )
    size: int = Field(ge=0, le=100, description="Takes the place of warmPool.size meanwhile; it may be less.")


class PoolScaling(Camel):
    """More pods than the size while many engines come; of spec.warmPool."""

    max: int = Field(ge=1, le=100, description="The most that are kept ready in a namespace for this.")
    window: Duration = Field(
        "15m",
        description="The busiest moment of so long ago counts, 1h at most: the pool grows with the engines that come,"
        " and shrinks when fewer have come for this long.",
    )
    headroom_percent: int = Field(
        25, ge=0, le=400, description="So many more than what came within the time that it takes to replace a pod."
    )


class WarmPool(Camel):
    """Pods whose kernel runs before anybody asks: an engine of this plugin that fits takes one.

    docs/design/warm.md says how.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule("self.size <= self.cap", "spec.warmPool.cap must be at least size: raise cap or lower size"),
                rule(
                    "!has(self.schedule) || self.schedule.all(one, one.size <= self.cap)",
                    "spec.warmPool.cap must be at least each size of schedule: raise cap or lower that size",
                    field_path=".schedule",
                ),
                rule(
                    "!has(self.scaling) || self.scaling.max <= self.cap",
                    "spec.warmPool.cap must be at least scaling.max: raise cap or lower scaling.max",
                    field_path=".scaling",
                ),
                rule(
                    "!has(self.scaling) || self.scaling.max >= self.size",
                    "spec.warmPool.scaling.max must be at least size, the least: raise scaling.max or lower size",
                    field_path=".scaling",
                ),
                rule(
                    "duration(self.maxAge) == duration('0s') || duration(self.maxAge) >= duration('10m')",
                    "spec.warmPool.maxAge must be 10m or more, or 0s for never: each replacement starts a kernel",
                    field_path=".maxAge",
                ),
                rule(
                    "!has(self.scaling) || (duration(self.scaling.window) >= duration('1m')"
                    " && duration(self.scaling.window) <= duration('1h'))",
                    "spec.warmPool.scaling.window must be between 1m and 1h",
                    field_path=".scaling",
                ),
            ]
        }
    )

    size: int = Field(0, ge=0, le=100, description="How many are kept ready in each namespace; 0: none.")
    cap: int = Field(
        10,
        ge=0,
        le=1000,
        description="The most that there may be of this plugin at a time, in all namespaces together.",
    )
    schedule: list[PoolWindow] | None = Field(
        None,
        max_length=32,
        description="Sizes by the time of the week. Where several entries hold, the largest size counts; where none"
        " holds, size does.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    scaling: PoolScaling | None = Field(
        None, description="A size that follows how many engines come; size, or schedule's, is the least then."
    )
    max_age: Duration = Field(
        "24h",
        description="Older ones that nobody took are replaced, a quarter of the pool at a time; while new ones cannot"
        " start they last for as long once more, at most. 10m at least, or 0s: never.",
    )
    namespaces: list[NamespaceName] | None = Field(
        None,
        max_length=64,
        description="Where there is a pool; in each namespace of engineNamespaces where absent. Must be given with"
        " clusterWide.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    preload: list[Module] | None = Field(
        None, max_length=32, description="Python modules that are imported before anybody asks, such as [pandas]."
    )
    resources: SmallResources | None = Field(
        None,
        description="Smaller than an engine, to keep what waits cheap: the pod is resized in place when an engine takes"
        " it (Kubernetes 1.33). defaultResources where absent.",
    )


class SoftPause(Camel):
    """What an engine keeps of its cpu while nobody uses it. Its memory and its kernel stay; the rest of its cpu comes
    back with its next code. docs/design/warm.md says how.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "duration(self.after) >= duration('60s')",
                    "spec.softPause.after must be 60s or more: each pause is four writes to the API server",
                    field_path=".after",
                )
            ]
        }
    )

    after: Duration = Field("10m", description="So long nothing has used it: no task, download or running thread.")
    cpu: Amount = Field(
        description="What its pod requests meanwhile, such as 50m. A cpuLimit that is above its cpu stays; one that"
        " equals its cpu (quality of service Guaranteed) goes down as well."
    )


# Places of one pool in the status: as many as `namespaces` takes, for two installations. An entry is up to 4 KiB.
PLACES_MAX = 128
# Entries for those that are not listed: one for each writer, and for a moment one for each place that another one cuts.
UNLISTED_MAX = 2 * PLACES_MAX


class StuckPods(Camel):
    """Pods of a warm pool that were deleted and do not end: finalizers keep them, or their node does not answer."""

    pods: int = Field(ge=0, description="How many.")
    since: str = Field(
        description="When the oldest was to be gone: the end of its grace.",
        json_schema_extra={"format": "date-time"},
    )
    oldest: str = Field(max_length=253, description="The name of the oldest.")
    message: str = Field("", max_length=1024, description="What keeps the oldest, and what helps.")


class WarmPlace(Camel):
    """A warm pool in one namespace."""

    namespace: str = Field(max_length=63)
    ready: int = Field(0, ge=0, description="Pods that an engine can take now.")
    starting: int = Field(0, ge=0, description="Pods whose kernel is not ready yet.")
    wanted: int = Field(0, ge=0, description="As many are to be ready here.")
    size_from: Literal["Value", "Schedule", "Rate"] | None = Field(
        None, description="What wanted comes from: size, an entry of schedule, or how many engines came (scaling)."
    )
    reason: str | None = Field(None, max_length=64, description="Why it is not full; see docs/warm-pools.md.")
    message: str | None = Field(None, max_length=1024, description="The same in a sentence, with a remedy.")
    stuck: StuckPods | None = Field(
        None, description="Deleted pods that are there a minute after their grace. They take no place of cap."
    )


class UnlistedPlaces(Camel):
    """Namespaces of a warm pool that the list has no room for: those of one operator, together."""

    namespace: str = Field(max_length=63, description="The first of them.")
    namespaces: int = Field(1, ge=1, description="How many.")
    ready: int = Field(0, ge=0, description="Pods that an engine can take now.")
    starting: int = Field(0, ge=0, description="Pods whose kernel is not ready yet.")
    wanted: int = Field(0, ge=0, description="As many are to be ready there.")
    in_trouble: int = Field(0, ge=0, description="In so many of them something keeps the pool from being full.")
    stuck: int = Field(0, ge=0, description="Deleted pods that are there a minute after their grace.")


class WarmPoolStatus(Camel):
    """The entry's warm pool, in all namespaces together and in each."""

    summary: str = Field("", max_length=32, description="ready/wanted; NoNamespace where no namespace is served.")
    ready: int = Field(0, ge=0, description="Pods that an engine can take now.")
    starting: int = Field(0, ge=0, description="Pods whose kernel is not ready yet.")
    wanted: int = Field(0, ge=0, description="As many are to be ready, by size, schedule or scaling.")
    namespaces: list[WarmPlace] | None = Field(
        None,
        max_length=PLACES_MAX,
        description=f"Each namespace, {PLACES_MAX} at most: then those in trouble come first.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["namespace"]},
    )
    unlisted: list[UnlistedPlaces] | None = Field(
        None,
        max_length=UNLISTED_MAX,
        description="What the list has no room for. The sums and the condition count it.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["namespace"]},
    )
