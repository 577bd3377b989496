"""Settings that operator and gateway share: one form, no secret in a refusal, a word about misspelled names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.archive.bundles import Archive, ArchiveError
from linkis_ecm.controller.settings import from_environment
from linkis_ecm.gateway.settings import read_settings
from linkis_ecm.process.environment import SettingsError, shown_value
from linkis_ecm.process.forms import misspelled
from linkis_ecm.store.database import DatabaseError, open_engine, parse_url, unreachable
from tools import reference

SECRET = "hunter2-word"


@pytest.fixture
def base(tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    return {
        "ECM_DATABASE_URL": "sqlite://", "ECM_INSTANCE": "ecm:9102", "ECM_REPORT_URL": "http://op:9103",
        "ECM_TOKEN_KEY_FILE": str(key), "ECM_ARCHIVE_URL": "file:///archive", "ECM_NAMESPACE": "linkis",
    }  # fmt: skip


PROCESSES: list[Callable[[Mapping[str, str]], Any]] = [from_environment, read_settings]


@pytest.mark.parametrize("read", PROCESSES, ids=["operator", "gateway"])
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ECM_WATCH_NAMESPACES", ",", "ECM_WATCH_NAMESPACES holds no name"),
        ("ECM_WATCH_NAMESPACES", "Bad_NS", "ECM_WATCH_NAMESPACES holds 'Bad_NS', which is no namespace"),
        ("ECM_WATCH_NAMESPACES", "a;b", "ECM_WATCH_NAMESPACES holds 'a;b', which is no namespace"),
        ("ECM_INSTANCE", "ecm", "ECM_INSTANCE is 'ecm': write host:port"),
        ("ECM_INSTANCE", "ecm:0", "ECM_INSTANCE is 'ecm:0': write host:port"),
        ("ECM_INSTANCE", ":9102", "ECM_INSTANCE is ':9102': write host:port"),
        ("ECM_LOG_LEVEL", "loud", "ECM_LOG_LEVEL is 'loud'"),
    ],
)
def test_one_variable_is_refused_alike_by_both(
    base: dict[str, str], read: Callable[[Mapping[str, str]], Any], name: str, value: str, sentence: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        read(base | {name: value})
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ECM_NAMESPACE": "Bad_NS"}, "ECM_NAMESPACE is 'Bad_NS', which is no namespace"),
        ({"ECM_ADMINS": "a b"}, "ECM_ADMINS holds 'a b', which is no user name of Linkis"),
        ({"ECM_ADMINS": "root;hadoop"}, "ECM_ADMINS holds 'root;hadoop'"),
        ({"ECM_ADMINS": "a" * 257}, "ECM_ADMINS holds 'aaaa"),
        ({"ECM_OIDC_ISSUER": "https://i", "ECM_OIDC_AUDIENCE": "e", "ECM_OIDC_JWKS_URL": "zz"},
         "ECM_OIDC_JWKS_URL is 'zz': write a URL"),
        ({"ECM_OIDC_ISSUER": "https://", "ECM_OIDC_AUDIENCE": "e"}, "ECM_OIDC_ISSUER is 'https://': write a URL"),
        ({"ECM_OIDC_ISSUER": "https://i", "ECM_OIDC_AUDIENCE": "e", "ECM_OIDC_ADMIN_GROUP": "g"},
         "ECM_OIDC_ADMIN_GROUP is set and ECM_OIDC_GROUPS_CLAIM is not"),
    ],
)  # fmt: skip
def test_what_the_gateway_alone_reads_is_checked(base: dict[str, str], changes: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        read_settings(base | changes)
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("True", True), ("1", True), ("FALSE", False), ("0", False)]
)
def test_a_switch_has_one_form_in_every_process(base: dict[str, str], text: str, value: bool) -> None:
    assert from_environment(base | {"ECM_CANARY": text}).canary is value
    assert read_settings(base | {"ECM_AUTH_KUBERNETES": text}).kubernetes_auth is value


URLS = [
    f"ftp://u:{SECRET}@host/path", f"nope://u:{SECRET}@host", f"mysql+pymysql://u:{SECRET}@h:99999999/db",
    f"mysql+pymysql://u:{SECRET}@h:port/db", f"mysql+pymysql://u:a/{SECRET}@h/db", f"u:{SECRET}@host", f"s3://k:{SECRET}",
    f"https://host/{SECRET}", f"https://host?token={SECRET}", f"://u:{SECRET}@x", f"{SECRET}://@",
    f"mysql+pymysql://u:pw@127.0.0.1:1/x?ssl_key={SECRET}",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_a_refusal_shows_no_more_of_a_url_than_scheme_and_host(base: dict[str, str], url: str) -> None:
    """Whichever variable it was pasted into."""
    texts = []
    for read in PROCESSES:
        for found in reference.variables().values():
            for variable in found:
                if variable.name in ("ECM_TOKEN_KEY_FILE", "ECM_PREVIOUS_TOKEN_KEY_FILE"):
                    continue  # a path of a file is shown
                try:
                    read(base | {variable.name: url})
                except SettingsError as refusal:
                    texts.append(str(refusal))
    for use in (open_engine, Archive):
        try:
            use(url)
        except (DatabaseError, ArchiveError) as refusal:
            # A traceback would show the library's own words.
            texts += [str(refusal), str(refusal.__cause__)]
    assert len(texts) > 10
    masked = [text for text in texts if SECRET in text and not url.startswith(SECRET)]
    assert masked == []


def test_a_database_that_does_not_answer_is_named_by_scheme_and_host() -> None:
    url = parse_url(f"mysql+pymysql://ecm:{SECRET}@db:3306/ecm?ssl_key={SECRET}")
    text = str(unreachable(url, OSError("no route")))
    assert "mysql+pymysql://db:3306" in text
    assert SECRET not in text
    assert "sqlite:////data/x" in str(unreachable(parse_url("sqlite:////data/x"), OSError("no")))


@given(st.text(max_size=30), st.text(alphabet="abcXYZ09/:@?#%", min_size=1, max_size=30))
def test_a_password_is_never_shown(begin: str, password: str) -> None:
    secret = f"S3CRET{password}S3CRET"
    assert "S3CRET" not in shown_value(f"{begin}://user:{secret}@host/db")
    assert "S3CRET" not in shown_value(f"user:{secret}@host")


def test_misspelled_variables_are_named_with_the_nearest_name() -> None:
    known = {variable.name for found in reference.variables().values() for variable in found}
    given = {
        "ECM_NAMESPACES": "x", "ECM_DATABSE_URL": "x", "ECM_SOMETHING_QUITE_ELSE": "x", "PATH": "x",
        "ECM_ADMINS": "root", "ECM_GATEWAY_SERVICE_HOST": "10.0.0.1", "ECM_GATEWAY_PORT_9102_TCP_ADDR": "10.0.0.1",
        "ECM_OPERATOR_PORT": "tcp://10.0.0.1:9103",
    }  # fmt: skip
    assert misspelled(given, known) == [
        "ECM_DATABSE_URL is set and nothing reads it: did you mean ECM_DATABASE_URL?",
        "ECM_NAMESPACES is set and nothing reads it: did you mean ECM_NAMESPACE?",
        "ECM_SOMETHING_QUITE_ELSE is set and nothing reads it: docs/settings.md has all names",
    ]
