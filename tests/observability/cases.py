"""For each alert a history of time series that fires it, with what its reader is told, and one that keeps it silent.

Histories are in promtool's notation, a sample a minute: `0x10` is 0 eleven times, `0+2x10` goes up by 2, `_` is none.
Silent ones are near misses: below the figure, too short, or with another label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NAMESPACE = "linkis"


@dataclass(frozen=True, slots=True)
class Case:
    """`fires` and `silent` are series (without the label namespace) and their samples; both are asked at minute `at`.

    `labels` are those of the alert besides severity and namespace; `says` is its description.
    """

    fires: Mapping[str, str]
    silent: Mapping[str, str]
    says: str
    at: int = 20
    labels: Mapping[str, str] = field(default_factory=dict)
    # Whether the alert keeps the label namespace: it has none where nothing is scraped.
    has_namespace: bool = True


def ends(reason: str, samples: str, kind: str = "python") -> dict[str, str]:
    return {f'ecm_engine_ends_total{{reason="{reason}",engine_type="{kind}",tenant=""}}': samples}


def buckets(family: str, labels: str, **rates: str) -> dict[str, str]:
    """Buckets of a histogram; the names are `le_1` for le="1" and `le_inf` for le="+Inf"."""
    bounds = {name: name.removeprefix("le_").replace("_", ".").replace("inf", "+Inf") for name in rates}
    return {f'{family}_bucket{{{labels}le="{bounds[name]}"}}': samples for name, samples in rates.items()}


# Nothing for 10 minutes, then one each minute: ten at the minute 20.
LATE = "0x9 0+1x10"
ONCE = "0x10 1x10"
# The counter is not there before it counts, while its process is: five at once.
BORN = "_x11 5x20"


def certificate(begins: int, expires: int) -> dict[str, str]:
    """One that is valid between these seconds since the history's begin."""
    family = "ecm_gateway_tls_certificate"
    return {
        f"{family}_start_timestamp_seconds": f"{begins}x80",
        f"{family}_expiry_timestamp_seconds": f"{expires}x80",
    }


CALLS = "ecm_gateway_request_seconds"

