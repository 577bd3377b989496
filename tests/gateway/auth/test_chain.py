"""Which authenticator is asked for what a call carries, and that what is not configured lets nobody in."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.auth.bearer import MAX_TOKEN
from linkis_ecm.gateway.auth.chain import Chain
from linkis_ecm.gateway.http.errors import Refused, no_login
from tools.testkit.gateway.callers import Sent

ISSUER = "https://login.example.org"


class Way:
    """Lets everyone in, under its own name, or nobody."""

    def __init__(self, name: str, *, closed: bool = False) -> None:
        self.name = name
        self.closed = closed
        self.issuer = ISSUER

    async def authenticate(self, request: Any) -> Caller:
        if self.closed:
            raise no_login(f"{self.name} says no")
        return Caller(self.name)


def jwt(**claims: Any) -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": "RS256"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2ln"])


def bearer(token: str) -> Sent:
    return Sent({"Authorization": f"Bearer {token}"})


def chain(*names: str, closed: bool = False) -> Chain:
    return Chain(**{name: Way(name, closed=closed) for name in names})


ALL = ("tokens", "oidc", "kubernetes")
LINKIS = {"Token-Code": "LINKIS-SECRET-0123", "Token-User": "alice"}


async def refusal(authenticator: Chain, request: Sent) -> str:
    with pytest.raises(Refused) as caught:
        await authenticator.authenticate(request)
    assert caught.value.status == -1
    return caught.value.sentence


@pytest.mark.parametrize(
    ("request_", "way"),
    [
        (Sent(LINKIS), "tokens"),
        (Sent({}, LINKIS), "tokens"),
        (Sent({"Token-User": "alice"}), "tokens"),
        (Sent({"Authorization": f"Bearer {jwt(iss=ISSUER)}"}, LINKIS), "tokens"),
        (bearer(jwt(iss=ISSUER)), "oidc"),
        (bearer(jwt(iss="https://kubernetes.default.svc")), "kubernetes"),
        (bearer(jwt(iss=f"{ISSUER}/")), "kubernetes"),
        (bearer(jwt(iss=[ISSUER])), "kubernetes"),
        (bearer(jwt()), "kubernetes"),
        (bearer("opaque-token"), "kubernetes"),
        (bearer("a.b.c"), "kubernetes"),
    ],
)
async def test_the_credentials_of_a_call_choose_its_authenticator(request_: Sent, way: str) -> None:
    assert await chain(*ALL).authenticate(request_) == Caller(way)


async def test_a_refusal_is_not_tried_elsewhere() -> None:
    for request, way in ((Sent(LINKIS), "tokens"), (bearer(jwt(iss=ISSUER)), "oidc"), (bearer("x"), "kubernetes")):
        ways: dict[str, Any] = {name: Way(name, closed=name == way) for name in ALL}
        assert await refusal(Chain(**ways), request) == f"{way} says no"


async def test_a_call_without_credentials_is_refused_with_the_configured_logins() -> None:
    sentence = await refusal(chain(*ALL), Sent())
    assert "Token-Code and Token-User" in sentence
    assert ISSUER in sentence
    assert "Kubernetes" in sentence
    sentence = await refusal(chain("kubernetes"), Sent({"Accept": "*/*"}, {"session": "x"}))
    assert "Kubernetes" in sentence
    assert "Token-Code" not in sentence
    assert ISSUER not in sentence


async def test_without_a_configured_login_every_call_is_refused() -> None:
    for request in (Sent(), Sent(LINKIS), bearer(jwt(iss=ISSUER)), bearer("x")):
        assert "no way to log in" in await refusal(Chain(), request)


@pytest.mark.parametrize(
    ("configured", "request_", "says"),
    [
        (("oidc", "kubernetes"), Sent(LINKIS), "Token-Code is no way"),
        (("tokens",), bearer(jwt(iss=ISSUER)), "Authorization is no way"),
        (("tokens",), bearer("x"), "Authorization is no way"),
        (("oidc",), bearer("x"), "not one that this gateway takes"),
        (("oidc",), bearer(jwt(iss="https://evil.example")), "not one that this gateway takes"),
    ],
)
async def test_credentials_of_a_login_that_is_not_configured_are_refused(
    configured: tuple[str, ...], request_: Sent, says: str
) -> None:
    sentence = await refusal(chain(*configured), request_)
    assert says in sentence
    assert "SECRET" not in sentence


async def test_a_bearer_token_counts_beside_linkis_tokens_that_are_not_configured() -> None:
    request = Sent({"Authorization": "Bearer x"}, LINKIS)
    assert await chain("kubernetes").authenticate(request) == Caller("kubernetes")


@pytest.mark.parametrize(
    "header", ["Basic YTpi", "Bearer", "Bearer a b", "Bearer " + "a" * (MAX_TOKEN + 1), "Bearer ä"]
)
async def test_a_malformed_bearer_token_is_refused_without_asking_an_authenticator(header: str) -> None:
    assert "Authorization" in await refusal(chain(*ALL), Sent({"Authorization": header}))


async def test_without_oidc_its_tokens_are_kubernetes_to_judge() -> None:
    assert await chain("kubernetes").authenticate(bearer(jwt(iss=ISSUER))) == Caller("kubernetes")
