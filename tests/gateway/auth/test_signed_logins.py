"""Kubernetes tokens that the API server has signed: forged ones cost no review, right ones wait for no stranger."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from linkis_ecm.gateway.auth import suspects
from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.auth.kubernetes import KubernetesAuthenticator
from linkis_ecm.gateway.auth.signed import SignedTokens
from linkis_ecm.gateway.http.peers import Peers
from linkis_ecm.kube.errors import Forbidden
from linkis_ecm.model.users import user_name
from linkis_ecm.process.signing_keys import REFETCH_SECONDS
from tests.gateway.auth.test_kubeauth import refused
from tools.testkit.gateway.callers import Clock, Sent

NOW = 1_800_000_000
KEY = ECKey.generate_key("P-256", {"kid": "own"})
FORGED = ECKey.generate_key("P-256", {"kid": "own"})
OTHER = ECKey.generate_key("P-256", {"kid": "other"})
BOT = "system:serviceaccount:linkis:bot"
ROBOT = Caller(user_name(BOT))
PROXY = "10.0.0.9"


class ApiServer:
    """Reviews tokens, and gives its keys. A review takes until `held` is set."""

    def __init__(self) -> None:
        self.accepted: dict[str, str] = {}
        self.reviewed: list[str] = []
        self.fetches = 0
        self.fail: Forbidden | None = None

    async def signing_keys(self, *, timeout: float) -> Mapping[str, Any]:
        self.fetches += 1
        if self.fail is not None:
            raise self.fail
        return {"keys": [KEY.as_dict(private=False)]}

    async def create(self, resource: Any, body: dict[str, Any], *, namespace: str | None = None) -> dict[str, Any]:
        await asyncio.sleep(0)
        if resource.kind != "TokenReview":
            allowed = body["spec"]["user"] == BOT and body["spec"]["resourceAttributes"]["verb"] == "create"
            return {"status": {"allowed": allowed}}
        token = body["spec"]["token"]
        self.reviewed.append(token)
        user = self.accepted.get(token)
        return {"status": {"authenticated": user is not None, "user": {"username": user, "groups": []}}}


def token(key: ECKey = KEY, **claims: Any) -> str:
    found = {"sub": BOT, "exp": NOW + 600} | claims
    return jwt.encode({"alg": "ES256", "kid": key.kid}, found, key, algorithms=["ES256"])


def new(
    server: ApiServer, *, only: bool = False, monotonic: Clock | None = None, **options: Any
) -> KubernetesAuthenticator:
    signed = SignedTokens(server, service_accounts_only=only, clock=lambda: NOW, monotonic=monotonic or Clock(1000.0))
    options = {"failed_per_second": 5, "failed_burst": 50} | options
    return KubernetesAuthenticator(server, namespaces=("linkis",), clock=Clock(1000.0), signed=signed, **options)


def sent(token: str, remote: str = PROXY, **headers: str) -> Sent:
    return Sent({"Authorization": f"Bearer {token}"} | headers, remote=remote)


async def test_a_signature_alone_lets_nobody_in() -> None:
    server = ApiServer()
    right = token()
    assert (await refused(new(server), sent(right))).status == -1
    server.accepted[right] = BOT
    assert await new(server).authenticate(sent(right)) == ROBOT
    assert server.reviewed == [right, right]


@pytest.mark.parametrize(
    "given", [token(FORGED), token(exp=NOW - 120), token()[:-8] + "AAAAAAAA", token().rsplit(".", 1)[0] + "."]
)
async def test_a_token_that_no_review_would_accept_costs_none(given: str) -> None:
    server = ApiServer()
    refusal = await refused(new(server), sent(given))
    assert (refusal.status, server.reviewed) == (-1, [])
    assert given not in refusal.sentence


async def test_a_token_of_a_secret_has_no_end() -> None:
    server = ApiServer()
    forever = jwt.encode({"alg": "ES256", "kid": "own"}, {"sub": BOT}, KEY, algorithms=["ES256"])
    server.accepted[forever] = BOT
    assert await new(server).authenticate(sent(forever)) == ROBOT


@pytest.mark.parametrize("given", ["opaque", token(OTHER), "a.b.c"])
async def test_what_another_may_have_issued_is_reviewed(given: str) -> None:
    server = ApiServer()
    server.accepted[given] = BOT
    assert await new(server).authenticate(sent(given)) == ROBOT


async def test_service_accounts_get_in_behind_an_address_whose_waiting_places_are_all_taken() -> None:
    """Finding S43: beyond 40 wrong tokens a second right ones behind the same proxy were refused."""
    server = ApiServer()
    authenticator = new(server)
    flood = [
        asyncio.create_task(refused(authenticator, sent(f"garbage-{number}")))
        for number in range(50 + suspects.PEER_CALLS + 100)
    ]
    done = [refusal for refusal in await asyncio.gather(*flood[-50:]) if refusal.http == 429]
    assert len(done) == 50  # nobody new by an opaque token gets in now
    for number in range(20):
        right = token(iat=NOW - number)
        server.accepted[right] = BOT
        assert await authenticator.authenticate(sent(right)) == ROBOT
    assert sum(not task.done() for task in flood) > suspects.PEER_CALLS // 2
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_signed_tokens_that_are_refused_count_for_their_account_and_not_for_the_address() -> None:
    server = ApiServer()
    authenticator = new(server)
    for number in range(50):
        await refused(authenticator, sent(token(sub="system:serviceaccount:x:y", iat=NOW - number)))
    assert authenticator._failures.take("of system:serviceaccount:x:y")
    assert not authenticator._failures.take(PROXY)


async def test_where_only_service_accounts_are_taken_no_wrong_token_costs_a_review() -> None:
    server = ApiServer()
    authenticator = new(server, only=True)
    wrong = ["opaque", token(OTHER), token(FORGED), "a.b.c"]
    for given in wrong * 100:
        assert (await refused(authenticator, sent(given))).status == -1
    right = token()
    server.accepted[right] = BOT
    assert await authenticator.authenticate(sent(right)) == ROBOT
    assert server.reviewed == [right]
    assert server.fetches == 1, "a stranger's key ids cause no further fetches"


async def test_without_keys_logins_are_reviewed_as_before_and_where_they_are_needed_it_is_said() -> None:
    server = ApiServer()
    server.fail = Forbidden(403, "Forbidden", "no")
    right = token()
    server.accepted[right] = BOT
    assert await new(server).authenticate(sent(right)) == ROBOT
    monotonic = Clock(1000.0)
    authenticator = new(server, only=True, monotonic=monotonic)
    assert (await refused(authenticator, sent(right))).http == 503
    server.fail = None
    monotonic.now += REFETCH_SECONDS
    assert await authenticator.authenticate(sent(right)) == ROBOT


async def test_behind_a_trusted_proxy_each_client_is_counted_by_its_own_address() -> None:
    server = ApiServer()
    authenticator = new(server, peers=Peers([ipaddress.ip_network("10.0.0.0/8")]))
    flood = [
        asyncio.create_task(
            # The attacker writes another address into the header each time; the proxy appends its real one.
            refused(authenticator, sent(f"garbage-{n}", **{"X-FORWARDED-FOR": f"192.0.2.{n % 250}, 203.0.113.5"}))
        )
        for n in range(400)
    ]
    for refusal in await asyncio.gather(*flood[-50:]):
        assert refusal.http == 429
        assert "203.0.113.5" in refusal.sentence
    server.accepted["opaque-right"] = BOT
    mine = sent("opaque-right", **{"X-FORWARDED-FOR": "192.0.2.7"})
    assert await authenticator.authenticate(mine) == ROBOT
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_a_client_does_not_get_more_by_the_addresses_of_its_ipv6_network() -> None:
    server = ApiServer()
    authenticator = new(server)
    for number in range(50):
        await refused(authenticator, sent(f"garbage-{number}", f"2001:db8::{number + 1:x}"))
    assert authenticator._failures.take("2001:db8::/64")
