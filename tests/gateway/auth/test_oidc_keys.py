"""What happens when an issuer's keys change, are bad or cannot be had.

The issuer is a real server on a loopback port.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwk

from linkis_ecm.gateway.auth import oidc
from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.auth.oidc import (
    FIRST_REFETCH_SECONDS,
    KEYS_FRESH_SECONDS,
    KEYS_KEPT_SECONDS,
    REFETCH_SECONDS,
)
from tests.gateway.auth.issuer import (
    EC,
    NOW,
    OTHER,
    RSA,
    Issuer,
    Setup,
    ask,
    refusal,
    refused,
)  # fmt: skip

# joserfc warns of RFC 9864's new names; issuers still write EdDSA.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")


async def test_keys_are_fetched_once_and_again_after_their_time(setup: Setup, issuer: Issuer) -> None:
    authenticator = setup.new()
    await asyncio.gather(*(ask(authenticator, issuer.token()) for _ in range(20)))
    assert (issuer.fetches, issuer.discoveries) == (1, 1)
    setup.ticks.now += KEYS_FRESH_SECONDS - 1
    await ask(authenticator, issuer.token())
    assert issuer.fetches == 1
    setup.ticks.now += 1
    await ask(authenticator, issuer.token())
    assert issuer.fetches == 2


async def test_a_given_address_of_keys_needs_no_discovery(setup: Setup, issuer: Issuer) -> None:
    authenticator = setup.new(jwks_url=f"{issuer.origin}/keys")
    assert await ask(authenticator, issuer.token()) == Caller("alice")
    assert issuer.discoveries == 0


async def test_an_unknown_key_has_the_keys_fetched_exactly_once_in_its_time(setup: Setup, issuer: Issuer) -> None:
    authenticator = setup.new()
    await ask(authenticator, issuer.token())
    unknown = issuer.token(OTHER)
    for _ in range(5):
        assert "does not have" in await refusal(authenticator, unknown)
        assert "does not have" in await refusal(authenticator, issuer.token(OTHER, header={"kid": "third"}))
    assert issuer.fetches == 2
    setup.ticks.now += REFETCH_SECONDS
    await asyncio.gather(*(refusal(authenticator, unknown) for _ in range(5)))
    assert issuer.fetches == 3


async def test_rotated_keys_count_at_once_and_the_old_ones_no_longer(setup: Setup, issuer: Issuer) -> None:
    authenticator = setup.new()
    await ask(authenticator, issuer.token())
    issuer.keys = [OTHER.as_dict()]
    callers = await asyncio.gather(*(ask(authenticator, issuer.token(OTHER)) for _ in range(20)))
    assert set(callers) == {Caller("alice")}
    assert issuer.fetches == 2
    assert "does not have" in await refusal(authenticator, issuer.token())


async def test_an_issuer_that_publishes_no_keys_any_more_invalidates_the_old_ones(setup: Setup, issuer: Issuer) -> None:
    authenticator = setup.new()
    await ask(authenticator, issuer.token())
    issuer.keys = []
    setup.ticks.now += KEYS_FRESH_SECONDS
    assert "does not have" in await refusal(authenticator, issuer.token())


async def test_a_token_without_kid_counts_where_one_key_alone_fits(setup: Setup, issuer: Issuer) -> None:
    issuer.keys = [RSA.as_dict(), EC.as_dict()]
    token = issuer.token(header={"kid": None})
    assert "kid" not in oidc.unverified_part(token, 0)
    assert await ask(setup.new(), token) == Caller("alice")
    issuer.keys.append(OTHER.as_dict())
    assert "header kid" in await refusal(setup.new(), token)


async def test_an_issuer_that_is_down_keeps_nobody_out_for_a_day(
    setup: Setup, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    authenticator = setup.new()
    tokens = [issuer.token(exp=NOW + 200_000)]
    await ask(authenticator, tokens[0])
    await issuer.stop()
    setup.ticks.now += KEYS_FRESH_SECONDS
    assert await ask(authenticator, tokens[0]) == Caller("alice")
    assert "cannot be fetched" in caplog.text
    setup.ticks.now += KEYS_KEPT_SECONDS - KEYS_FRESH_SECONDS - 1
    assert await ask(authenticator, tokens[0]) == Caller("alice")
    # Whether the issuer has this key nobody can say now.
    assert (await refused(authenticator, issuer.token(OTHER))).http == 503
    setup.ticks.now += 1
    assert (await refused(authenticator, tokens[0])).http == 503
    assert not any(piece in caplog.text for piece in tokens[0].split("."))


async def test_an_issuer_that_fails_is_not_asked_by_every_call(setup: Setup, issuer: Issuer) -> None:
    issuer.answer = lambda: web.Response(status=500)
    authenticator = setup.new()
    for _ in range(5):
        assert (await refused(authenticator, issuer.token())).http == 503
    assert issuer.fetches == 1
    issuer.answer = None
    setup.ticks.now += FIRST_REFETCH_SECONDS
    assert await ask(authenticator, issuer.token()) == Caller("alice")
    issuer.answer = lambda: web.Response(status=500)
    setup.ticks.now += KEYS_FRESH_SECONDS
    for _ in range(5):
        assert await ask(authenticator, issuer.token()) == Caller("alice")
    assert issuer.fetches == 3


async def test_an_issuer_that_hangs_is_waited_for_no_longer_than_allowed(
    setup: Setup, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "FETCH_SECONDS", 0.05)
    issuer.held = asyncio.Event()
    assert (await refused(setup.new(), issuer.token())).http == 503
    issuer.held.set()


async def test_a_cancelled_call_does_not_cancel_the_fetch_of_keys_for_others(setup: Setup, issuer: Issuer) -> None:
    issuer.held = asyncio.Event()
    authenticator = setup.new()
    first, second = (asyncio.create_task(ask(authenticator, issuer.token())) for _ in range(2))
    await issuer.asked.wait()
    first.cancel()
    await asyncio.sleep(0)
    issuer.held.set()
    assert await second == Caller("alice")
    assert issuer.fetches == 1


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=404),
        lambda: web.Response(status=302, headers={"Location": "/elsewhere"}),
        lambda: web.Response(text="<html>"),
        lambda: web.Response(body=b"\xff\xfe"),
        lambda: web.Response(body=b"[" * 100_000),
        lambda: web.json_response([]),
        lambda: web.json_response({}),
        lambda: web.json_response({"keys": {"rsa": RSA.as_dict()}}),
        lambda: web.json_response({"keys": [RSA.as_dict()], "padding": "x" * (1 << 20)}),
    ],
)
async def test_an_answer_that_is_not_a_set_of_keys_gives_no_keys(
    setup: Setup, issuer: Issuer, answer: Callable[[], web.StreamResponse]
) -> None:
    issuer.answer = answer
    assert (await refused(setup.new(), issuer.token())).http == 503


async def test_an_issuer_that_packs_its_answer_or_never_ends_it_is_read_within_bounds(
    setup: Setup, issuer: Issuer
) -> None:
    keys = json.dumps({"keys": [RSA.as_dict()], "padding": "x" * (64 << 20)}).encode()
    issuer.answer = lambda: web.Response(body=gzip.compress(keys), headers={"Content-Encoding": "gzip"})
    assert (await refused(setup.new(), issuer.token())).http == 503

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b" " * (64 << 10)

    issuer.answer = lambda: web.Response(body=chunks())
    assert (await refused(setup.new(), issuer.token())).http == 503
    issuer.answer = None
    assert await ask(setup.new(), issuer.token()) == Caller("alice")


async def test_a_bad_key_does_not_cost_the_good_ones(setup: Setup, issuer: Issuer) -> None:
    weak = jwk.generate_key("RSA", 1024, {"kid": "weak"})
    issuer.keys = [
        7,
        None,
        {},
        {"kty": ["RSA"]},
        {"kty": "RSA", "kid": "a"},
        {"kty": "RSA", "kid": "b", "n": "!", "e": "AQAB"},
        {"kty": "RSA", "kid": "c", "n": 7, "e": None},
        {"kty": "EC", "kid": "d", "crv": "P-999", "x": "AA", "y": "AA"},
        {"kty": "EC", "kid": "e", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "OKP", "kid": "f", "crv": "Ed25519", "x": "AA"},
        {"kty": "AKP", "kid": "g", "alg": "ML-DSA-44", "pub": "AA"},
        OTHER.as_dict(private=True),
        weak.as_dict(),
        RSA.as_dict(),
    ]
    authenticator = setup.new()
    assert await ask(authenticator, issuer.token()) == Caller("alice")
    assert "does not have" in await refusal(authenticator, issuer.token(weak))
    assert "does not have" in await refusal(authenticator, issuer.token(OTHER))


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": 7},
        {"jwks_uri": "file:///x"},
    ],
)
async def test_a_discovery_document_of_another_or_without_keys_does_not_count(
    setup: Setup, issuer: Issuer, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    issuer.discovery |= change
    assert (await refused(setup.new(), issuer.token())).http == 503
    assert "openid-configuration" in caplog.text
    assert issuer.fetches == 0