CASES: dict[str, Case] = {
    "LinkisEcmOperatorDown": Case(
        fires={"ecm_leading": "1x4 stale"},
        silent={"ecm_leading": "1x4 _x3 1x20"},
        says="Prometheus has had no metrics of an operator for 5 minutes: no engine starts, stops or is recorded.",
        has_namespace=False,
    ),
    "LinkisEcmGatewayDown": Case(
        fires={"ecm_gateway_requests_in_flight": "1x4 stale"},
        silent={"ecm_gateway_requests_in_flight": "0x30"},
        says="Prometheus has had no metrics of a gateway for 5 minutes: Linkis and its users reach no engine.",
        has_namespace=False,
    ),
    "LinkisEcmNoLeader": Case(
        fires={'ecm_leading{pod="a"}': "1x10 0x20", 'ecm_leading{pod="b"}': "0x30"},
        silent={'ecm_leading{pod="a"}': "1x18 0x20", 'ecm_leading{pod="b"}': "0x18 1x20"},
        says="None of the operator's replicas has led for a minute: no engine starts, stops or is recorded.",
    ),
    "LinkisEcmShardMissing": Case(
        fires={
            'ecm_shards{shard="a"}': "2x30",
            'ecm_leading{shard="a"}': "1x30",
            'ecm_leading{shard="b"}': "1x4 stale",
        },
        silent={'ecm_shards{shard="a"}': "2x30", 'ecm_leading{shard="a"}': "1x30", 'ecm_leading{shard="b"}': "0x30"},
        says="The installation has 2 operators with namespaces of their own, and Prometheus has metrics of fewer for 5"
        " minutes: in the namespaces of the others no engine starts, stops or is recorded.",
    ),
    "LinkisEcmLeaseFlapping": Case(
        fires={'ecm_lease_changes_total{change="lost"}': LATE},
        silent={'ecm_lease_changes_total{change="gained"}': LATE, 'ecm_lease_changes_total{change="lost"}': ONCE},
        says="The Lease was lost 10 times in 15 minutes; each change costs up to 8 s in which no engine starts.",
    ),
    "LinkisEcmCanaryFails": Case(
        fires={"ecm_canary_ok": "1x10 0x20"},
        silent={"ecm_canary_ok": "_x19 0 1x10"},
        says="The canary engine has not gone from the API server to the database in time for 2 minutes.",
    ),
    "LinkisEcmCanarySlow": Case(
        fires=buckets("ecm_canary_seconds", "", le_5="0x30", le_10="0+1x30", le_inf="0+1x30"),
        silent=buckets("ecm_canary_seconds", "", le_0_5="0+1x30", le_10="0+1x30", le_inf="0+1x30"),
        says="The slowest tenth of the canary's rounds took over 9.5s in the last 15 minutes; a quiet operator takes"
        " under a second.",
    ),
    "LinkisEcmPassesFail": Case(
        fires={'ecm_reconcile_poison_objects{controller="engine"}': "0x5 2x30"},
        silent={'ecm_reconcile_poison_objects{controller="engine"}': "0x15 2x5 0x10"},
        labels={"controller": "engine"},
        says="Objects of the controller engine on which each pass has failed for 10 minutes: 2.",
    ),
    "LinkisEcmQueueLate": Case(
        fires={'ecm_queue_oldest_age_seconds{controller="engine"}': "0+15x30"},
        silent={'ecm_queue_oldest_age_seconds{controller="engine"}': "30x30"},
        labels={"controller": "engine"},
        says="An object of the controller engine has waited for 5m 0s for a worker.",
    ),
    "LinkisEcmDrift": Case(
        fires={'ecm_drift_total{kind="row_status"}': "0x10 2x20"},
        silent={'ecm_drift_total{kind="row_status"}': "7x30"},
        labels={"kind": "row_status"},
        says="Differences of kind row_status that the audit has repaired in an hour: 2.",
    ),
    "LinkisEcmAuditLate": Case(
        fires={"ecm_audit_age_seconds": "1000+60x60"},
        silent={"ecm_audit_age_seconds": "1700x30"},
        says="The last audit ended 36m 40s ago; it runs each 5 to 10 minutes.",
    ),
    "LinkisEcmAdmissionMissing": Case(
        fires={"ecm_admission_policies_missing": "0x10 1x20"},
        silent={"ecm_admission_policies_missing": "0x18 1 0x20"},
        says="A ValidatingAdmissionPolicy of the chart or its binding has been missing, or changed, for 2 minutes: no"
        " new engine is started.",
    ),
    "LinkisEcmNamespacesUnserved": Case(
        fires={"ecm_namespaces_unserved": "0x5 1x30"},
        silent={"ecm_namespaces_unserved": "0x17 1x3 0x10"},
        says="Watched namespaces that are gone, or in which the operator has no rights: 1.",
    ),
    "LinkisEcmNamespacesWait": Case(
        fires={'ecm_namespaces_waiting{shard="a"}': "0x5 1x30"},
        silent={'ecm_namespaces_waiting{shard="a"}': "0x12 1x30"},
        says="Namespaces that their shard has not served for 10 minutes, as the former one does not end or the claims"
        " cannot be read: 1.",
        labels={"shard": "a"},
    ),
    "LinkisEcmApiServerErrors": Case(
        fires={
            'ecm_kube_requests_total{verb="patch",resource="pods",code="200"}': "0+90x30",
            'ecm_kube_requests_total{verb="patch",resource="pods",code="503"}': "0+10x30",
        },
        silent={
            'ecm_kube_requests_total{verb="patch",resource="pods",code="200"}': "0+96x30",
            'ecm_kube_requests_total{verb="patch",resource="pods",code="409"}': "0+50x30",
            'ecm_kube_requests_total{verb="patch",resource="pods",code="0"}': "0+4x30",
        },
        says="10% of the requests to the API server had no answer, 429 or 5xx in 5 minutes.",
    ),
    "LinkisEcmWatchStale": Case(
        fires={'ecm_reflector_last_event_age_seconds{resource="pods"}': "0+60x30"},
        silent={'ecm_reflector_last_event_age_seconds{resource="pods"}': "550x30"},
        labels={"resource": "pods"},
        says="The API server has sent nothing of pods for 20m 0s; it sends a bookmark each minute.",
    ),
    "LinkisEcmClockJumped": Case(
        fires={"ecm_clock_skew_seconds": "0x10 -90x20"},
        silent={"ecm_clock_skew_seconds": "3x30"},
        says="The wall clock is 1m 30s away from where it was to be.",
    ),
    "LinkisEcmStartsSlow": Case(
        fires=buckets("ecm_engine_start_seconds", 'phase="ready",', le_60="0x60", le_120="0+1x60", le_inf="0+1x60"),
        silent=buckets("ecm_engine_start_seconds", 'phase="ready",', le_2="0+9x60", le_60="0+95x60", le_inf="0+100x60")
        | buckets("ecm_engine_start_seconds", 'phase="scheduled",', le_60="0x60", le_120="0+1x60", le_inf="0+1x60"),
        at=30,
        says="A tenth of the starts took over 1m 54s in the last 15 minutes.",
    ),
    "LinkisEcmStartsFail": Case(
        fires=ends("ImagePullBackOff", LATE),
        silent=ends("ImagePullBackOff", ONCE) | ends("StoppedByUser", LATE),
        labels={"reason": "ImagePullBackOff"},
        says="10 engines have failed to start with ImagePullBackOff in 15 minutes.",
    ),
    "LinkisEcmNoCapacity": Case(
        fires=ends("Unschedulable", LATE),
        silent=ends("Unschedulable", ONCE) | ends("LimitReached", LATE),
        labels={"reason": "Unschedulable"},
        says="10 engines have failed with Unschedulable in 15 minutes.",
    ),
    "LinkisEcmNodesLoseEngines": Case(
        fires=ends("NodeLost", BORN) | {"ecm_leading": "1x30"},
        # A Prometheus that is new sees old counters for the first time.
        silent=ends("NodeLost", BORN) | ends("IdleTimeout", LATE) | {"ecm_leading": "_x11 1x30"},
        labels={"reason": "NodeLost"},
        says="5 engines were lost with NodeLost in 15 minutes.",
    ),
    "LinkisEcmEnginesOutOfMemory": Case(
        fires=ends("OOMKilled", LATE),
        silent=ends("OOMKilled", "0x10 3x30"),
        labels={"reason": "OOMKilled"},
        says="10 engines were killed for lack of memory in an hour.",
    ),
    "LinkisEcmEnginesSilent": Case(
        fires={"ecm_engines_not_reporting": "0x5 3x30"},
        silent={"ecm_engines_not_reporting": "0x16 3x4 0x10"},
        says="Engines that are up, but whose agents have not reported for over 30 s: 3.",
    ),
    "LinkisEcmReportPathDown": Case(
        fires={"ecm_report_path_down": "0x5 1x30"},
        silent={"ecm_report_path_down": "0x18 1 0x10"},
        says="Most agents have not reported for 2 minutes: the network to the operator's port 9103 is taken to be"
        " down.",
    ),
    "LinkisEcmKeyMismatch": Case(
        fires={"ecm_engines_key_mismatch": "1x30"},
        silent={"ecm_engines_key_mismatch": "0x30"},
        says="Engines that run but cannot be used, because the token key has changed since they started: 1.",
    ),
    "LinkisEcmEnginesTooSmall": Case(
        fires={"ecm_engines_too_small": "2x30"},
        silent={"ecm_engines_too_small": "0x12 2x18"},
        says="Engines whose pods could not be resized for 10 minutes, at a warm start or after a soft pause: 2.",
    ),
    "LinkisEcmQuotaNear": Case(
        fires={'ecm_engine_quota_used_ratio{limit="user_engines"}': "0.95x30"},
        silent={'ecm_engine_quota_used_ratio{limit="user_engines"}': "0.9x30"},
        labels={"limit": "user_engines"},
        says="Somebody uses 95% of the limit user_engines.",
    ),
    "LinkisEcmLimitRefusals": Case(
        fires={'ecm_engine_refusals_total{limit="user_engines"}': "0x9 0+3x20"},
        silent={'ecm_engine_refusals_total{limit="user_engines"}': "0x10 6x20"},
        labels={"limit": "user_engines"},
        says="30 engines were refused, or wait, for the limit user_engines in 15 minutes.",
    ),
    "LinkisEcmWarmPoolCannotFill": Case(
        fires={'ecm_warm_pool_problem{plugin="python",reason="QuotaExceeded"}': "_x5 1x30"},
        silent={
            'ecm_warm_pool_problem{plugin="python",reason="QuotaExceeded"}': "_x11 1x30",
            'ecm_warm_pool_problem{plugin="python",reason="GivesWay"}': "1x30",
            'ecm_warm_pool_problem{plugin="python",reason="ClaimsUntried"}': "1x30",
        },
        labels={"plugin": "python", "reason": "QuotaExceeded"},
        says="The warm pool of python has not been full, or of no use, for 10 minutes: QuotaExceeded.",
    ),
    "LinkisEcmWarmPoolEmpty": Case(
        fires={
            'ecm_warm_pool_members{plugin="python",state="ready"}': "4x10 0x20",
            'ecm_warm_pool_wanted{plugin="python"}': "4x30",
        },
        silent={
            'ecm_warm_pool_members{plugin="python",state="ready"}': "4x10 0x20",
            'ecm_warm_pool_members{plugin="python",state="starting"}': "0x30",
            'ecm_warm_pool_wanted{plugin="python"}': "4x10 0x20",
        },
        labels={"plugin": "python"},
        says="No pod of the warm pool of python has been ready for 5 minutes: its engines start cold.",
    ),
    "LinkisEcmWarmHitRateLow": Case(
        fires={
            'ecm_warm_pool_starts_total{plugin="python",origin="warm"}': "0+1x90",
            'ecm_warm_pool_starts_total{plugin="python",origin="cold",reason="PoolEmpty"}': "0+3x90",
        },
        silent={
            'ecm_warm_pool_starts_total{plugin="python",origin="warm"}': "0+3x90",
            'ecm_warm_pool_starts_total{plugin="python",origin="cold",reason="PoolEmpty"}': "0+1x90",
            'ecm_warm_pool_starts_total{plugin="seldom",origin="warm"}': "0x90",
            'ecm_warm_pool_starts_total{plugin="seldom",origin="cold",reason="PoolEmpty"}': "0x50 5x40",
        },
        at=80,
        labels={"plugin": "python"},
        says="25% of the engines of python in the last hour took a pod of its warm pool.",
    ),
    "LinkisEcmGatewayErrors": Case(
        fires={
            'ecm_gateway_requests_total{method="getTask",code="200"}': "0+80x30",
            'ecm_gateway_requests_total{method="getTask",code="500"}': "0+20x30",
        },
        silent={
            'ecm_gateway_requests_total{method="getTask",code="200"}': "0+99x30",
            'ecm_gateway_requests_total{method="getTask",code="404"}': "0+50x30",
            'ecm_gateway_requests_total{method="getTask",code="503"}': "0+1x30",
        },
        says="20% of the calls have ended with a 5xx in 5 minutes.",
    ),
    "LinkisEcmGatewaySlow": Case(
        fires=buckets(
            "ecm_gateway_request_seconds", 'method="getTask",', le_1="0x30", le_2_5="0+9x30", le_inf="0+9x30"
        ),
        silent=buckets("ecm_gateway_request_seconds", 'method="getTask",', le_0_1="0+9x30", le_inf="0+9x30")
        | buckets(
            "ecm_gateway_request_seconds", 'method="executeCode",', le_30="0x30", le_60="0+9x30", le_inf="0+9x30"
        ),
        says="A twentieth of the calls that wait for no engine took over 2.425s.",
    ),
    "LinkisEcmGatewayRefuses": Case(
        fires={'ecm_gateway_refusals_total{limit="rate"}': "0+120x30"},
        silent={'ecm_gateway_refusals_total{limit="rate"}': "0+50x30"},
        labels={"limit": "rate"},
        says="2.0 calls a second are refused for the limit rate.",
    ),
    "LinkisEcmGatewayMemory": Case(
        fires={'ecm_gateway_held_bytes{pod="a"}': "95x30", 'ecm_gateway_held_max_bytes{pod="a"}': "100x30"},
        silent={'ecm_gateway_held_bytes{pod="a"}': "90x30", 'ecm_gateway_held_max_bytes{pod="a"}': "100x30"},
        says="Bodies and pages hold 95% of the memory that they may have: calls wait.",
    ),
    "LinkisEcmAgentsUnreachable": Case(
        fires={'ecm_gateway_agent_errors_total{kind="connect"}': "0+30x30"},
        silent={'ecm_gateway_agent_errors_total{kind="connect"}': "0+6x30"},
        labels={"kind": "connect"},
        says="0.5 requests a second to engines fail with connect.",
    ),
    "LinkisEcmTasksRefused": Case(
        fires={'ecm_tasks_total{outcome="Refused"}': "0+2x30"},
        silent={'ecm_tasks_total{outcome="Refused"}': "0x15 5x15", 'ecm_tasks_total{outcome="Failed"}': "0+50x30"},
        says="20 tasks were refused by their engines in 10 minutes.",
    ),
    "LinkisEcmTasksLost": Case(
        fires={'ecm_tasks_total{outcome="Lost"}': LATE},
        silent={'ecm_tasks_total{outcome="Lost"}': ONCE, 'ecm_tasks_total{outcome="Cancelled"}': "0+50x30"},
        says="10 tasks were running when their engine ended, in 15 minutes.",
    ),
    "LinkisEcmTasksWait": Case(
        fires=buckets("ecm_task_wait_seconds", "", le_60="0x40", le_300="0+9x40", le_inf="0+9x40"),
        silent=buckets("ecm_task_wait_seconds", "", le_1="0+9x40", le_60="0+9x40", le_inf="0+9x40"),
        at=30,
        says="A twentieth of the tasks waited for over 4m 48s before they ran.",
    ),
    "LinkisEcmCertificateExpires": Case(
        fires=certificate(-7_000_000, 180_000),
        silent=certificate(-7_000_000, 1_000_000),
        at=70,
        says="The certificate in use expires in 2d 0h 50m 0s.",
    ),
    "LinkisEcmCertificateExpired": Case(
        fires={"ecm_gateway_tls_certificate_expiry_timestamp_seconds": "600x80"},
        silent={"ecm_gateway_tls_certificate_expiry_timestamp_seconds": "180000x80"},
        at=70,
        says="The certificate in use expired 1h 0m 0s ago: clients refuse the gateway.",
    ),
    "LinkisEcmTokenExpires": Case(
        fires={"ecm_gateway_token_expiry_timestamp_seconds": "180000x80"},
        silent={"ecm_gateway_token_expiry_timestamp_seconds": "1000000x80"},
        at=70,
        says="The first of the tokens in tokens.json expires in 2d 0h 50m 0s.",
    ),
    "LinkisEcmTokenExpired": Case(
        fires={"ecm_gateway_token_expiry_timestamp_seconds": "600x80"},
        silent={"ecm_gateway_token_expiry_timestamp_seconds": "180000x80"},
        at=70,
        says="A token in tokens.json expired 1h 0m 0s ago: calls with it are refused.",
    ),
    "LinkisEcmCertificateNotTaken": Case(
        fires={'ecm_gateway_tls_reloads_total{result="failure"}': "0x10 1x20"},
        silent={'ecm_gateway_tls_reloads_total{result="success"}': "0x10 1x20"},
        says="The gateway could not read a changed pair of certificate and key, and goes on with the one before.",
    ),
    "LinkisEcmDatabaseAway": Case(
        fires={"ecm_sink_lag_seconds": "0x10 0+60x20"},
        silent={"ecm_sink_lag_seconds": "50x30"},
        says="The oldest record has waited for 9m 0s for the database.",
    ),
    "LinkisEcmRecordsDropped": Case(
        fires={"ecm_sink_refused_total": "0x10 2x20", "ecm_sink_transitions_dropped_total": "0x30"},
        silent={"ecm_sink_refused_total": "4x30", "ecm_sink_transitions_dropped_total": "0x30"},
        says="Records that the database has refused, or that did not fit the backlog, in an hour: 2.",
    ),
    "LinkisEcmJournalBehind": Case(
        fires={"ecm_journal_depth": "0x5 5000x30"},
        silent={"ecm_journal_depth": "900x30"},
        says="5000 tasks wait for the database; over 50,000 are left out.",
    ),
    "LinkisEcmArchiveFull": Case(
        fires={'ecm_archive_bytes{pod="a"}': "98x40", 'ecm_archive_max_bytes{pod="a"}': "100x40"},
        silent={
            'ecm_archive_bytes{pod="a"}': "90x40",
            'ecm_archive_max_bytes{pod="a"}': "100x40",
        },
        says="The archive has 98% of what it may have: old logs and results are deleted before their time.",
    ),
    "LinkisEcmArchiveRefuses": Case(
        fires={'ecm_uploads_total{outcome="refused"}': LATE},
        silent={'ecm_uploads_total{outcome="refused"}': "0x10 2x20", 'ecm_uploads_total{outcome="whole"}': LATE},
        says="The archive did not take 10 files of engines in 15 minutes.",
    ),
    "LinkisEcmPostMortemsFail": Case(
        fires={'ecm_post_mortems_total{outcome="failed"}': ONCE},
        silent={'ecm_post_mortems_total{outcome="partial"}': LATE},
        says="Engines of the last 15 minutes whose end has no evidence in the archive: 1.",
    ),
}
