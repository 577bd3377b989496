"""The OpenAPI document: current, whole, and what the gateway serves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from openapi_spec_validator import validate

from linkis_ecm.agent.http.tasks import HEARTBEAT
from linkis_ecm.client.streams import EVENTS_READ_TIMEOUT
from linkis_ecm.gateway import openapi
from linkis_ecm.gateway.followers.lines import MAX_EVENT_BYTES
from linkis_ecm.gateway.followers.places import SLOW_SECONDS, WAIT_SECONDS
from linkis_ecm.gateway.http.validate import REMEDIES
from linkis_ecm.gateway.logs.live import FOLLOWERS_PER_ENGINE
from linkis_ecm.gateway.methods.watch import QUIET_SECONDS
from linkis_ecm.gateway.routes import METHODS
from linkis_ecm.gateway.settings import Settings
from tools.testkit.gateway.harness import Harness

COMMITTED = Path(__file__).parents[3] / "docs/openapi.json"


def test_the_committed_document_is_current() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == openapi.as_committed(), "run make generate"


def test_it_is_openapi_3_1_and_every_method_is_in_it_once() -> None:
    document = openapi.document()
    validate(document)
    found = [(verb, path) for path, verbs in document["paths"].items() for verb in verbs]
    assert len(found) == len(METHODS)
    ids = [verbs[verb]["operationId"] for verbs in document["paths"].values() for verb in verbs]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[A-Za-z]+", one) for one in ids), ids


def test_every_operation_stands_under_a_tag_that_says_what_it_is() -> None:
    document = openapi.document()
    told = {tag["name"] for tag in document["tags"]}
    under = {one["operationId"]: one["tags"] for verbs in document["paths"].values() for one in verbs.values()}
    assert {name: tags for name, tags in under.items() if not set(tags) <= told} == {}, "add its module to _TAGS"
    assert told == {tag for tags in under.values() for tag in tags}


async def test_it_is_served_without_a_login(gw: Harness) -> None:
    answer = await gw.call("GET", "/openapi.json", token=None, user=None)
    body: dict[str, Any] = answer.body
    assert (answer.http, body["openapi"]) == (200, "3.1.0")


def test_what_matches_no_pattern_of_a_request_is_refused_with_words_and_not_with_the_pattern() -> None:
    found: set[str] = set()

    def look(part: Any) -> None:
        if isinstance(part, dict):
            found.update(value for name, value in part.items() if name == "pattern" and isinstance(value, str))
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            look(inner)

    look(openapi.document())
    assert found
    assert found <= set(REMEDIES)


def operations() -> dict[str, Any]:
    return {one["operationId"]: one for verbs in openapi.document()["paths"].values() for one in verbs.values()}


def test_a_summary_is_a_whole_sentence() -> None:
    """Of a docstring of several lines it was the first line, to its last word."""
    found = operations()
    assert [name for name, one in found.items() if not one["summary"].endswith(".")] == []
    assert found["taskEvents"]["summary"].endswith("`reset`, and `end` as the last.")
    assert found["taskEvents"]["description"].startswith("An `end` with the status Unknown")
    assert "description" not in found["getTask"]


def test_what_a_reader_of_events_has_to_know_stands_in_the_document() -> None:
    """With the numbers that the code has."""
    told = operations()["taskEvents"]["responses"]["200"]["description"]
    for word in (
        "`status`",
        "`output`",
        "`reset`",
        "`end`",
        "`replaces: true`",
        "`id`",
        "Last-Event-ID",
        "lastEventId",
    ):
        assert word in told
    for number in (
        f"`: here`) comes each {HEARTBEAT:.0f} s",
        f"more than {MAX_EVENT_BYTES >> 20} MiB is left out",
        f"for {SLOW_SECONDS:.0f} s while other followers",
        f"for {WAIT_SECONDS / 60:.0f} minutes at most",
        f"{EVENTS_READ_TIMEOUT:.0f} s without a byte",
    ):
        assert number in told
    assert Settings.model_fields["client_seconds"].default == 60, "a minute"
    log = operations()["followEngineLog"]["responses"]["200"]["description"]
    assert f"an engine have {FOLLOWERS_PER_ENGINE} followers" in log
    assert "idle timeout" in log
    assert "a gateway that stops" in log
    watched = operations()["watchEngines"]["responses"]["200"]["description"]
    assert f"after {QUIET_SECONDS:.0f} s without" in watched
