"""The alerts: what each asks Prometheus for, for how long, how bad it is, and what its reader is told.

One list makes three files: rules for a plain Prometheus, the PrometheusRule of the chart, and the runbooks' index.
`tests/observability/cases.py` has for each alert a history that fires it and one that does not. Pure data.

Expressions keep the labels of SHARD, which tell installations apart, and the operators of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning", "info"]
# Where a reader of an alert finds its runbook; the chart's `metrics.prometheusRule.runbookUrl` replaces it.
RUNBOOKS = "https://github.com/apache/linkis-ecm/blob/main/docs/runbooks"
PREFIX = "LinkisEcm"
# The labels that tell installations apart. Prometheus adds `namespace` to a target in Kubernetes, the chart's monitors
# `release`, as a namespace may have two. `cluster` is there where several clusters' series meet, such as in Thanos or
# Mimir; a label that no series has changes no result.
INSTALLATION = "cluster, namespace, release"
# The labels of one process, to join its series: two clusters may give out one pod address.
PROCESS = f"{INSTALLATION}, job, instance"
# The labels that tell the operators of one installation apart, of which each leads by itself (docs/shards.md). What has
# no shards, such as a gateway, has no such label.
SHARD = f"{INSTALLATION}, shard"
_BY = f"by ({SHARD})"
_CERTIFICATE_BEGINS = "ecm_gateway_tls_certificate_start_timestamp_seconds"
_CERTIFICATE_ENDS = "ecm_gateway_tls_certificate_expiry_timestamp_seconds"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule.

    `lasts` is for how long the expression must hold, such as 5m. `description` is one sentence with the figure.
    `severity`: critical wakes somebody, warning is for working hours, info is for a dashboard.
    """

    name: str
    severity: Severity
    lasts: str
    expr: str
    summary: str
    description: str

    @property
    def page(self) -> str:
        """The name of its runbook in docs/runbooks."""
        return f"{self.name.removeprefix(PREFIX)}.md"


def _ends(reasons: str, window: str) -> str:
    """Ends by reason within the window.

    A counter with these labels appears with the first end, and `increase` does not see a counter appear: one that was
    not there while its process already was counts as a whole.
    """
    counter = f'ecm_engine_ends_total{{reason=~"{reasons}"}}'
    appeared = f"({counter} unless {counter} offset {window}) and on ({PROCESS}) ecm_leading offset {window}"
    return f"sum by ({SHARD}, reason) (({appeared}) or increase({counter}[{window}]))"


# Reasons of model/reasons.py, by what is to be done about them. A test compares them.
START_REASONS = (
    "ImagePullBackOff|CreateContainerConfigError|MountFailed|NodeCannotStart|InitContainerFailed|PodNotMade|"
    "PodNotStarted|ProcessNeverAnswered|ProcessNeverReady|StartTimeout|StartError|PodRefused|PluginMissing|NotAdmitted"
)
CAPACITY_REASONS = "Unschedulable|QuotaExceeded|LimitRangeExceeded"
NODE_REASONS = "NodeLost|NodeShutdown|Evicted|Preempted|AgentLost|PodDeleted"

