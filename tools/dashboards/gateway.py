"""The dashboard of tasks and of the gateway: calls, times, refusals, memory, connections."""

from __future__ import annotations

from tools.dashboards.panels import (
    CONSOLE,
    Board,
    Row,
    earliest,
    graph,
    highest,
    number,
    or_none,
    per_second,
    quantile,
    quantiles,
    select,
    total,
)
from tools.observability.alerts import INSTALLATION, PROCESS

_REPLICA = f"{INSTALLATION}, instance"

BOARD = Board(
    "gateway",
    "Linkis ECM: tasks and gateway",
    "What users run and call, how long it takes, what is refused.",
    (
        Row(
            "Tasks",
            (
                graph(
                    "By outcome", "Tasks that end, a second.", "ops",
                    (per_second("ecm_tasks_total", by="outcome"), "{{outcome}}"), link="TasksLost", stacked=True,
                ),
                quantiles(
                    "Duration", "From a task's begin in its engine to its end.", "ecm_task_seconds", link="TasksWait",
                    by="outcome", shares=(0.5, 0.95),
                ),
                quantiles(
                    "Wait", "From the gateway's acceptance to the begin in the engine.", "ecm_task_wait_seconds",
                    link="TasksWait", shares=(0.5, 0.95),
                ),
                graph(
                    "Records that wait", "Tasks that wait for the database.", "short",
                    (total("ecm_journal_depth"), "waiting"), link="JournalBehind",
                ),
                graph(
                    "Records that fail", "Failed tries to write, by error; tasks that were left out.", "ops",
                    (or_none("ecm_journal_errors_total", by="error"), "{{error}}"),
                    (per_second("ecm_journal_dropped_total"), "left out"),
                    link="JournalBehind",
                ),
            ),
        ),
        Row(
            "Calls",
            (
                graph(
                    "By method", "Calls that end, a second.", "reqps",
                    (per_second("ecm_gateway_requests_total", by="method"), "{{method}}"), link=CONSOLE, stacked=True,
                ),
                graph(
                    "By status", "Calls that end, a second, by HTTP status; 499: the caller left.", "reqps",
                    (per_second("ecm_gateway_requests_total", by="code"), "{{code}}"), link="GatewayErrors",
                    stacked=True,
                ),
                graph(
                    "Time by method", "95 % of the calls are faster; those that wait for engines, too.", "s",
                    (quantile(0.95, "ecm_gateway_request_seconds", by="method"), "{{method}}"), link="GatewaySlow",
                    exemplars=True,
                ),
                graph(
                    "Under way", "Calls that are not answered yet, and streams that are open, by replica.", "short",
                    (total("ecm_gateway_requests_in_flight", by=_REPLICA), "{{namespace}} {{instance}}"),
                    (total("ecm_gateway_streams", by=_REPLICA), "streams {{namespace}} {{instance}}"),
                    link="GatewaySlow",
                ),
                graph(
                    "Refused", "Calls that reached a limit, a second.", "reqps",
                    (per_second("ecm_gateway_refusals_total", by="limit"), "{{limit}}"), link="GatewayRefuses",
                ),
                graph(
                    "Errors of the gateway itself", "Each has an id in the log; answers that ended early, by who left.",
                    "ops",
                    (per_second("ecm_gateway_unexpected_errors_total"), "unexpected"),
                    (per_second("ecm_gateway_responses_aborted_total", by="side"), "{{side}} left"),
                    link="GatewayErrors",
                ),
                graph(
                    "Engines that cannot be reached", "Requests to agents that failed, a second.", "ops",
                    (per_second("ecm_gateway_agent_errors_total", by="kind"), "{{kind}}"), link="AgentsUnreachable",
                ),
                graph(
                    "Followers of tasks", "By where they read: shared is one reader for all of a task, own a connection"
                    " each; and how many a second fell behind what all are sent.", "short",
                    (total("ecm_gateway_task_followers", by="source"), "{{source}}"),
                    (per_second("ecm_gateway_task_followers_behind_total"), "fell behind"), link="GatewayMemory",
                ),
                graph(
                    "Logs sent", "Bytes a second.", "Bps",
                    (per_second("ecm_gateway_download_bytes_total"), "logs"), link="GatewayMemory",
                ),
            ),
        ),
        Row(
            "Process",
            (
                graph(
                    "Memory for bodies", "Reserved, and what may be reserved, by replica.", "bytes",
                    (total("ecm_gateway_held_bytes", by=_REPLICA), "held {{namespace}} {{instance}}"),
                    (total("ecm_gateway_held_max_bytes", by=_REPLICA), "at most {{namespace}} {{instance}}"),
                    link="GatewayMemory",
                ),
                graph(
                    "Stalled", "How long calls have waited for memory and none was freed.", "s",
                    (highest("ecm_gateway_budget_stalled_seconds"), "stalled"), link="GatewayMemory",
                ),
                graph(
                    "Connections", "Open ones: strangers have no login on them.", "short",
                    (total("ecm_connections", by="port, kind"), "{{port}} {{kind}}"), link="GatewayRefuses",
                ),
                graph(
                    "Connections cut", "Refused or cut a second, by cause.", "ops",
                    (or_none("ecm_connections_cut_total", by="port, kind"), "{{port}} {{kind}}"),
                    link="GatewayRefuses",
                ),
                graph(
                    "Memory of the processes", "Resident memory of operator and gateway, by replica.", "bytes",
                    (f"{select('process_resident_memory_bytes')} and on ({PROCESS}) {select('ecm_build_info')}",
                     "{{namespace}} {{instance}}"),
                    link="GatewayMemory",
                ),
                graph(
                    "Processor", "Cores used by operator and gateway, by replica.", "short",
                    (f"rate({select('process_cpu_seconds_total')}[$__rate_interval]) and on ({PROCESS})"
                     f" {select('ecm_build_info')}", "{{namespace}} {{instance}}"),
                    link="GatewaySlow",
                ),
                number(
                    "Certificate", "Time until the gateway's certificate expires; no data without TLS.", "s",
                    f"{earliest('ecm_gateway_tls_certificate_expiry_timestamp_seconds')} - time()",
                    "CertificateExpires",
                ),
                number(
                    "Token", "Time until the first of the tokens in tokens.json expires; no data where none ends.", "s",
                    f"{earliest('ecm_gateway_token_expiry_timestamp_seconds')} - time()",
                    "TokenExpires",
                ),
                graph(
                    "Renewed certificates", "Changed pairs of certificate and key, by result.", "ops",
                    (per_second("ecm_gateway_tls_reloads_total", by="result"), "{{result}}"),
                    link="CertificateNotTaken",
                ),
            ),
        ),
    ),
)  # fmt: skip
