"""Which JWTs of an issuer let whom in. What happens when its keys change or cannot be had is in test_oidc_keys.

The issuer is a real server on a loopback port; tokens are signed with real keys, by hand where no library would.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from typing import Any

import pytest

from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.auth.bearer import MAX_TOKEN
from linkis_ecm.gateway.auth.oidc import (
    LEEWAY_SECONDS,
)
from tests.gateway.auth.issuer import (
    AUDIENCE,
    EC,
    ED,
    NOW,
    OTHER,
    RSA,
    Issuer,
    Setup,
    ask,
    part,
    refusal,
)  # fmt: skip

# joserfc warns of RFC 9864's new names; issuers still write EdDSA.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")


async def test_a_token_of_the_issuer_lets_its_user_in(setup: Setup, issuer: Issuer) -> None:
    assert await ask(setup.new(), issuer.token()) == Caller("alice")


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (RSA, "RS512"), (RSA, "PS256"), (EC, "ES256"), (ED, "EdDSA"), (ED, "Ed25519")],
)
async def test_asymmetric_algorithms_count(setup: Setup, issuer: Issuer, key: Any, algorithm: str) -> None:
    issuer.keys = [RSA.as_dict(), EC.as_dict(), ED.as_dict()]
    assert await ask(setup.new(), issuer.token(key, algorithm)) == Caller("alice")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", "HS256", "RSA-OAEP", 7, None, ["RS256"]])
async def test_no_other_algorithm_counts(setup: Setup, issuer: Issuer, algorithm: Any) -> None:
    for signature in ("", part(b"signature")):
        token = f"{part({'alg': algorithm, 'kid': 'rsa'})}.{part(issuer.claims())}.{signature}"
        if signature:
            assert "algorithm" in await refusal(setup.new(), token)
        else:
            await refusal(setup.new(), token)
    assert issuer.fetches == 0


@pytest.mark.parametrize("form", ["pem", "der", "jwk"])
async def test_a_shared_secret_made_of_the_public_key_does_not_count(setup: Setup, issuer: Issuer, form: str) -> None:
    secret = {"pem": RSA.as_pem(), "der": RSA.as_der(), "jwk": json.dumps(RSA.as_dict()).encode()}[form]
    signed = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{part(issuer.claims())}"
    token = f"{signed}.{part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"
    assert "algorithm" in await refusal(setup.new(), token)


async def test_a_shared_secret_among_the_issuers_keys_does_not_count(setup: Setup, issuer: Issuer) -> None:
    issuer.keys = [{"kty": "oct", "k": part(b"secret" * 8), "kid": "rsa", "alg": "RS256"}]
    assert "does not have" in await refusal(setup.new(), issuer.token())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"exp": NOW - LEEWAY_SECONDS - 1}, "has expired"),
        ({"exp": NOW - LEEWAY_SECONDS}, "has expired"),
        ({"exp": None}, "no claim exp"),
        ({"exp": "tomorrow"}, "claim exp"),
        ({"exp": True}, "claim exp"),
        ({"nbf": NOW + LEEWAY_SECONDS + 1}, "not valid yet"),
        ({"iat": NOW + LEEWAY_SECONDS + 1}, "in the future"),
        ({"aud": "another"}, "audience linkis-ecm"),
        ({"aud": ["another", "linkis"]}, "audience linkis-ecm"),
        ({"aud": {"linkis-ecm": 1}}, "audience linkis-ecm"),
        ({"aud": []}, "audience linkis-ecm"),
        ({"aud": None}, "no claim aud"),
        ({"iss": "https://evil.example"}, "not from the issuer"),
        ({"iss": None}, "not from the issuer"),
        ({"iss": ["x"]}, "not from the issuer"),
        ({"preferred_username": None}, "no claim preferred_username"),
        ({"preferred_username": None, "sub": "alice", "email": "alice"}, "no claim preferred_username"),
        ({"preferred_username": "system:admin"}, "claim preferred_username is no user name"),
        ({"preferred_username": " alice"}, "claim preferred_username is no user name"),
        ({"preferred_username": "alice\n"}, "claim preferred_username is no user name"),
        ({"preferred_username": "a" * 257}, "claim preferred_username is no user name"),
        ({"preferred_username": ["alice"]}, "claim preferred_username is no user name"),
        ({"preferred_username": ""}, "claim preferred_username is no user name"),
    ],
)
async def test_a_claim_that_does_not_hold_is_named(
    setup: Setup, issuer: Issuer, changes: dict[str, Any], says: str
) -> None:
    assert says in await refusal(setup.new(), issuer.token(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - LEEWAY_SECONDS + 1},
        {"nbf": NOW + LEEWAY_SECONDS, "iat": NOW + LEEWAY_SECONDS},
        {"iat": None},
        {"aud": ["another", AUDIENCE]},
        {"groups": ["admins"]},
        {"header": {"nonce": "n", "typ": "at+jwt"}},
    ],
)
async def test_claims_in_the_form_of_other_issuers_are_accepted(
    setup: Setup, issuer: Issuer, changes: dict[str, Any]
) -> None:
    assert await ask(setup.new(), issuer.token(**changes)) == Caller("alice")


@pytest.mark.parametrize("audience", ["linkis-ecm", ["linkis-ecm"], ["people", "linkis-ecm"]])
async def test_the_token_by_which_an_engine_proves_its_pod_is_no_login(
    setup: Setup, issuer: Issuer, audience: str | list[str]
) -> None:
    authenticator = setup.new(audience="people" if "people" in audience else "linkis-ecm")

    def token(bound: Any, aud: str | list[str] = audience) -> str:
        claims: dict[str, Any] = {"aud": aud, "kubernetes.io": bound}
        return issuer.token(**claims)

    pod = {"namespace": "engines", "pod": {"name": "ec-1", "uid": "u"}, "serviceaccount": {"name": "default"}}
    assert "is an engine's, which proves its pod and is no login" in await refusal(authenticator, token(pod))
    # A pod of people's own, with a token for this gateway.
    assert await ask(setup.new(audience="people"), token(pod, "people"))
    others: list[Any] = [{"namespace": "a"}, "pod", ["pod"], None]
    for unbound in others:
        assert await ask(authenticator, token(unbound))


async def test_a_token_stops_to_count_while_its_keys_are_kept(setup: Setup, issuer: Issuer) -> None:
    authenticator, token = setup.new(), issuer.token()
    await ask(authenticator, token)
    setup.clock.now += 300 + LEEWAY_SECONDS
    assert "has expired" in await refusal(authenticator, token)


async def test_admins_are_named_or_in_the_admins_group(setup: Setup, issuer: Issuer) -> None:
    named = setup.new(admins=frozenset({"alice"}))
    assert (await ask(named, issuer.token())).is_admin
    assert not (await ask(named, issuer.token(preferred_username="bob"))).is_admin
    grouped = setup.new(groups_claim="groups", admin_group="ops")
    assert (await ask(grouped, issuer.token(groups=["dev", "ops"]))).is_admin
    for groups in (["dev"], "ops", "operators", {"ops": 1}, None, 7, [["ops"]]):
        assert not (await ask(grouped, issuer.token(groups=groups))).is_admin


async def test_groups_of_people_are_the_callers_and_kubernetes_own_are_not(setup: Setup, issuer: Issuer) -> None:
    grouped = setup.new(groups_claim="groups")
    token = issuer.token(groups=["dev", "system:masters", 7, "", "ops", "x" * 257])
    assert (await ask(grouped, token)).groups == {"dev", "ops"}
    assert not (await ask(grouped, issuer.token(groups=[""]))).is_admin, "without an admins' group nobody is in it"
    for groups in ("dev", {"dev": 1}, None):
        assert (await ask(grouped, issuer.token(groups=groups))).groups is None
    assert (await ask(setup.new(), token)).groups is None, "no claim is configured"


async def test_another_claim_can_name_the_user(setup: Setup, issuer: Issuer) -> None:
    assert await ask(setup.new(user_claim="uid"), issuer.token(uid="bob")) == Caller("bob")


async def test_a_changed_token_or_one_signed_by_another_does_not_count(setup: Setup, issuer: Issuer) -> None:
    authenticator = setup.new()
    header, claims, signature = issuer.token().split(".")
    assert "wrong signature" in await refusal(
        authenticator, f"{header}.{part(issuer.claims(preferred_username='root'))}.{signature}"
    )
    assert "wrong signature" in await refusal(authenticator, issuer.token(OTHER, header={"kid": "rsa"}))
    assert "wrong signature" in await refusal(authenticator, f"{header}.{claims}.{part(b'x' * 256)}")
    assert "wrong signature" in await refusal(authenticator, f"{header}.{claims}.")


async def test_a_key_that_the_token_brings_along_does_not_count(setup: Setup, issuer: Issuer) -> None:
    for header in (
        {"jwk": OTHER.as_dict(private=False)},
        {"jku": f"{issuer.origin}/evil"},
        {"x5u": f"{issuer.origin}/evil"},
    ):
        token = issuer.token(OTHER, header=header | {"kid": "rsa"})
        assert "wrong signature" in await refusal(setup.new(), token)


async def test_a_key_for_another_algorithm_or_use_does_not_count(setup: Setup, issuer: Issuer) -> None:
    issuer.keys = [RSA.as_dict() | {"use": "enc"}]
    assert "does not have" in await refusal(setup.new(), issuer.token())
    issuer.keys = [RSA.as_dict() | {"alg": "RS512"}]
    assert "does not have" in await refusal(setup.new(), issuer.token())
    issuer.keys = [EC.as_dict() | {"kid": "rsa"}]
    assert "does not have" in await refusal(setup.new(), issuer.token())


async def test_a_header_that_changes_what_is_signed_is_refused(setup: Setup, issuer: Issuer) -> None:
    for header in ({"crit": ["b64"], "b64": False}, {"crit": 7}, {"b64": True}, {"kid": 7}, {"kid": ["rsa"]}):
        token = f"{part({'alg': 'RS256', 'kid': 'rsa'} | header)}.{part(issuer.claims())}.{part(b'x' * 256)}"
        assert "header" in await refusal(setup.new(), token)


DEEP = b"[" * 10_000


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "a.b.c.d.e",
        "....",
        f"{part([])}.{part({})}.x",
        f"{part(b'{')}.{part({})}.x",
        f"{part(DEEP)}.{part({})}.x",
        f"{part({'alg': 'RS256', 'kid': 'rsa'})}.{part(DEEP)}.x",
        f"{part({'alg': 'RS256', 'kid': 'rsa'})}.{part(b'[' * 900 + b']' * 900)}.x",
        f"{part({'alg': 'RS256', 'kid': 'rsa'})}.{part(bytes(range(128, 256)))}.x",
        f"{part({'alg': 'RS256', 'kid': 'rsa'})}.!!!.x",
    ],
)
async def test_garbage_is_refused_and_nothing_is_fetched_for_it(setup: Setup, issuer: Issuer, token: str) -> None:
    await refusal(setup.new(), token)
    assert issuer.fetches == 0


async def test_garbage_that_names_the_issuer_is_refused(setup: Setup, issuer: Issuer) -> None:
    authenticator = setup.new()
    header, claims, signature = issuer.token().split(".")
    for token in (
        f"{header}={'.'}{claims}.{signature}",
        f"{header}.{claims}=.{signature}",
        f"{header}.{claims}.{signature}=",
        f"{header}.{claims}.{signature}{signature}",
        f"{part({'alg': 'RS256', 'kid': 'rsa', 'typ': 7})}.{claims}.{signature}",
        f"{part({'alg': 'RS256', 'kid': 'rsa', 'x5c': [['x']]})}.{claims}.{signature}",
    ):
        await refusal(authenticator, token)


async def test_signed_garbage_is_refused(setup: Setup, issuer: Issuer) -> None:
    from joserfc import jws

    # `iss` is read, but what follows it is what no JSON number may be.
    payload = json.dumps(issuer.claims()).replace(str(NOW + 300), "NaN")
    token = jws.serialize_compact({"alg": "RS256", "kid": "rsa"}, payload, RSA)
    assert "claim exp" in await refusal(setup.new(), token)


async def test_huge_tokens_are_refused_and_big_ones_are_not(setup: Setup, issuer: Issuer) -> None:
    authenticator = setup.new()
    assert await ask(authenticator, issuer.token(groups=["g" * 100] * 80)) == Caller("alice")
    assert await ask(authenticator, issuer.token(header={"x5c": ["c" * 2000] * 3})) == Caller("alice")
    sentence = await refusal(authenticator, issuer.token(groups=["g" * 100] * 200))
    assert f"more than {MAX_TOKEN}" in sentence


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"issuer": ""}, "issuer"),
        ({"audience": ""}, "audience"),
        ({"user_claim": ""}, "user_claim"),
        ({"issuer": "login.example.org"}, "issuer"),
        ({"jwks_url": "/keys"}, "jwks_url"),
        ({"admin_group": "ops"}, "groups_claim"),
    ],
)
async def test_settings_that_cannot_be_used_are_named(setup: Setup, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        setup.new(**options)


async def test_no_part_of_a_token_is_logged(setup: Setup, issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    authenticator = setup.new()
    tokens = [issuer.token(), issuer.token(OTHER), issuer.token(exp=1), issuer.token(preferred_username="a\tb")]
    await ask(authenticator, tokens[0])
    for token in tokens[1:]:
        await refusal(authenticator, token)
    assert "fetched 1 keys" in caplog.text
    assert not any(piece in caplog.text for token in tokens for piece in token.split("."))
