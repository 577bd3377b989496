"""Who gets in, who does not, and that a changed tokens file counts at once."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.auth.tokens import CHECK_SECONDS, TokenFile
from linkis_ecm.gateway.http.errors import Refused
from tools.testkit.gateway.callers import Clock, Sent
from tools.testkit.gateway.harness import BOB_TOKEN, TOKEN, Harness

Make = Callable[..., Awaitable[Harness]]


def sent(code: str = TOKEN, user: str = "alice") -> Sent:
    return Sent({"Token-Code": code, "Token-User": user})


def write(path: Path, tokens: Any) -> str:
    # As a kubelet does: another file put in the old one's place.
    other = path.with_name("new")
    other.write_text(tokens if isinstance(tokens, str) else json.dumps(tokens))
    os.replace(other, path)
    return str(path)


async def refusal(authenticator: TokenFile, request: Sent) -> str:
    with pytest.raises(Refused) as caught:
        await authenticator.authenticate(request)
    assert caught.value.status == -1
    return caught.value.sentence


async def test_a_token_speaks_for_the_users_it_names(tmp_path: Path) -> None:
    path = write(tmp_path / "t", {TOKEN: {"users": ["*"]}, BOB_TOKEN: {"users": ["bob", "carol"]}})
    authenticator = TokenFile(path, admins=frozenset({"root"}))
    assert await authenticator.authenticate(sent()) == Caller("alice")
    assert await authenticator.authenticate(sent(user="root")) == Caller("root", is_admin=True)
    assert await authenticator.authenticate(sent(BOB_TOKEN, "carol")) == Caller("carol")
    assert "not accepted" in await refusal(authenticator, sent(BOB_TOKEN, "alice"))
    assert "not accepted" in await refusal(authenticator, sent("guess-guess", "alice"))


async def test_cookies_do_where_headers_are_missing_and_headers_win(tmp_path: Path) -> None:
    authenticator = TokenFile(write(tmp_path / "t", {TOKEN: {"users": ["*"]}}))
    cookies = {"Token-Code": TOKEN, "Token-User": "bob"}
    assert await authenticator.authenticate(Sent({}, cookies)) == Caller("bob")
    assert await authenticator.authenticate(Sent({"Token-User": "alice"}, cookies)) == Caller("alice")


async def test_a_missing_header_is_named_in_the_refusal(tmp_path: Path) -> None:
    authenticator = TokenFile(write(tmp_path / "t", {TOKEN: {"users": ["*"]}}))
    assert (await refusal(authenticator, Sent())).startswith("Token-Code is missing")
    assert (await refusal(authenticator, Sent({"Token-Code": TOKEN}))).startswith("Token-User is missing")


@pytest.mark.parametrize("user", [" a", "a\n", "a\tb", "a" * 257, "\udcff"])
async def test_a_user_who_could_own_no_engine_is_refused(tmp_path: Path, user: str) -> None:
    authenticator = TokenFile(write(tmp_path / "t", {TOKEN: {"users": ["*"]}}))
    assert "Token-User is no user name" in await refusal(authenticator, sent(user=user))


async def test_no_tokens_file_means_nobody_gets_in() -> None:
    assert "ECM_TOKENS_FILE" in await refusal(TokenFile(""), sent())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not an object"),
        ('{"LINKIS-0123": ["*"]}', "entry 1"),
        ('{"LINKIS-0123": {"users": "*"}}', "entry 1"),
        ('{"LINKIS-0123": {"users": [""]}}', "entry 1"),
        ('{"short": {"users": ["*"]}}', "entry 1"),
        ('{"": {"users": ["*"]}}', "entry 1"),
        ('{"LINKIS-0123": {"users": ["*"], "expires": "soon"}}', "such as 2027-01-31T00:00:00Z"),
        ('{"LINKIS-0123": {"users": ["*"], "expires": "2027-01-31T00:00:00"}}', "no time with its zone"),
        ('{"LINKIS-0123": {"users": ["*"], "expires": 1800000000}}', "entry 1"),
        ('{"LINKIS-0123": {"users": ["*"], "expires": "' + "1" * 99 + '"}}', "entry 1"),
    ],
)
async def test_a_file_that_cannot_be_used_closes_and_never_shows_a_token(
    tmp_path: Path, content: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    authenticator = TokenFile(write(tmp_path / "t", content))
    sentence = await refusal(authenticator, sent())
    assert says in sentence
    assert "LINKIS-0123" not in sentence + caplog.text


async def test_a_changed_file_counts_and_a_broken_one_closes_until_it_is_mended(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "t"
    authenticator = TokenFile(write(path, {TOKEN: {"users": ["*"]}}), clock=clock)
    await authenticator.authenticate(sent())
    write(path, {BOB_TOKEN: {"users": ["bob"]}})
    clock.now += CHECK_SECONDS
    await refusal(authenticator, sent())
    assert await authenticator.authenticate(sent(BOB_TOKEN, "bob")) == Caller("bob")
    write(path, "oops")
    clock.now += CHECK_SECONDS
    assert "cannot be used" in await refusal(authenticator, sent(BOB_TOKEN, "bob"))
    path.unlink()
    clock.now += CHECK_SECONDS
    assert "cannot be used" in await refusal(authenticator, sent(BOB_TOKEN, "bob"))
    write(path, {BOB_TOKEN: {"users": ["bob"]}})
    clock.now += CHECK_SECONDS
    assert await authenticator.authenticate(sent(BOB_TOKEN, "bob")) == Caller("bob")


async def test_a_token_counts_until_its_end_and_the_first_end_is_shown(tmp_path: Path) -> None:
    ends, hours = datetime(2027, 1, 31, tzinfo=UTC), [0.0]
    tokens = {TOKEN: {"users": ["*"]}, BOB_TOKEN: {"users": ["bob"], "expires": "2027-01-31T01:00:00+01:00"}}
    authenticator = TokenFile(write(tmp_path / "t", tokens), now=lambda: ends.timestamp() + 3600 * hours[0])
    assert authenticator.first_expiry() == ends.timestamp()
    hours[0] = -0.01
    assert await authenticator.authenticate(sent(BOB_TOKEN, "bob")) == Caller("bob")
    hours[0] = 0
    assert "has expired: ask an admin" in await refusal(authenticator, sent(BOB_TOKEN, "bob"))
    assert await authenticator.authenticate(sent()) == Caller("alice")
    # It stays until somebody takes it out.
    assert authenticator.first_expiry() == ends.timestamp()


async def test_of_tokens_without_an_end_no_expiry_is_shown(tmp_path: Path) -> None:
    assert math.isnan(TokenFile(write(tmp_path / "t", {TOKEN: {"users": ["*"]}})).first_expiry())
    assert math.isnan(TokenFile(write(tmp_path / "t", "oops")).first_expiry())


async def test_every_call_needs_a_token_even_for_a_path_that_is_not_there(gw: Harness) -> None:
    for path in ("/api/rest_j/v1/engineconnManager/listEngines", "/api/nope"):
        answer = await gw.call("GET", path, token=None, user=None)
        assert answer.http == 401
        assert answer.body["status"] == -1
    answer = await gw.get("listEngines", token="wrong-wrong-wrong")
    assert answer.http == 401
    cookies = {"Cookie": f"Token-Code={TOKEN}; Token-User=alice"}
    assert (await gw.get("listEngines", token=None, user=None, headers=cookies)).http == 200


async def test_without_a_tokens_file_the_gateway_answers_401_and_says_why(make: Make) -> None:
    gw = await make(tokens_file="")
    answer = await gw.get("listEngines")
    assert answer.http == 401
    assert "ECM_TOKENS_FILE" in answer.message


async def test_a_token_with_bytes_that_are_no_text_is_refused_not_a_crash(gw: Harness) -> None:
    answer = await gw.get("listEngines", token="\udcff\udcfe-not-text")
    assert answer.http == 401


COOKIES = {"Token-Code": TOKEN, "Token-User": "alice"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "what"},
        {"Origin": "https://evil.example", "Host": "ecm.example"}, {"Origin": "null", "Host": "ecm.example"},
        {"Origin": "https://ecm.example:444", "Host": "ecm.example"}, {"Origin": "https://ecm.example", "Host": ""},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://ecm.example", "Host": "ecm.example"},
        # One of the two by a cookie is a login by cookies.
        {"Sec-Fetch-Site": "cross-site", "Token-User": "alice"}, {"Sec-Fetch-Site": "cross-site", "Token-Code": TOKEN},
    ],
    ids=str,
)  # fmt: skip
async def test_a_page_of_another_site_cannot_use_cookies(tmp_path: Path, headers: dict[str, str]) -> None:
    authenticator = TokenFile(write(tmp_path / "t", {TOKEN: {"users": ["*"]}}))
    with pytest.raises(Refused, match="A page of another site makes this call") as refused:
        await authenticator.authenticate(Sent(headers, COOKIES))
    assert refused.value.status == 3


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Sec-Fetch-Site": "same-origin", "Origin": "https://ecm.example", "Host": "behind:9102"},
        {"Sec-Fetch-Site": "none"}, {"Origin": "https://ecm.example:8443", "Host": "ECM.example:8443"},
    ],
    ids=str,
)  # fmt: skip
async def test_the_own_origin_and_no_browser_may_use_cookies(tmp_path: Path, headers: dict[str, str]) -> None:
    assert await TokenFile(write(tmp_path / "t", {TOKEN: {"users": ["*"]}})).authenticate(
        Sent(headers, COOKIES)
    ) == Caller("alice")


async def test_headers_log_in_from_every_site(tmp_path: Path) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://console.example"} | COOKIES
    assert await TokenFile(write(tmp_path / "t", {TOKEN: {"users": ["*"]}})).authenticate(Sent(headers, {})) == Caller(
        "alice"
    )


@pytest.mark.parametrize("method", ["listEngines", "createEngineConnection"])
async def test_the_gateway_refuses_another_sites_call_before_anything_else(gw: Harness, method: str) -> None:
    headers = {"Cookie": f"Token-Code={TOKEN}; Token-User=alice", "Origin": "https://evil.example"}
    send = gw.get if method == "listEngines" else gw.post
    answer = await send(method, {"engineType": "python"}, token=None, user=None, headers=headers)
    assert (answer.http, gw.cluster.writes) == (403, [])
