"""The dashboard for a lead: who uses engines, whether they start and run, what is wrong."""

from __future__ import annotations

from tools.dashboards.panels import (
    CONSOLE,
    LEADS,
    LIVE,
    Board,
    Row,
    appeared_in_range,
    fullest,
    graph,
    highest,
    in_range,
    live_engines,
    named,
    number,
    of_leaders,
    once,
    part_of,
    per_second,
    quantile,
    quantiles,
    select,
    table,
    total,
    total_of_leaders,
    weakest,
)

_ENDED = in_range("ecm_tasks_total")
# Without a task there is no share: the panel then says "no data" instead of a good figure.
_SUCCEEDED = in_range("ecm_tasks_total", 'outcome="Succeed"')
_ENGINES = total_of_leaders("ecm_engines", LIVE, 'engine_type!="canary"')
# While an operator leads; without one nobody knows, and there is no data.
_NONE = f"0 * sum ({select('ecm_leading')} == 1)"
# One who has engines in two installations is one user.
_OWNERS = f"""max by (owner) ({of_leaders("ecm_owned_engines", 'owner!="ecm_canary"')})"""
_ENDS = appeared_in_range("ecm_engine_ends_total", 'engine_type!="canary"', by="reason", since="ecm_leading")
_CALLS = per_second("ecm_gateway_requests_total")
_ERRORS = per_second("ecm_gateway_requests_total", 'code=~"5.."')
# While a gateway is scraped; without one there is no data.
_NONE_FAIL = f"0 * {total('ecm_gateway_requests_in_flight')}"
# absent() has no namespace in the rule file for a plain Prometheus: OperatorDown and GatewayDown count everywhere.
_HERE_OR_NOWHERE = 'cluster=~"$cluster|", namespace=~"$namespace|", release=~"$release|"'

BOARD = Board(
    "overview",
    "Linkis ECM: overview",
    "How engines fare, for whoever answers for them.",
    (
        Row(
            "Now",
            (
                number(
                    "Engines", "Engines that start, are up, or stop.", "short",
                    f"{_ENGINES} or {_NONE}", CONSOLE,
                ),
                number(
                    "Users with engines", "How many users have an engine now; at most 101.", "short",
                    f"count ({_OWNERS}) or {_NONE}", CONSOLE,
                ),
                number("Tasks", "Tasks that ended in the time shown.", "short", _ENDED, "TasksLost"),
                number(
                    "Tasks that succeed", "Part of the tasks that succeeded; code with an error fails.", "percentunit",
                    part_of(_SUCCEEDED, _ENDED), "TasksLost",
                ),
                number(
                    "Calls that fail", "Part of the gateway's calls that ended with a 5xx; 0 while nobody calls.",
                    "percentunit", f"{part_of(_ERRORS, _CALLS)} or {_NONE_FAIL}", "GatewayErrors",
                ),
                number(
                    "Alerts", "Alerts of critical and warning that fire.", "short",
                    'count(ALERTS{alertname=~"LinkisEcm.+", alertstate="firing", severity!="info",'
                    f" {_HERE_OR_NOWHERE}}}) or vector(0)",
                    "README",
                ),
            ),
        ),
        Row(
            "Engines",
            (
                graph(
                    "Engines by state", "Of all users and types; the operator's view.", "short",
                    (once("ecm_engines", by="state"), "{{state}}"),
                    link=CONSOLE, stacked=True,
                ),
                table(
                    "Engines by user", "The ten who have most, now.", "short",
                    f"topk(10, {total_of_leaders('ecm_owned_engines', by='owner')})", "{{owner}}", CONSOLE,
                ),
                live_engines("Engines by type", "engine_type"),
            ),
        ),
        Row(
            "What users feel",
            (
                quantiles(
                    "Time to an engine", "From the request to a usable engine: made for it (cold), or free (reuse).",
                    "ecm_gateway_engine_wait_seconds", link="StartsSlow", by="origin", shares=(0.5, 0.9),
                ),
                graph(
                    "Answers that wait for no engine", "Half of the calls are faster, and 95 %.", "s",
                    *((quantile(part, "ecm_gateway_request_seconds",
                                'method=~"getEngineStatus|listEngines|getTask|listTasks"'), f"{part * 100:g} %")
                      for part in (0.5, 0.95)),
                    link="GatewaySlow", exemplars=True,
                ),
                graph(
                    "Tasks by outcome", "Tasks that end, a second.", "ops",
                    (per_second("ecm_tasks_total", by="outcome"), "{{outcome}}"), link="TasksLost", stacked=True,
                ),
            ),
        ),
        Row(
            "Ends and limits",
            (
                table(
                    "Ends by reason", "Engines that ended in the time shown, without the canary's.", "short",
                    f"topk(15, {_ENDS})", "{{reason}}", "StartsFail",
                ),
                graph(
                    "Limits of people", "What the user or namespace with most has of each limit.", "percentunit",
                    (highest("ecm_engine_quota_used_ratio", by="limit"), "{{limit}}"), link="QuotaNear",
                ),
                graph(
                    "Refused for a limit", "Engines that were refused, or wait, a second.", "ops",
                    (per_second("ecm_engine_refusals_total", by="limit"), "{{limit}}"), link="LimitRefusals",
                ),
            ),
        ),
        Row(
            "Does it work",
            (
                number("Operator leads", "1: one replica of each installation holds the Lease.", "short",
                       LEADS, "NoLeader"),
                number("Canary", "1: the operator's test of itself ends in time, in each installation.", "short",
                       weakest("ecm_canary_ok"), "CanaryFails"),
                number("Database behind", "Age of the oldest record that waits for the database.", "s",
                       highest("ecm_sink_lag_seconds"), "DatabaseAway"),
                number("Archive", "Part of the archive that is used; of several that which is fullest.", "percentunit",
                       fullest("ecm_archive_bytes", "ecm_archive_max_bytes"), "ArchiveFull"),
                number("Silent engines", "Engines that are up and do not report.", "short",
                       once("ecm_engines_not_reporting"), "EnginesSilent"),
                named("Version", "Of operator and gateway: two during an upgrade.",
                      f"count by (version) ({select('ecm_build_info')})", "{{version}}", "OperatorDown"),
            ),
        ),
    ),
)  # fmt: skip
