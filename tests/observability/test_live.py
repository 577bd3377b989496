"""A real Prometheus scrapes a real operator and gateway on loopback: each panel has data once engines were used.

The cluster is a fake one. What takes a minute, such as the canary's next round, is for
`e2e/interfaces/test_observability.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from unittest import mock

import pytest

from tools.loopback.installation import API, Installation, installation, until
from tools.testkit.gateway.client import BASE, Gateway
from tools.testkit.gateway.harness import TOKEN
from tools.testkit.servers.panels import scraped_at, seen
from tools.testkit.servers.prometheus import PrometheusServer

# Panels that have no figure here, and why.
NOT_HERE = {
    "Certificate": "the scraped gateway has no TLS",
    "Token": "no token of the scraped gateway ends",
    "Canary's round": "the next round is a minute away",
    "Waking from a soft pause": "no kubelet resizes pods here",
}
# A pool from which engines take pods, and which says that something is wrong with it.
POOL = {"size": 1, "cap": 4, "schedule": [{"from": "00:00", "to": "24:00", "timeZone": "Mars/Olympus", "size": 4}]}
PLUGIN = {"warmPool": POOL, "startTimeout": "10m"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with (
        mock.patch.dict(os.environ, {"ECM_METRICS_ENGINES": "50"}),
        installation(tmp_path_factory.mktemp("installation"), plugin=PLUGIN) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def prometheus(made: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    targets = {"operator": made.health_port, "gateway": made.gateway.port}
    folder = tmp_path_factory.mktemp("prometheus")
    with PrometheusServer(folder, targets=targets, labels={"namespace": "engines"}) as server:
        until("both are scraped", lambda: set(targets) <= server.healthy())
        yield server


def _is(state: str, gateway: Gateway, ticket: str) -> bool:
    """As the gateway knows it, which gives it out."""
    return bool(gateway.status(ticket).data["status"] == state)


def _is_filled(made: Installation) -> bool:
    status = made.kube("GET", f"{API}/engineconnplugins/python-3.11")[1].get("status", {})
    return bool(status.get("warmPool", {}).get("ready") == POOL["size"])


@pytest.fixture(scope="module")
def used(made: Installation, prometheus: PrometheusServer, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Engines that have run code well and badly and were given out again, one of which has ended; their tickets."""
    tickets = {}
    until("the pool is filled", partial(_is_filled, made))
    # A counter has a rate if it was scraped before it rose.
    starts = "ecm_warm_pool_starts_total"
    until(starts, partial(prometheus.query, starts))
    for number, user in ((1, "alice"), (2, "bob")):
        engine = made.ready(f"real-{number}", user)
        tickets[user] = engine.uid
        with Gateway("127.0.0.1", made.gateway.port, TOKEN, user) as gateway:
            assert gateway.execute(engine.uid, "1 + 1").data["status"] == "Succeed"
            assert gateway.execute(engine.uid, "1/0").data["status"] == "Failed"
            # A busy engine is given to nobody, and a task of a second may show as Busy after its end or not at all. So
            # this one has been seen: what ran before it shows no more.
            go = tmp_path_factory.mktemp("go") / "on"
            code = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.1)"
            gateway.execute(engine.uid, code, wait=False)
            until("it is busy", partial(_is, "Busy", gateway, engine.uid))
            go.touch()
            until("it is free", partial(_is, "Idle", gateway, engine.uid))
            path = f"{BASE.rpartition('/')[0]}/linkisManager/askEngineConn"
            labels = {"engineType": "python-3.11", "userCreator": f"{user}-IDE"}
            assert gateway.request("POST", path, {"labels": labels}).message == "reuse engineConn ended."
            if user == "bob":
                assert gateway.terminate(engine.uid).ok
    until("it has ended", lambda: made.status("real-2").get("engineState") == "Success")
    # A counter that was first scraped behind its last count has no rate: one more call, once it was scraped.
    counted = 'ecm_gateway_request_seconds_count{method="getEngineStatus"}'
    until(counted, partial(prometheus.query, counted))
    with Gateway("127.0.0.1", made.gateway.port, TOKEN, "alice") as gateway:
        assert gateway.status(tickets["alice"]).ok
    # Two scrapes have seen what came last: the usage in a report, the end, the second call.
    for expression in (
        'rate(ecm_warm_pool_starts_total{origin="warm"}[15m]) > 0',
        "rate(ecm_engine_cpu_seconds_total[15m])",
        'rate(ecm_engine_ends_total{engine_type="python"}[15m])',
        'rate(ecm_gateway_request_seconds_count{method="getEngineStatus"}[15m]) > 0',
    ):
        until(expression, partial(prometheus.query, expression))
    return set(tickets.values())


def test_each_panel_has_live_data(prometheus: PrometheusServer, used: set[str]) -> None:
    at = until("all is scraped", partial(scraped_at, prometheus, {"operator", "gateway"}, time.time()))
    dead = [one for one in seen(prometheus, at) if one.largest is None]
    assert "\n".join(f"{one.board}, {one.panel}: {one.expr}" for one in dead if one.panel not in NOT_HERE) == ""
    # The canary's next round has come by now on a slow machine.
    assert {one.panel for one in dead} | {"Canary's round"} == set(NOT_HERE), "what has data is not left out"


def test_a_slow_bucket_names_an_engines_ticket(prometheus: PrometheusServer, used: set[str]) -> None:
    for family in ("ecm_engine_start_seconds", "ecm_task_seconds", "ecm_gateway_engine_wait_seconds"):
        tickets = {labels["ticket"] for labels in prometheus.exemplars(f"{family}_bucket")}
        # A bucket has its last one alone.
        assert tickets
        assert tickets <= used, family
