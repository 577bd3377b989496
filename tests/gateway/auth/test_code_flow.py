"""The console's login by OpenID Connect's code flow: what the gateway asks the issuer, and what it gives back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from linkis_ecm.gateway.auth import code_flow
from linkis_ecm.gateway.auth.code_flow import CodeFlow
from linkis_ecm.gateway.auth.oidc import OidcAuthenticator
from tools.testkit.gateway.code_issuer import AUDIENCE, CLIENT, CodeIssuer, code_issuer
from tools.testkit.gateway.harness import Answer, Harness

VERIFIER = "v" * 50
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
REDIRECT = "http://127.0.0.1:9102/console/callback.html"


@pytest.fixture
async def company() -> AsyncIterator[CodeIssuer]:
    async with code_issuer() as made:
        yield made


@pytest.fixture
async def site(make: Any, company: CodeIssuer) -> AsyncIterator[Harness]:
    async with aiohttp.ClientSession() as session:
        authenticator = OidcAuthenticator(session, issuer=company.url, audience=AUDIENCE)
        flow = CodeFlow(
            session, issuer=company.url, client_id=CLIENT, scopes="openid profile", authenticator=authenticator
        )
        yield await make(authenticator=authenticator, code_flow=flow)


async def exchange(gw: Harness, headers: dict[str, str] | None = None, **changes: Any) -> Answer:
    body = {"code": "c", "verifier": VERIFIER, "redirectUri": REDIRECT} | changes
    return await gw.call("POST", "/console/token", token=None, user=None, headers=headers, json=body)


async def test_the_way_is_told_to_anybody(site: Harness, company: CodeIssuer) -> None:
    answer = await site.call("GET", "/console/login.json", token=None, user=None)
    assert answer.body == {
        "oidc": {
            "issuer": company.url, "authorizationEndpoint": f"{company.url}/authorize", "clientId": CLIENT,
            "scope": "openid profile",
        }
    }  # fmt: skip
    await site.call("GET", "/console/login.json", token=None, user=None)
    assert company.discoveries == 1


async def test_an_issuer_that_can_end_its_own_login_says_where(site: Harness, company: CodeIssuer) -> None:
    company.more = {"end_session_endpoint": f"{company.url}/logout"}
    answer = await site.call("GET", "/console/login.json", token=None, user=None)
    assert answer.body["oidc"]["endSessionEndpoint"] == f"{company.url}/logout"


@pytest.mark.parametrize("bad", ["ftp://elsewhere.example/logout", "javascript:alert(1)", 7])
async def test_an_address_of_a_logout_that_cannot_be_trusted_is_not_told(
    site: Harness, company: CodeIssuer, bad: object
) -> None:
    company.more = {"end_session_endpoint": bad}
    answer = await site.call("GET", "/console/login.json", token=None, user=None)
    assert answer.http == 503


async def test_without_an_issuer_there_is_no_such_way(gw: Harness) -> None:
    assert (await gw.call("GET", "/console/login.json", token=None, user=None)).body == {"oidc": None}
    assert (await exchange(gw)).http == 404


async def test_a_code_and_its_verifier_are_a_token_that_logs_in(site: Harness, company: CodeIssuer) -> None:
    answer = await exchange(site, code=company.code(CHALLENGE, REDIRECT))
    token = answer.body["token"]
    assert company.forms == [
        {
            "grant_type": "authorization_code", "code": company.forms[0]["code"], "code_verifier": VERIFIER,
            "redirect_uri": REDIRECT, "client_id": CLIENT,
        }
    ]  # fmt: skip
    me = await site.get("whoAmI", token=None, user=None, headers={"Authorization": f"Bearer {token}"})
    assert me.data["user"] == "alice"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers


async def test_a_code_is_nothing_without_its_verifier_or_twice(site: Harness, company: CodeIssuer) -> None:
    code = company.code(CHALLENGE, REDIRECT)
    answer = await exchange(site, code=code, verifier="x" * 50)
    assert answer.http == 401
    assert "does not accept this login (code is not valid)" in answer.message
    assert (await exchange(site, code=code)).http == 401


ENTRA = (
    "AADSTS9002327: Tokens issued for the 'Single-Page Application' client-type may only be redeemed via cross-origin"
    " requests.\r\nTrace ID: 0000\r\nCorrelation ID: 1111\r\nTimestamp: 2026-11-27 21:00:00Z"
)


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ({"error": "invalid_request", "error_description": ENTRA}, " ".join(ENTRA.split())),
        ({"error": "invalid_grant", "error_description": "Der Schlüssel ist abgelaufen: 密钥\x1b[31m\u202e"},
         "Der Schlüssel ist abgelaufen: 密钥?[31m?"),
        ({"error": "invalid_grant", "error_description": "x" * 5000}, f"{'x' * code_flow.REASON_CHARS}…"),
        ({"error": "invalid_grant", "error_description": f"{VERIFIER} is wrong"}, "… is wrong"),
        ({"error": "invalid_grant", "error_description": "half \ud800"}, "half ?"),
        ({"error": "invalid_client", "error_description": ["no text"]}, "invalid_client"),
        ({"error": " \n"}, "without a reason"),
    ],
)  # fmt: skip
async def test_the_issuers_reason_is_shortened_and_cleaned_and_logged(
    site: Harness, company: CodeIssuer, caplog: pytest.LogCaptureFixture, refused: dict[str, Any], words: str
) -> None:
    company.extra = refused
    answer = await exchange(site, code=company.code(CHALLENGE, REDIRECT))
    assert answer.http == 401
    assert f"does not accept this login ({words}): log in again" in answer.message
    (line,) = [one.getMessage() for one in caplog.records if "does not accept a login" in one.getMessage()]
    assert line == f"{company.url} does not accept a login of 127.0.0.1: {words}"


async def test_the_id_token_is_taken_where_the_access_token_is_not_for_this_gateway(
    site: Harness, company: CodeIssuer
) -> None:
    mine = company.token()
    company.extra = {"access_token": "opaque", "id_token": mine}
    assert (await exchange(site, code=company.code(CHALLENGE, REDIRECT))).body == {"token": mine}


async def test_a_token_that_does_not_log_in_here_is_not_given_back(site: Harness, company: CodeIssuer) -> None:
    company.claims = {"aud": "another-service"}
    answer = await exchange(site, code=company.code(CHALLENGE, REDIRECT))
    assert answer.http == 401
    assert "aud" in answer.message
    assert "token" not in answer.body["data"]


@pytest.mark.parametrize(
    "changes",
    [{"verifier": "short"}, {"verifier": "v" * 129}, {"verifier": "é" * 50}, {"code": ""}, {"code": "a b"}, {"code": 1},
     {"redirectUri": "javascript:1//console/callback.html"}, {"redirectUri": "http://x/other"}, {"code": "c" * 5000}],
)  # fmt: skip
async def test_what_the_console_does_not_send_reaches_no_issuer(
    site: Harness, company: CodeIssuer, changes: dict[str, Any]
) -> None:
    answer = await exchange(site, **changes)
    assert answer.http == 400
    assert "log in again" in answer.message
    assert company.forms == []


async def test_pages_of_others_long_bodies_and_other_types_are_refused(site: Harness, company: CodeIssuer) -> None:
    assert (await exchange(site, headers={"Sec-Fetch-Site": "cross-site"})).http == 403
    assert (await exchange(site, more="x" * 10_000)).http == 413
    plain = await site.call("POST", "/console/token", token=None, user=None, data=b"{}")
    assert plain.http == 400
    array = await site.call("POST", "/console/token", token=None, user=None, json=[])
    assert array.http == 400
    assert company.forms == []


async def test_an_issuer_that_is_away_is_a_sentence_and_is_not_flooded(make: Any) -> None:
    async with aiohttp.ClientSession() as session:
        away = CodeFlow(
            session, issuer="http://127.0.0.1:1", client_id=CLIENT, scopes="openid", authenticator=None  # type: ignore[arg-type]
        )  # fmt: skip
        gw = await make(code_flow=away)
        for _ in range(3):
            answer = await gw.call("GET", "/console/login.json", token=None, user=None)
            assert answer.http == 503
            assert "does not answer as it should" in answer.message


async def test_one_address_has_so_many_logins(site: Harness) -> None:
    answers = await asyncio.gather(*(exchange(site, code=f"c{number}") for number in range(code_flow.BURST + 3)))
    assert {answer.http for answer in answers} == {401, 429}
    assert "Too many logins come from" in next(one.message for one in answers if one.http == 429)


async def test_behind_a_trusted_proxy_each_client_has_its_own(make: Any, company: CodeIssuer) -> None:
    async with aiohttp.ClientSession() as session:
        authenticator = OidcAuthenticator(session, issuer=company.url, audience=AUDIENCE)
        flow = CodeFlow(session, issuer=company.url, client_id=CLIENT, scopes="openid", authenticator=authenticator)
        gw = await make(code_flow=flow, trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),))
        first = {"X-Forwarded-For": "192.0.2.1"}
        for number in range(code_flow.BURST):
            assert (await exchange(gw, headers=first, code=f"c{number}")).http == 401
        assert (await exchange(gw, headers=first)).http == 429
        assert (await exchange(gw, headers={"X-Forwarded-For": "192.0.2.2"})).http == 401


async def test_neither_code_nor_token_is_logged(
    site: Harness, company: CodeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    code = company.code(CHALLENGE, REDIRECT)
    token = (await exchange(site, code=code)).body["token"]
    await exchange(site, code="secret-code-of-another")
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("linkis_ecm"))
    for secret in (code, token, VERIFIER, "secret-code-of-another"):
        assert secret not in ours


async def test_logins_and_their_refusals_are_counted_and_audited(
    site: Harness, company: CodeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="linkis_ecm.audit")
    metrics = site.gateway.metrics
    assert (await exchange(site, code=company.code(CHALLENGE, REDIRECT))).http == 200
    assert (await exchange(site, code="wrong")).http == 401
    assert (await exchange(site, headers={"Sec-Fetch-Site": "cross-site"})).http == 403
    assert (await exchange(site, verifier="short")).http == 400
    while (await exchange(site, code="wrong")).http != 429:
        pass
    await site.call("GET", "/console/login.json", token=None, user=None)
    for code in ("200", "403", "400", "429"):
        assert metrics.requests.labels("consoleToken", code)._value.get() == 1
    assert metrics.requests.labels("consoleLogin", "200")._value.get() == 1
    assert metrics.limits.labels("logins")._value.get() == 1
    lines = [json.loads(one.getMessage()) for one in caplog.records if one.name == "linkis_ecm.audit"]
    told = [(one["user"], one["method"], one["denied"], one["http"]) for one in lines]
    assert told[:3] == [
        ("alice", "consoleToken", False, 200), (None, "consoleToken", True, 401), (None, "consoleToken", True, 403),
    ]  # fmt: skip
    assert {one["http"] for one in lines} == {200, 401, 403}, "no line of what is no login, none of a flood"


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:91", "null"])
async def test_a_login_for_a_console_at_another_address_reaches_no_issuer(
    site: Harness, company: CodeIssuer, origin: str
) -> None:
    code = company.code(CHALLENGE, REDIRECT)
    answer = await exchange(site, headers={"Origin": origin}, code=code)
    assert answer.http == 403
    assert company.forms == []
    assert (await exchange(site, headers={"Origin": "http://127.0.0.1:9102"}, code=code)).http == 200