GROUPS: dict[str, tuple[Alert, ...]] = {
    "installation": (
        Alert(
            "LinkisEcmOperatorDown", "critical", "5m",
            "absent(ecm_leading)",
            "No operator is scraped",
            "Prometheus has had no metrics of an operator for 5 minutes: no engine starts, stops or is recorded.",
        ),
        Alert(
            "LinkisEcmGatewayDown", "critical", "5m",
            "absent(ecm_gateway_requests_in_flight)",
            "No gateway is scraped",
            "Prometheus has had no metrics of a gateway for 5 minutes: Linkis and its users reach no engine.",
        ),
        Alert(
            "LinkisEcmNoLeader", "critical", "1m",
            f"max {_BY} (ecm_leading) == 0",
            "No operator holds the Lease",
            "None of the operator's replicas has led for a minute: no engine starts, stops or is recorded.",
        ),
        Alert(
            "LinkisEcmShardMissing", "critical", "5m",
            f"max by ({INSTALLATION}) (ecm_shards)"
            f" > count by ({INSTALLATION}) (count by ({SHARD}) (ecm_leading))",
            "A shard of the operator is not scraped",
            "The installation has {{ $value }} operators with namespaces of their own, and Prometheus has metrics of"
            " fewer for 5 minutes: in the namespaces of the others no engine starts, stops or is recorded.",
        ),
        Alert(
            "LinkisEcmLeaseFlapping", "warning", "0m",
            f'sum {_BY} (increase(ecm_lease_changes_total{{change="lost"}}[15m])) > 2.5',
            "The operator's Lease changes hands again and again",
            'The Lease was lost {{ $value | printf "%.0f" }} times in 15 minutes; each change costs up to 8 s in which'
            " no engine starts.",
        ),
        Alert(
            "LinkisEcmCanaryFails", "critical", "2m",
            f"max {_BY} (ecm_canary_ok) == 0",
            "The operator's test of itself fails",
            "The canary engine has not gone from the API server to the database in time for 2 minutes.",
        ),
        Alert(
            "LinkisEcmCanarySlow", "warning", "10m",
            f"histogram_quantile(0.9, sum by ({SHARD}, le) (rate(ecm_canary_seconds_bucket[15m]))) > 5",
            "The operator reacts slowly",
            "The slowest tenth of the canary's rounds took over {{ $value | humanizeDuration }} in the last 15 minutes;"
            " a quiet operator takes under a second.",
        ),
        Alert(
            "LinkisEcmPassesFail", "warning", "10m",
            f"max by ({SHARD}, controller) (ecm_reconcile_poison_objects) > 0",
            "The operator fails on some engines again and again",
            "Objects of the controller {{ $labels.controller }} on which each pass has failed for 10 minutes:"
            " {{ $value }}.",
        ),
        Alert(
            "LinkisEcmQueueLate", "warning", "5m",
            f"max by ({SHARD}, controller) (ecm_queue_oldest_age_seconds) > 30",
            "Engines wait for the operator",
            "An object of the controller {{ $labels.controller }} has waited for {{ $value | humanizeDuration }} for a"
            " worker.",
        ),
        Alert(
            "LinkisEcmDrift", "warning", "0m",
            f"sum by ({SHARD}, kind) (increase(ecm_drift_total[1h])) > 0",
            "API, pods and database differed",
            "Differences of kind {{ $labels.kind }} that the audit has repaired in an hour:"
            ' {{ $value | printf "%.0f" }}.',
        ),
        Alert(
            "LinkisEcmAuditLate", "warning", "5m",
            f"max {_BY} (ecm_audit_age_seconds) > 1800",
            "The audit of API, pods and rows does not end",
            "The last audit ended {{ $value | humanizeDuration }} ago; it runs each 5 to 10 minutes.",
        ),
        Alert(
            "LinkisEcmAdmissionMissing", "critical", "2m",
            f"max {_BY} (ecm_admission_policies_missing) == 1",
            "The admission policy is not in force",
            "A ValidatingAdmissionPolicy of the chart or its binding has been missing, or changed, for 2 minutes: no"
            " new engine is started.",
        ),
        Alert(
            "LinkisEcmNamespacesUnserved", "warning", "5m",
            f"max {_BY} (ecm_namespaces_unserved) > 0",
            "The operator cannot serve all its namespaces",
            "Watched namespaces that are gone, or in which the operator has no rights: {{ $value }}.",
        ),
        Alert(
            "LinkisEcmNamespacesWait", "warning", "10m",
            f"max {_BY} (ecm_namespaces_waiting) > 0",
            "A shard does not serve its namespaces",
            "Namespaces that their shard has not served for 10 minutes, as the former one does not end or the claims"
            " cannot be read: {{ $value }}.",
        ),
        Alert(
            "LinkisEcmApiServerErrors", "warning", "5m",
            f'sum {_BY} (rate(ecm_kube_requests_total{{code=~"0|429|5.."}}[5m]))'
            f" / sum {_BY} (rate(ecm_kube_requests_total[5m])) > 0.05",
            "The API server fails or refuses requests",
            "{{ $value | humanizePercentage }} of the requests to the API server had no answer, 429 or 5xx in 5"
            " minutes.",
        ),
        Alert(
            "LinkisEcmWatchStale", "warning", "5m",
            f"max by ({SHARD}, resource) (ecm_reflector_last_event_age_seconds) > 600",
            "A watch delivers nothing",
            "The API server has sent nothing of {{ $labels.resource }} for {{ $value | humanizeDuration }}; it sends a"
            " bookmark each minute.",
        ),
        Alert(
            "LinkisEcmClockJumped", "warning", "1m",
            f"max {_BY} (abs(ecm_clock_skew_seconds)) > 5",
            "The clock of the operator's node jumped",
            "The wall clock is {{ $value | humanizeDuration }} away from where it was to be.",
        ),
    ),
    "engines": (
        Alert(
            "LinkisEcmStartsSlow", "warning", "10m",
            f"histogram_quantile(0.9, sum by ({SHARD}, le) (rate("
            'ecm_engine_start_seconds_bucket{phase="ready"}[15m]))) > 60',
            "Engines start slowly",
            "A tenth of the starts took over {{ $value | humanizeDuration }} in the last 15 minutes.",
        ),
        Alert(
            "LinkisEcmStartsFail", "warning", "0m",
            f"{_ends(START_REASONS, '15m')} > 2.5",
            "Engines do not start",
            '{{ $value | printf "%.0f" }} engines have failed to start with {{ $labels.reason }} in 15 minutes.',
        ),
        Alert(
            "LinkisEcmNoCapacity", "warning", "0m",
            f"{_ends(CAPACITY_REASONS, '15m')} > 2.5",
            "The cluster has no room for engines",
            '{{ $value | printf "%.0f" }} engines have failed with {{ $labels.reason }} in 15 minutes.',
        ),
        Alert(
            "LinkisEcmNodesLoseEngines", "warning", "0m",
            f"{_ends(NODE_REASONS, '15m')} > 2.5",
            "Nodes lose engines",
            '{{ $value | printf "%.0f" }} engines were lost with {{ $labels.reason }} in 15 minutes.',
        ),
        Alert(
            "LinkisEcmEnginesOutOfMemory", "info", "0m",
            f"{_ends('OOMKilled', '1h')} > 4.5",
            "Engines run out of memory",
            '{{ $value | printf "%.0f" }} engines were killed for lack of memory in an hour.',
        ),
        Alert(
            "LinkisEcmEnginesSilent", "warning", "5m",
            f"max {_BY} (ecm_engines_not_reporting) > 0",
            "Engines do not report",
            "Engines that are up, but whose agents have not reported for over 30 s: {{ $value }}.",
        ),
        Alert(
            "LinkisEcmReportPathDown", "critical", "2m",
            f"max {_BY} (ecm_report_path_down) == 1",
            "Most engines do not reach the operator",
            "Most agents have not reported for 2 minutes: the network to the operator's port 9103 is taken to be down.",
        ),
        Alert(
            "LinkisEcmKeyMismatch", "warning", "5m",
            f"max {_BY} (ecm_engines_key_mismatch) > 0",
            "Engines do not take the operator's key",
            "Engines that run but cannot be used, because the token key has changed since they started: {{ $value }}.",
        ),
        Alert(
            "LinkisEcmEnginesTooSmall", "warning", "10m",
            f"max {_BY} (ecm_engines_too_small) > 0",
            "Engines run with less than they ask for",
            "Engines whose pods could not be resized for 10 minutes, at a warm start or after a soft pause:"
            " {{ $value }}.",
        ),
        Alert(
            "LinkisEcmQuotaNear", "info", "10m",
            f"max by ({SHARD}, limit) (ecm_engine_quota_used_ratio) > 0.9",
            "A limit of people is nearly used up",
            "Somebody uses {{ $value | humanizePercentage }} of the limit {{ $labels.limit }}.",
        ),
        Alert(
            "LinkisEcmLimitRefusals", "info", "0m",
            f"sum by ({SHARD}, limit) (increase(ecm_engine_refusals_total[15m])) > 9.5",
            "Engines are refused for a limit of people",
            '{{ $value | printf "%.0f" }} engines were refused, or wait, for the limit {{ $labels.limit }} in 15'
            " minutes.",
        ),
    ),
    "warm pools": (
        Alert(
            "LinkisEcmWarmPoolCannotFill", "warning", "10m",
            f'max by ({SHARD}, plugin, reason) (ecm_warm_pool_problem{{reason!~"GivesWay|ClaimsUntried"}}) == 1',
            "A warm pool cannot be filled, or not be used",
            "The warm pool of {{ $labels.plugin }} has not been full, or of no use, for 10 minutes:"
            " {{ $labels.reason }}.",
        ),
        Alert(
            "LinkisEcmWarmPoolEmpty", "warning", "5m",
            f'max by ({SHARD}, plugin) (ecm_warm_pool_members{{state="ready"}}) == 0'
            f" and max by ({SHARD}, plugin) (ecm_warm_pool_wanted) > 0",
            "A warm pool is empty",
            "No pod of the warm pool of {{ $labels.plugin }} has been ready for 5 minutes: its engines start cold.",
        ),
        Alert(
            "LinkisEcmWarmHitRateLow", "info", "15m",
            f'sum by ({SHARD}, plugin) (increase(ecm_warm_pool_starts_total{{origin="warm"}}[1h]))'
            f" / sum by ({SHARD}, plugin) (increase(ecm_warm_pool_starts_total[1h])) < 0.5"
            f" and sum by ({SHARD}, plugin) (increase(ecm_warm_pool_starts_total[1h])) > 9.5",
            "Few engines start warm",
            "{{ $value | humanizePercentage }} of the engines of {{ $labels.plugin }} in the last hour took a pod of"
            " its warm pool.",
        ),
    ),
    "gateway": (
        Alert(
            "LinkisEcmGatewayErrors", "critical", "5m",
            f'sum {_BY} (rate(ecm_gateway_requests_total{{code=~"5.."}}[5m]))'
            f" / sum {_BY} (rate(ecm_gateway_requests_total[5m])) > 0.05",
            "Calls of the gateway fail",
            "{{ $value | humanizePercentage }} of the calls have ended with a 5xx in 5 minutes.",
        ),
        Alert(
            "LinkisEcmGatewaySlow", "warning", "10m",
            f"histogram_quantile(0.95, sum by ({SHARD}, le) (rate(ecm_gateway_request_seconds_bucket{{"
            'method=~"getEngineStatus|listEngines|getTask|listTasks"}[5m]))) > 1',
            "The gateway answers slowly",
            "A twentieth of the calls that wait for no engine took over {{ $value | humanizeDuration }}.",
        ),
        Alert(
            "LinkisEcmGatewayRefuses", "warning", "5m",
            f"sum by ({SHARD}, limit) (rate(ecm_gateway_refusals_total[5m])) > 1",
            "The gateway refuses calls",
            '{{ $value | printf "%.1f" }} calls a second are refused for the limit {{ $labels.limit }}.',
        ),
        Alert(
            "LinkisEcmGatewayMemory", "warning", "5m",
            f"max {_BY} (ecm_gateway_held_bytes / ecm_gateway_held_max_bytes) > 0.9",
            "The gateway's memory for bodies is nearly used up",
            "Bodies and pages hold {{ $value | humanizePercentage }} of the memory that they may have: calls wait.",
        ),
        Alert(
            "LinkisEcmAgentsUnreachable", "warning", "5m",
            f"sum by ({SHARD}, kind) (rate(ecm_gateway_agent_errors_total[5m])) > 0.2",
            "The gateway does not reach engines",
            '{{ $value | printf "%.1f" }} requests a second to engines fail with {{ $labels.kind }}.',
        ),
        Alert(
            "LinkisEcmTasksRefused", "warning", "0m",
            f'sum {_BY} (increase(ecm_tasks_total{{outcome="Refused"}}[10m])) > 9.5',
            "Engines refuse tasks",
            '{{ $value | printf "%.0f" }} tasks were refused by their engines in 10 minutes.',
        ),
        Alert(
            "LinkisEcmTasksLost", "warning", "0m",
            f'sum {_BY} (increase(ecm_tasks_total{{outcome="Lost"}}[15m])) > 2.5',
            "Tasks were lost",
            '{{ $value | printf "%.0f" }} tasks were running when their engine ended, in 15 minutes.',
        ),
        Alert(
            "LinkisEcmTasksWait", "info", "10m",
            f"histogram_quantile(0.95, sum by ({SHARD}, le) (rate(ecm_task_wait_seconds_bucket[15m]))) > 60",
            "Tasks wait long",
            "A twentieth of the tasks waited for over {{ $value | humanizeDuration }} before they ran.",
        ),
        Alert(
            "LinkisEcmCertificateExpires", "warning", "5m",
            f"min {_BY} ({_CERTIFICATE_ENDS} - time() < 7 * 86400 > 0"
            f" and {_CERTIFICATE_ENDS} - time() < ({_CERTIFICATE_ENDS} - {_CERTIFICATE_BEGINS}) / 6)",
            "The gateway's certificate expires soon",
            "The certificate in use expires in {{ $value | humanizeDuration }}.",
        ),
        Alert(
            "LinkisEcmCertificateExpired", "critical", "1m",
            f"time() - min {_BY} ({_CERTIFICATE_ENDS}) >= 0",
            "The gateway's certificate has expired",
            "The certificate in use expired {{ $value | humanizeDuration }} ago: clients refuse the gateway.",
        ),
        Alert(
            "LinkisEcmTokenExpires", "warning", "1h",
            f"min {_BY} (ecm_gateway_token_expiry_timestamp_seconds) - time() < 7 * 86400 > 0",
            "A token of the gateway expires soon",
            "The first of the tokens in tokens.json expires in {{ $value | humanizeDuration }}.",
        ),
        Alert(
            "LinkisEcmTokenExpired", "warning", "1m",
            f"time() - min {_BY} (ecm_gateway_token_expiry_timestamp_seconds) >= 0",
            "A token of the gateway has expired",
            "A token in tokens.json expired {{ $value | humanizeDuration }} ago: calls with it are refused.",
        ),
        Alert(
            "LinkisEcmCertificateNotTaken", "warning", "0m",
            f'sum {_BY} (increase(ecm_gateway_tls_reloads_total{{result="failure"}}[1h])) > 0',
            "A renewed certificate cannot be used",
            "The gateway could not read a changed pair of certificate and key, and goes on with the one before.",
        ),
    ),
    "records": (
        Alert(
            "LinkisEcmDatabaseAway", "critical", "2m",
            f"max {_BY} (ecm_sink_lag_seconds) > 60",
            "The database does not take the engines' records",
            "The oldest record has waited for {{ $value | humanizeDuration }} for the database.",
        ),
        Alert(
            "LinkisEcmRecordsDropped", "warning", "0m",
            f"sum {_BY} (increase(ecm_sink_refused_total[1h])"
            " + increase(ecm_sink_transitions_dropped_total[1h])) > 0",
            "Records of engines are lost",
            "Records that the database has refused, or that did not fit the backlog, in an hour:"
            ' {{ $value | printf "%.0f" }}.',
        ),
        Alert(
            "LinkisEcmJournalBehind", "warning", "5m",
            f"max {_BY} (ecm_journal_depth) > 1000",
            "The database does not take the tasks' records",
            "{{ $value }} tasks wait for the database; over 50,000 are left out.",
        ),
        Alert(
            "LinkisEcmArchiveFull", "warning", "15m",
            f"max {_BY} (ecm_archive_bytes) / max {_BY} (ecm_archive_max_bytes) > 0.95",
            "The archive is full",
            "The archive has {{ $value | humanizePercentage }} of what it may have: old logs and results are deleted"
            " before their time.",
        ),
        Alert(
            "LinkisEcmArchiveRefuses", "warning", "0m",
            f'sum {_BY} (increase(ecm_uploads_total{{outcome=~"failed|refused"}}[15m])) > 4.5',
            "Logs and results are not kept",
            'The archive did not take {{ $value | printf "%.0f" }} files of engines in 15 minutes.',
        ),
        Alert(
            "LinkisEcmPostMortemsFail", "warning", "0m",
            f'sum {_BY} (increase(ecm_post_mortems_total{{outcome="failed"}}[15m])) > 0',
            "The archive takes no post-mortem",
            'Engines of the last 15 minutes whose end has no evidence in the archive: {{ $value | printf "%.0f" }}.',
        ),
    ),
}  # fmt: skip


def alerts() -> list[Alert]:
    """All of them, in their order."""
    return [alert for group in GROUPS.values() for alert in group]
