"""What is installed: the client needs no more than its own packages, and the command says what it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {Requirement(one).name.replace("-", "_") for one in requirements}


def run(code: str, missing: set[str]) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that cannot import these packages."""
    imported = {"pyyaml": "yaml", "prometheus_client": "prometheus_client"}
    blocked = {imported.get(name, name) for name in missing}
    head = f"import sys\nfor name in {sorted(blocked)!r}: sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, timeout=120, check=False)


def test_the_client_alone_needs_httpx_and_pydantic() -> None:
    assert names(PROJECT["dependencies"]) == {"httpx", "pydantic"}
    done = run(
        "from linkis_ecm.client import EcmClient; EcmClient(url='http://127.0.0.1:1', bearer='b').close()",
        names(PROJECT["optional-dependencies"]["server"]),
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_says_which_extra_it_needs() -> None:
    assert PROJECT["scripts"] == {"linkis-ecm": "linkis_ecm.__main__:app"}
    done = run("import linkis_ecm.__main__", {"typer"})
    assert done.returncode == 1
    assert done.stderr.strip() == "linkis-ecm: typer is missing: pip install 'linkis-ecm[server]'"


def test_help_of_the_client_alone_says_what_is_missing() -> None:
    done = run("import runpy; sys.argv = ['linkis-ecm', '--help']; import linkis_ecm.__main__", {"typer"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "pip install 'linkis-ecm[server]'" in done.stdout


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("ECM_", "KUBE"))}
    return subprocess.run(
        [sys.executable, "-m", "linkis_ecm", *arguments], env=known | variables, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def test_help_is_for_users_and_the_version_is_told() -> None:
    helped = command("--help")
    assert helped.returncode == 0
    assert "Imports a part" not in helped.stdout, "that is for developers"
    for word in ("operator", "gateway", "migrate", "record", "ECM_", "--version"):
        assert word in helped.stdout
    told = command("--version")
    assert (told.returncode, told.stdout) == (0, f"linkis-ecm {PROJECT['version']}\n")


@pytest.mark.parametrize("process", ["operator", "gateway"])
@pytest.mark.parametrize(("kubeconfig", "says"), [(None, "no kubeconfig at"), ("apiVersion: [", "cannot be used")])
def test_without_a_cluster_one_sentence_and_exit_code_2(
    tmp_path: Path, process: str, kubeconfig: str | None, says: str
) -> None:
    key, config = tmp_path / "key", tmp_path / "config"
    key.write_bytes(b"k" * 32)
    if kubeconfig is not None:
        config.write_text(kubeconfig)
    done = command(
        process, ECM_TOKEN_KEY_FILE=str(key), ECM_DATABASE_URL=f"sqlite:///{tmp_path}/ecm.sqlite3", ECM_NAMESPACE="n",
        ECM_INSTANCE="ecm:9102", ECM_REPORT_URL="http://op:9103", ECM_ARCHIVE_URL=f"file://{tmp_path}/archive",
        KUBECONFIG=str(config), ECM_LOG_LEVEL="warning", ECM_ADMIN="root",
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    warning, sentence = done.stderr.splitlines()
    assert "ECM_ADMIN is set and nothing reads it: did you mean ECM_ADMINS?" in warning
    assert sentence.startswith("linkis-ecm: ")
    assert says in sentence


def test_the_servers_ranges_contain_what_is_pinned() -> None:
    """Otherwise `pip install '.[server]'` gives users something else than what the tests ran with."""
    text = (ROOT / "requirements" / "runtime.txt").read_text()
    pinned = {
        one.name.replace("_", "-"): next(iter(one.specifier)).version
        for line in text.splitlines()
        if "==" in line and (one := Requirement(line.split(" \\")[0]))
    }
    wanted = [Requirement(one) for one in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["server"]]
    outside = [str(one) for one in wanted if not one.specifier.contains(pinned[one.name.replace("_", "-")])]
    assert outside == []


def test_s3fs_and_fsspec_have_one_range() -> None:
    """Each s3fs requires the fsspec of its own version. Two different ranges let pip try every pair of the two, and
    with s3fs every aiobotocore besides: it gives up after its 200,000 steps."""
    ranges = {one.name: one.specifier for one in map(Requirement, PROJECT["optional-dependencies"]["server"])}
    assert ranges["s3fs"] == ranges["fsspec"]
    floors = [part for part in ranges["s3fs"] if part.operator == ">="]
    assert [len(part.version.split(".")) for part in floors] == [2], "the floor names year and month"
