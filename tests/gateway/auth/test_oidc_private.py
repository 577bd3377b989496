"""A company's own issuer: its own authority's certificate, keys that are shown to no stranger, service accounts."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from aiohttp import web

from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.auth.oidc import KEYS_FRESH_SECONDS
from linkis_ecm.model.users import user_name
from tests.gateway.auth.issuer import OTHER, Issuer, Setup, ask, refusal, refused
from tools.cluster.pki import Authority


def serving(folder: Path) -> tuple[Authority, ssl.SSLContext]:
    """An authority, and a server's certificate of it."""
    authority = Authority(folder)
    pair = authority.issue("issuer", common_name="issuer", addresses=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    return authority, context


@pytest.fixture
def issuer_tls(tmp_path: Path) -> ssl.SSLContext:
    return serving(tmp_path / "pki")[1]


@pytest.fixture
def ca(tmp_path: Path) -> str:
    return str(tmp_path / "pki/ca.crt")


class TokenFile:
    """The file with the token for the issuer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.put("for-the-issuer\n")

    def __str__(self) -> str:
        return str(self.path)

    def put(self, token: str) -> None:
        self.path.write_text(token)

    def drop(self) -> None:
        self.path.unlink()


@pytest.fixture
def token_file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "token")


async def test_an_issuer_of_a_company_is_trusted_by_the_companys_authority_alone(
    setup: Setup, issuer: Issuer, ca: str, tmp_path: Path
) -> None:
    assert await ask(setup.new(ca_file=ca), issuer.token()) == Caller("alice")
    assert issuer.shown == [None, None], "no token is shown where none is set"
    assert (await refused(setup.new(), issuer.token())).http == 503
    Authority(tmp_path / "other")
    assert (await refused(setup.new(ca_file=str(tmp_path / "other/ca.crt")), issuer.token())).http == 503
    assert issuer.discoveries == 1


async def test_a_renewed_authority_counts_without_a_restart(
    setup: Setup, issuer: Issuer, ca: str, tmp_path: Path
) -> None:
    authenticator = setup.new(ca_file=ca)
    await ask(authenticator, issuer.token())
    await issuer.stop()
    renewed, issuer.tls = serving(tmp_path / "renewed")
    await issuer.start()
    issuer.keys = [OTHER.as_dict()]
    setup.ticks.now += KEYS_FRESH_SECONDS
    assert (await refused(authenticator, issuer.token(OTHER))).http == 503, "not trusted yet"
    renewed.pair.certificate.replace(ca)
    setup.ticks.now += KEYS_FRESH_SECONDS
    assert await ask(authenticator, issuer.token(OTHER)) == Caller("alice")


async def test_an_issuer_that_knows_its_askers_is_shown_the_token_as_the_file_has_it(
    setup: Setup, issuer: Issuer, ca: str, token_file: TokenFile
) -> None:
    authenticator = setup.new(ca_file=ca, token_file=str(token_file))
    await ask(authenticator, issuer.token())
    assert issuer.shown == ["Bearer for-the-issuer"] * 2
    token_file.put("the-next-one")
    setup.ticks.now += KEYS_FRESH_SECONDS
    await ask(authenticator, issuer.token())
    assert issuer.shown[2:] == ["Bearer the-next-one"] * 2


async def test_the_token_is_not_shown_where_only_the_document_sends_us(
    setup: Setup, issuer: Issuer, ca: str, token_file: TokenFile
) -> None:
    elsewhere = Issuer(issuer.tls)
    await elsewhere.start()
    try:
        issuer.discovery["jwks_uri"] = f"{elsewhere.origin}/keys"
        assert await ask(setup.new(ca_file=ca, token_file=str(token_file)), issuer.token()) == Caller("alice")
        assert (issuer.shown, elsewhere.shown) == (["Bearer for-the-issuer"], [None])
        named = setup.new(ca_file=ca, token_file=str(token_file), jwks_url=f"{elsewhere.origin}/keys")
        await ask(named, issuer.token())
        assert elsewhere.shown == [None, "Bearer for-the-issuer"], "who runs the gateway named it"
    finally:
        await elsewhere.stop()


async def test_a_token_file_that_is_gone_is_the_issuers_silence_and_is_not_logged(
    setup: Setup, issuer: Issuer, ca: str, token_file: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    authenticator = setup.new(ca_file=ca, token_file=str(token_file))
    token_file.drop()
    assert (await refused(authenticator, issuer.token())).http == 503
    token_file.put("for-the-issuer")
    issuer.answer = lambda: web.Response(status=401)
    setup.ticks.now += KEYS_FRESH_SECONDS
    assert (await refused(authenticator, issuer.token())).http == 503
    assert "answered with status 401" in caplog.text
    assert "for-the-issuer" not in caplog.text


async def test_files_that_cannot_be_used_are_named_at_the_start(
    setup: Setup, ca: str, token_file: TokenFile, tmp_path: Path
) -> None:
    for wrong in (str(tmp_path / "none"), str(token_file), str(tmp_path)):
        with pytest.raises(ValueError, match="ca_file"):
            setup.new(ca_file=wrong)
    with pytest.raises(ValueError, match="token_file"):
        setup.new(ca_file=ca, token_file=str(tmp_path / "none"))
    for option in ("issuer", "jwks_url"):
        with pytest.raises(ValueError, match="must not go in clear"):
            setup.new(ca_file=ca, token_file=str(token_file), **{option: "http://127.0.0.1/realm"})


async def test_a_service_account_is_the_same_user_as_by_its_kubernetes_token(
    setup: Setup, issuer: Issuer, ca: str
) -> None:
    authenticator = setup.new(ca_file=ca, user_claim="sub")
    name = "system:serviceaccount:data-team:report.runner"
    found = await ask(authenticator, issuer.token(sub=name))
    assert found.user == user_name(name)
    assert found.user.startswith("data_team.report.runner_")
    # Two that differ in what no Linkis user may have, and one whose name has to be cut.
    other = await ask(authenticator, issuer.token(sub="system:serviceaccount:data-team:report-runner"))
    long = await ask(authenticator, issuer.token(sub=f"system:serviceaccount:{'n' * 63}:{'a' * 253}"))
    assert len({found.user, other.user, long.user}) == 3
    assert len(long.user) <= 40


async def test_nobody_takes_the_name_that_a_service_account_is_mapped_to(setup: Setup, issuer: Issuer, ca: str) -> None:
    mapped = user_name("system:serviceaccount:data:reports")
    authenticator = setup.new(ca_file=ca, admins=frozenset({"alice"}))
    assert (await ask(authenticator, issuer.token(preferred_username=mapped))).user != mapped
    assert await ask(authenticator, issuer.token()) == Caller("alice", is_admin=True)
    for name in (
        "system:serviceaccount:a:b:c",
        "system:serviceaccount:A:b",
        "system:serviceaccount:a:",
        "system:node:n",
    ):
        assert "is no user name" in await refusal(authenticator, issuer.token(preferred_username=name))
