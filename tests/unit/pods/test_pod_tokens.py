"""The token by which an agent proves its pod: what is taken, and what is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from linkis_ecm.controller.agents.pod_tokens import PodClaims, PodTokens, TokenError
from linkis_ecm.kube.client import Unreachable
from linkis_ecm.process.signing_keys import REFETCH_SECONDS, KeysUnavailableError

NOW = 1_800_000_000
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
STRANGER = ECKey.generate_key("P-256", {"kid": "ec"})
POD = {"namespace": "ns", "pod": {"name": "e-0", "uid": "pod-1"}}


class ApiServer:
    """Gives its keys, or nothing."""

    def __init__(self, *keys: Any) -> None:
        self.keys = list(keys)
        self.asked = 0
        self.away = False

    async def signing_keys(self, *, timeout: float) -> Mapping[str, Any]:
        assert timeout <= 5
        self.asked += 1
        if self.away:
            raise Unreachable("away")
        return {"keys": [key.as_dict(private=False) for key in self.keys] + [{"kty": "nonsense"}, {}]}


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def claims(**changes: Any) -> dict[str, Any]:
    found = {"aud": ["linkis-ecm"], "exp": NOW + 600, "iat": NOW, "kubernetes.io": POD} | changes
    return {name: value for name, value in found.items() if value is not None}


def token(key: Any = EC, *, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    algorithm = {"RSA": "RS256", "EC": "ES256", "oct": "HS256"}[key.key_type]
    return jwt.encode(
        {"alg": algorithm, "kid": key.kid} | dict(header or {}), claims(**changes), key, algorithms=[algorithm]
    )


def tokens(server: ApiServer, clock: Clock | None = None) -> PodTokens:
    return PodTokens(server, clock=lambda: NOW, monotonic=clock or Clock())


@pytest.mark.parametrize("key", [RSA, EC])
async def test_a_pods_own_token_says_which_pod_it_is(key: Any) -> None:
    assert await tokens(ApiServer(RSA, EC)).claims(token(key)) == PodClaims("ns", "e-0", "pod-1")


def unsigned(given: str) -> str:
    """The same claims without a signature."""
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "ec"}).encode()).rstrip(b"=").decode()
    return f"{header}.{given.split('.')[1]}."


@pytest.mark.parametrize(
    "given",
    [
        token(aud=["kubernetes"]),
        token(aud=None),
        token(exp=NOW - 120),
        token(exp=None),
        token(STRANGER),
        token(**{"kubernetes.io": None}),
        token(**{"kubernetes.io": {"namespace": "ns"}}),
        token(**{"kubernetes.io": {"namespace": "ns", "pod": {"name": "e-0"}}}),
        token(**{"kubernetes.io": {"namespace": "ns", "pod": "e-0"}}),
        token(**{"kubernetes.io": ["ns"]}),
        token(OctKey.import_key(json.dumps(EC.as_dict(private=False)), {"kid": "ec"})),
        unsigned(token()),
        token()[:-8] + "AAAAAAAA",
        "a.b.c",
        "..",
        "." * 9000,
        "e30.e30.e30",
        "x" * 20000,
        "[" * 3000 + ".e30.e30",
        base64.urlsafe_b64encode(b"[" * 9000).decode() + ".e30.e30",
    ],
)
async def test_any_other_token_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(TokenError) as refused:
        await tokens(ApiServer(RSA, EC)).claims(given)
    assert given not in str(refused.value)


async def test_the_keys_are_fetched_once_and_again_for_a_key_that_is_new() -> None:
    clock, server = Clock(), ApiServer(RSA)
    checked = tokens(server, clock)
    for _ in range(5):
        await checked.claims(token(RSA))
    assert server.asked == 1
    server.keys.append(EC)
    with pytest.raises(TokenError):
        await checked.claims(token(EC))
    assert server.asked == 1, "a stranger can name any key: not at once again"
    clock.now += REFETCH_SECONDS
    assert (await checked.claims(token(EC))).uid == "pod-1"
    assert server.asked == 2


async def test_without_keys_nothing_is_said_and_with_old_ones_work_goes_on() -> None:
    clock, server = Clock(), ApiServer(EC)
    server.away = True
    checked = tokens(server, clock)
    with pytest.raises(KeysUnavailableError):
        await checked.claims(token())
    server.away = False
    clock.now += REFETCH_SECONDS
    await checked.claims(token())
    server.away = True
    clock.now += 2 * 3600
    assert (await checked.claims(token())).name == "e-0"
    assert server.asked == 3
