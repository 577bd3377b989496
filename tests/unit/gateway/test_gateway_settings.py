"""The gateway's settings: defaults, and one sentence naming the variable for each value that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from linkis_ecm.gateway.settings import MIB, SettingsError, read_settings


@pytest.fixture
def base(tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    return {"ECM_NAMESPACE": "linkis", "ECM_TOKEN_KEY_FILE": str(key)}


def test_settings_that_are_not_set_are_closed_or_bounded(base: dict[str, str]) -> None:
    found = read_settings(base)
    assert (found.tokens_file, found.admins, found.kubernetes_auth, found.oidc) == ("", frozenset(), False, None)
    assert (found.max_requests, found.user_per_second, found.user_at_once) == (1000, 500, 100)
    assert found.instance == "localhost:9102"
    assert "kkkk" not in repr(found)


def test_settings_are_read_from_the_environment(base: dict[str, str]) -> None:
    found = read_settings(
        base
        | {
            "ECM_AUTH_KUBERNETES": "true",
            "ECM_AUTH_AUDIENCES": "ecm, linkis",
            "ECM_ADMINS": "root,",
            "ECM_OIDC_ISSUER": "https://issuer",
            "ECM_OIDC_AUDIENCE": "ecm",
            "ECM_OIDC_CA_FILE": "/ca.crt",
            "ECM_OIDC_TOKEN_FILE": "/token",
            "ECM_DOWNLOAD_LIMIT_MIB": "100",
        }
    )
    assert found.kubernetes_auth
    assert found.kubernetes_audiences == ("ecm", "linkis")
    assert found.admins == {"root"}
    assert found.oidc is not None
    assert (found.oidc.issuer, found.oidc.user_claim) == ("https://issuer", "preferred_username")
    assert (found.oidc.ca_file, found.oidc.token_file) == ("/ca.crt", "/token")
    assert found.max_download_bytes == 100 * MIB


def test_the_gateways_own_namespace_is_its_pods_else_that_of_engines(base: dict[str, str]) -> None:
    assert read_settings(base | {"ECM_POD_NAMESPACE": "ecm"}).own_namespace == "ecm"
    assert read_settings(base).own_namespace == "linkis"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"ECM_NAMESPACE": ""}, "ECM_NAMESPACE is empty"),
        ({"ECM_TRUSTED_PROXIES": "10.0.0.1/8"}, "ECM_TRUSTED_PROXIES holds '10.0.0.1/8', which is no network"),
        ({"ECM_TRUSTED_PROXIES": "ingress"}, "ECM_TRUSTED_PROXIES holds 'ingress', which is no network"),
        ({"ECM_FORWARDED_HEADER": "X-Real-IP"}, "ECM_FORWARDED_HEADER is 'X-Real-IP'"),
        ({"ECM_TOKEN_KEY_FILE": ""}, "ECM_TOKEN_KEY_FILE is empty"),
        ({"ECM_TOKEN_KEY_FILE": "/no/such/file"}, "ECM_TOKEN_KEY_FILE /no/such/file cannot be read"),
        ({"ECM_GATEWAY_PORT": "0"}, "ECM_GATEWAY_PORT is '0'"),
        ({"ECM_GATEWAY_USER_RATE": "fast"}, "ECM_GATEWAY_USER_RATE is 'fast'"),
        ({"ECM_AUTH_KUBERNETES": "yes"}, "ECM_AUTH_KUBERNETES is 'yes': write true or false"),
        ({"ECM_TLS_CERT_FILE": "/tls.crt"}, "ECM_TLS_KEY_FILE is empty: set it .* or leave ECM_TLS_CERT_FILE empty"),
        ({"ECM_TLS_KEY_FILE": "/tls.key"}, "ECM_TLS_CERT_FILE is empty: set it .* or leave ECM_TLS_KEY_FILE empty"),
        ({"ECM_TLS_MIN_VERSION": "1.1"}, "ECM_TLS_MIN_VERSION is '1.1': write 1.2 or 1.3"),
        ({"ECM_OIDC_ISSUER": "issuer"}, "ECM_OIDC_ISSUER is 'issuer'"),
        ({"ECM_OIDC_ISSUER": "https://issuer"}, "ECM_OIDC_AUDIENCE is empty"),
        (
            {"ECM_OIDC_ISSUER": "https://issuer", "ECM_OIDC_AUDIENCE": "linkis-ecm"},
            "ECM_OIDC_AUDIENCE has",
        ),
        (
            {"ECM_OIDC_ISSUER": "https://issuer", "ECM_OIDC_AUDIENCE": " linkis-ecm "},
            "ECM_OIDC_AUDIENCE has linkis-ecm",
        ),
        (
            {"ECM_AUTH_AUDIENCES": "linkis-ecm"},
            "ECM_AUTH_AUDIENCES has linkis-ecm, the audience",
        ),
        ({"ECM_AUTH_AUDIENCES": "https://api, linkis-ecm"}, "has linkis-ecm, .* take another"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(base: dict[str, str], changes: dict[str, str], names: str) -> None:
    with pytest.raises(SettingsError, match=names):
        read_settings(base | changes)
