"""What is installed: the client needs no more than its own packages, and the command says what it lacks."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
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
