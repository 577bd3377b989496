"""The operator's settings, and what all have in common: defaults, bounds, one sentence for what cannot be used."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from linkis_ecm.controller.settings import OperatorSettings, SettingsError, from_environment
from linkis_ecm.gateway.settings import OidcSettings, Settings
from linkis_ecm.process.environment import MIB, SWITCH, described
from linkis_ecm.store.settings import DatabaseSettings
from tools import reference


@pytest.fixture
def base(tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32 + b"\n")
    return {
        "ECM_DATABASE_URL": "mysql+pymysql://ecm:hunter2@db/ecm", "ECM_INSTANCE": "ecm:9102",
        "ECM_REPORT_URL": "http://op:9103", "ECM_TOKEN_KEY_FILE": str(key), "ECM_ARCHIVE_URL": "file:///archive",
    }  # fmt: skip


def test_settings_that_are_not_set_have_their_default(base: dict[str, str]) -> None:
    found = from_environment(base | {"ECM_POD_NAME": "", "ECM_HEALTH_PORT": " "})
    assert (found.namespace, found.identity, found.watch_namespaces) == ("default", socket.gethostname(), ())
    assert (found.report_port, found.health_port, found.report_period) == (9103, 9104, 10.0)
    assert (found.archive_days, found.archive_file_max, found.archive_total) == (7, 1024 * MIB, 8192 * MIB)
    assert (found.engine_service, found.canary, found.log_level) == ("linkis-engines", True, "INFO")
    assert found.token_key.get_secret_value() == b"k" * 32


def test_settings_are_read_from_the_environment(base: dict[str, str]) -> None:
    found = from_environment(
        base
        | {
            "ECM_POD_NAMESPACE": "ecm", "ECM_POD_NAME": "op-1", "ECM_WATCH_NAMESPACES": "a, b,", "ECM_CANARY": "0",
            "ECM_ARCHIVE_FILE_MAX_MIB": "2", "ECM_REPORT_PERIOD": "5", "ECM_LOG_LEVEL": "debug",
        }
    )  # fmt: skip
    assert (found.namespace, found.identity, found.watch_namespaces) == ("ecm", "op-1", ("a", "b"))
    assert (found.canary, found.archive_file_max, found.report_period) == (False, 2 * MIB, 5.0)
    assert found.log_level == "DEBUG"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ECM_DATABASE_URL": ""}, "ECM_DATABASE_URL is not set: write a SQLAlchemy URL such as sqlite:"),
        ({"ECM_ARCHIVE_URL": " "}, "ECM_ARCHIVE_URL is not set: write an fsspec URL such as file:"),
        ({"ECM_REPORT_URL": "op:9103"}, "ECM_REPORT_URL is 'op:9103': write scheme, host and port only"),
        ({"ECM_REPORT_URL": "http://op:9103/x"}, "ECM_REPORT_URL is 'http://op:9103': write scheme"),
        ({"ECM_TOKEN_KEY_FILE": ""}, "ECM_TOKEN_KEY_FILE is not set: write the path"),
        ({"ECM_TOKEN_KEY_FILE": "/no/file"}, "ECM_TOKEN_KEY_FILE /no/file cannot be read"),
        ({"ECM_TOKEN_KEY_FILE": "/dev/null"}, "ECM_TOKEN_KEY_FILE /dev/null: the key has 0 bytes"),
        ({"ECM_HEALTH_PORT": "0"}, "ECM_HEALTH_PORT is '0': write a whole number from 1 to 65535"),
        ({"ECM_HEALTH_PORT": "9" * 5000}, "ECM_HEALTH_PORT is '999"),
        ({"ECM_HEALTH_PORT": "٩١"}, "ECM_HEALTH_PORT is '٩١': write a whole number"),
        ({"ECM_ARCHIVE_DAYS": "-1"}, "ECM_ARCHIVE_DAYS is '-1': write a whole number from 1 to 36500"),
        ({"ECM_CANARY": "yes"}, "ECM_CANARY is 'yes': write true or false"),
        ({"ECM_REPORT_URL": "https"}, "ECM_REPORT_URL is 'https': write scheme"),
        ({"ECM_REPORT_URL": "https://op:9103"}, "ECM_REPORT_URL is 'https://op:9103': write scheme"),
        ({"ECM_ENGINE_SERVICE": "Linkis_Engines"}, "ECM_ENGINE_SERVICE is 'Linkis_Engines': write a Service's name"),
        ({"ECM_POD_NAMESPACE": "A_b"}, "ECM_POD_NAMESPACE is 'A_b', which is no namespace"),
        ({"ECM_WATCH_NAMESPACES": "a,B"}, "ECM_WATCH_NAMESPACES holds 'B', which is no namespace"),
        ({"ECM_LOG_LEVEL": "loud"}, "ECM_LOG_LEVEL is 'loud': write DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(base: dict[str, str], changes: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        from_environment(base | changes)
    assert str(refusal.value).startswith(sentence)
    assert len(str(refusal.value)) < 400


def test_no_secret_is_shown(base: dict[str, str]) -> None:
    found = from_environment(base)
    for text in (repr(found), str(found), found.model_dump_json()):
        assert "hunter2" not in text
        assert "kkkk" not in text


def test_settings_do_not_change_and_take_no_unknown_name() -> None:
    settings = DatabaseSettings(database_url="sqlite://")
    with pytest.raises(ValidationError):
        settings.database_url = "sqlite:///other"  # type: ignore[misc, assignment]
    with pytest.raises(ValidationError):
        DatabaseSettings(database_url="sqlite://", other=1)


def test_the_process_s_own_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECM_LOG_LEVEL", "ERROR")
    monkeypatch.setenv("log_level", "ERROR")
    assert DatabaseSettings(database_url="sqlite://").log_level == "INFO"
    assert DatabaseSettings.read({"ECM_DATABASE_URL": "sqlite://"}).log_level == "INFO"


@pytest.mark.parametrize("settings", [OperatorSettings, Settings, OidcSettings])
def test_each_variable_says_what_it_means(settings: type) -> None:
    for variable in described(settings):
        assert variable.name.startswith("ECM_")
        assert variable.meaning.endswith("."), variable
        assert variable.default not in ("", "``"), variable


def test_one_variable_has_one_form_in_every_process() -> None:
    forms: dict[str, set[str]] = {}
    for found in reference.variables().values():
        for variable in found:
            forms.setdefault(variable.name, set()).add(variable.form)
    assert {name: form for name, form in forms.items() if len(form) > 1} == {}


def test_each_setting_in_the_manifest_is_described() -> None:
    manifest = (Path(__file__).parents[3] / "manifests" / "install.yaml").read_text()
    named = set(re.findall(r"name: (ECM_[A-Z_]+)", manifest))
    assert len(named) > 15
    assert named <= {variable.name for found in reference.variables().values() for variable in found}


@pytest.mark.parametrize(("text", "on"), [("1", True), ("0", False), ("true", True), ("false", False)])
def test_a_switch_is_read_alike_in_operator_and_gateway(text: str, on: bool) -> None:
    assert SWITCH.parse(text) is on


@pytest.mark.parametrize("text", ['"a,b"', "root;hadoop", "A_B", "a b", "-a", "'a'"])
def test_a_list_of_namespaces_is_refused_alike_in_operator_and_gateway(base: dict[str, str], text: str) -> None:
    for settings in (OperatorSettings, Settings):
        with pytest.raises(SettingsError, match=r"^ECM_WATCH_NAMESPACES holds .*, which is no namespace: write names"):
            settings.read(base | {"ECM_NAMESPACE": "ns", "ECM_WATCH_NAMESPACES": text})


@pytest.mark.parametrize(
    ("name", "text"),
    [("ECM_ADMINS", "root;hadoop"), ("ECM_ADMINS", '"root,hadoop"'), ("ECM_ADMINS", "root hadoop"),
     ("ECM_AUTH_AUDIENCES", "a;b"), ("ECM_NAMESPACE", "A_B"), ("ECM_NAMESPACE", "a,b")],
)  # fmt: skip
def test_a_list_with_other_separators_is_refused_by_the_gateway(base: dict[str, str], name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} "):
        Settings.read(base | {"ECM_NAMESPACE": "ns", name: text})


@pytest.mark.parametrize("command", ["operator", "gateway"])
def test_without_a_kubeconfig_a_process_says_so_in_a_sentence(
    base: dict[str, str], command: str, tmp_path: Path
) -> None:
    changes = {
        "ECM_NAMESPACE": "ns", "KUBECONFIG": "/no/such/file", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
        "ECM_DATABASE_URL": f"sqlite:///{tmp_path}/ecm.sqlite3", "ECM_ARCHIVE_URL": f"file://{tmp_path}/archive",
        "PYTHONPATH": ":".join(sys.path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "linkis_ecm", command],
        env=base | changes, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "no kubeconfig at /no/such/file: set KUBECONFIG" in done.stderr
    assert "Traceback" not in done.stderr
