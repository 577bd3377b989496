"""The dashboard of engines: their states, starts, ends, limits, and what they use."""

from __future__ import annotations

from tools.dashboards.panels import (
    CONSOLE,
    Board,
    Row,
    appeared_in_range,
    graph,
    highest,
    live_engines,
    once,
    or_none,
    per_second,
    quantiles,
    table,
    total,
    total_of_leaders,
)

_ENDS = appeared_in_range(
    "ecm_engine_ends_total", 'engine_type!="canary"', by="engine_type, reason", since="ecm_leading"
)
_BY_USAGE = "ticket, owner, engine_type"
_USAGE_NOTE = "Only with metrics.engines of the chart above 0, for as many engines."

BOARD = Board(
    "engines",
    "Linkis ECM: engines and starts",
    "Engines by state, type and tenant; how they start, why they end, what they use.",
    (
        Row(
            "Engines",
            (
                graph(
                    "By state", "Of all installations that are chosen; each replica knows its own's.", "short",
                    (once("ecm_engines", by="state"), "{{state}}"),
                    link=CONSOLE, stacked=True,
                ),
                live_engines("By type", "engine_type"),
                live_engines(
                    "By tenant", "tenant", "Engines that have not ended; empty where an engine has no tenant."
                ),
                graph(
                    "Engines that need a look",
                    "Up and silent; up with another key; another installation's in our namespaces.", "short",
                    (once("ecm_engines_not_reporting"), "silent"),
                    (once("ecm_engines_key_mismatch"), "another key"),
                    (once("ecm_foreign_engines"), "another installation's"),
                    link="EnginesSilent",
                ),
                graph(
                    "Soft pauses",
                    "Engines that nobody uses and that have given cpu back; and those whose pods have not their size.",
                    "short",
                    (once("ecm_engines_soft_paused"), "paused"),
                    (once("ecm_engines_too_small"), "too small"),
                    link="EnginesTooSmall",
                ),
                graph(
                    "Resizes of soft pauses", "A second, by direction and outcome.", "ops",
                    (or_none("ecm_soft_pause_resizes_total", by="direction, outcome"), "{{direction}} {{outcome}}"),
                    link="EnginesTooSmall",
                ),
                quantiles(
                    "Waking from a soft pause",
                    "From the report of use until the kubelet has given the whole size. Code does not wait for it.",
                    "ecm_soft_pause_wake_seconds", link="EnginesTooSmall", shares=(0.5, 0.9, 0.99),
                ),
                table(
                    "By user", "The twenty who have most, now.", "short",
                    f"topk(20, {total_of_leaders('ecm_owned_engines', by='owner')})", "{{owner}}", CONSOLE,
                ),
                graph(
                    "Reports of agents", "By the status of the operator's answer.", "reqps",
                    (per_second("ecm_reports_total", by="code"), "{{code}}"), link="ReportPathDown",
                ),
            ),
        ),
        Row(
            "Starts",
            (
                quantiles(
                    "Start, half of them", "From acceptance to each phase; ready is the whole.",
                    "ecm_engine_start_seconds", link="StartsSlow", by="phase", shares=(0.5,),
                ),
                quantiles(
                    "Start, nine of ten", "From acceptance to each phase; ready is the whole.",
                    "ecm_engine_start_seconds", link="StartsSlow", by="phase", shares=(0.9,),
                ),
                quantiles(
                    "Start by origin", "Until ready, by where the pod came from.", "ecm_engine_start_seconds",
                    'phase="ready"', link="StartsSlow", by="origin", shares=(0.5, 0.9),
                ),
                graph(
                    "Starts", "Engines that became ready, a second.", "ops",
                    (per_second("ecm_engine_start_seconds_count", 'phase="ready"', by="origin"), "{{origin}}"),
                    link="StartsFail",
                ),
                quantiles(
                    "What a caller waits", "From the call to a usable engine, by where it came from.",
                    "ecm_gateway_engine_wait_seconds", link="StartsSlow", by="origin", shares=(0.5, 0.9),
                ),
                graph(
                    "Engines given out",
                    "Calls that got an engine, a second: cold is made for it, warm took a pool's pod, reuse was free.",
                    "ops",
                    (per_second("ecm_gateway_engine_wait_seconds_count", by="origin"), "{{origin}}"), link=CONSOLE,
                ),
            ),
        ),
        Row(
            "Warm pools",
            (
                graph(
                    "Ready", "Pods that an engine can take, by plugin; and how many there are to be.", "short",
                    (once("ecm_warm_pool_members", 'state="ready"', by="plugin"), "{{plugin}}"),
                    (once("ecm_warm_pool_wanted", by="plugin"), "{{plugin}}: wanted"), link="WarmPoolEmpty",
                ),
                graph(
                    "On their way",
                    "Pods that start, that end, and that are stuck: still there a minute over their grace.", "short",
                    (once("ecm_warm_pool_members", 'state!="ready"', by="plugin, state"), "{{plugin}} {{state}}"),
                    link="WarmPoolCannotFill",
                ),
                graph(
                    "Why a pool is not full", "1 while the plugin's status says so.", "short",
                    (highest("ecm_warm_pool_problem", by="plugin, reason"), "{{plugin}} {{reason}}"),
                    link="WarmPoolCannotFill",
                ),
                graph(
                    "Warm and cold", "Starts of engines whose plugin has a pool, a second.", "ops",
                    (per_second("ecm_warm_pool_starts_total", by="plugin, origin"), "{{plugin}} {{origin}}"),
                    link="WarmHitRateLow",
                ),
                graph(
                    "Why cold", "Cold starts of engines whose plugin has a pool, a second, by reason.", "ops",
                    (
                        per_second("ecm_warm_pool_starts_total", 'origin="cold"', by="plugin, reason"),
                        "{{plugin}} {{reason}}",
                    ),
                    link="WarmHitRateLow", stacked=True,
                ),
                graph(
                    "What the size comes from", "Pods wanted: by size, by schedule, by the engines that come.", "short",
                    (once("ecm_warm_pool_wanted_from", by="plugin, source"), "{{plugin}} {{source}}"),
                    link="WarmPoolEmpty", stacked=True,
                ),
                graph(
                    "Made", "Creates of a pool's pods, a second, by outcome.", "ops",
                    (or_none("ecm_warm_pool_creates_total", by="outcome"), "{{outcome}}"),
                    link="WarmPoolCannotFill",
                ),
                graph(
                    "Wasted", "Pods that were deleted before an engine took them, a second, by reason.", "ops",
                    (or_none("ecm_warm_pool_deletes_total", by="plugin, reason"), "{{plugin}} {{reason}}"),
                    link="WarmHitRateLow",
                ),
                quantiles(
                    "Age at the claim", "How long a pod had waited when an engine took it.",
                    "ecm_warm_pool_age_at_claim_seconds", link="WarmHitRateLow", shares=(0.5, 0.9),
                ),
            ),
        ),
        Row(
            "Ends",
            (
                graph(
                    "Ends by reason", "Engines that end, a second, without the canary's.", "ops",
                    (per_second("ecm_engine_ends_total", 'engine_type!="canary"', by="reason"), "{{reason}}"),
                    link="StartsFail", stacked=True,
                ),
                table(
                    "Ends by type and reason", "In the time shown, without the canary's.", "short",
                    f"topk(30, {_ENDS})", "{{engine_type}} {{reason}}", "StartsFail",
                ),
                graph(
                    "Post-mortems", "Bundles of evidence that were written, a second.", "ops",
                    (per_second("ecm_post_mortems_total", by="outcome"), "{{outcome}}"), link="PostMortemsFail",
                ),
            ),
        ),
        Row(
            "Limits and usage",
            (
                graph(
                    "Limits of people", "What the user or namespace with most has of each limit.", "percentunit",
                    (highest("ecm_engine_quota_used_ratio", by="limit"), "{{limit}}"), link="QuotaNear",
                ),
                graph(
                    "Refused for a limit", "Engines that were refused, or wait, a second.", "ops",
                    (per_second("ecm_engine_refusals_total", by="limit"), "{{limit}}"), link="LimitRefusals",
                ),
                graph(
                    "Memory, the ten with most", f"Working set of an engine. {_USAGE_NOTE}", "bytes",
                    (f"topk(10, {total('ecm_engine_memory_bytes', by=_BY_USAGE)})",
                     "{{owner}} {{engine_type}} {{ticket}}"),
                    link="EnginesOutOfMemory",
                ),
                graph(
                    "CPU, the ten with most", f"Cores that an engine uses. {_USAGE_NOTE}", "short",
                    (f"topk(10, {per_second('ecm_engine_cpu_seconds_total', by=_BY_USAGE)})",
                     "{{owner}} {{engine_type}} {{ticket}}"),
                    link=CONSOLE,
                ),
            ),
        ),
    ),
)  # fmt: skip
