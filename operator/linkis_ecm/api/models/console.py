"""What a console needs besides: the caller, the last hour in curves, the catalogue. Must not have behaviour."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from linkis_ecm.api.models.base import Response


class WhoAmIAnswer(Response):
    """whoAmI: the caller as this gateway knows him."""

    user: str
    admin: bool = Field(description="May use everybody's engines, and set the ECM's health.")
    read_only: bool = Field(description="May look at what is there and change nothing.")
    namespaces: list[str] | None = Field(description="Where the caller may use engines; null: everywhere.")
    admin_namespaces: list[str] = Field(description="Where the caller may use everybody's engines.")
    groups: list[str] | None = Field(
        None, description="The caller's groups as the login has them, 1000 at most; null: it says nothing of groups."
    )
    engine_namespaces: list[str] = Field(description="The namespaces of engines that this gateway serves.")
    ecm_instance: str
    archive: bool = Field(description="Logs and results outlive their engine.")
    records: bool = Field(description="Ended engines are found after their resource was deleted.")


class TrendAnswer(Response):
    """Curves: the n-th entry of each list belongs to the n-th of `at` (Unix seconds)."""

    at: list[float]
    states: dict[str, list[int]] = Field(description="Engines by state; a state that did not occur is left out.")
    ready: list[int] = Field(description="Engines that became ready since the sample before.")
    failed: list[int] = Field(description="Engines that failed since the sample before.")
    start_millis: list[int | None] = Field(description="The longest start of those that became ready.")


class OverviewAnswer(Response):
    """getOverview."""

    scope: Literal["own", "namespaces", "everybody"] = Field(
        description="Whose engines: the caller's, besides everybody's in namespaces where the caller is an admin, or"
        " everybody's."
    )
    every_seconds: float
    calls_in_flight: int | None = Field(description="Calls that this gateway has not answered yet; for admins.")
    curve: Literal["kept", "notYet", "notKept", "noEngines"] = Field(
        description="Whether there are samples, and else why not: the first comes within 10 s; this gateway keeps as"
        " many curves as it may, and this one is not among them; the caller has had no engine in the last hour."
    )
    trend: TrendAnswer


class PluginInfo(Response):
    """An entry of the catalogue. 0: it has no default size."""

    name: str
    engine_type: str
    engine_version: str
    default: bool = Field(description="The version that is taken where a request names none.")
    run_types: list[str]
    cpu_milli: int
    memory_bytes: int
    share: str = Field("user", description="Who may get a running engine: connection, user, group or server.")
    share_groups: list[str] = Field(
        default_factory=list,
        description="At level group: those of the groups that the caller is in; an admin's are all.",
    )
    share_locks: int | None = Field(None, description="Lent engines that one asker may hold at once.")


class PluginsAnswer(Response):
    """listEnginePlugins."""

    plugins: list[PluginInfo]
