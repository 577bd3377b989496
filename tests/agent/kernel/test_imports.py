"""What the agent loads: each import is paid at each engine's start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from linkis_ecm.agent.lean import lean_package


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_before_the_kernel_is_spawned_next_to_nothing_is_imported() -> None:
    # Not ctypes: the process is closed to the user's code before that can run, for 2 ms (agent.host.guard).
    heavy = {"asyncio", "json", "subprocess", "threading", "zmq", "h11", "socket", "logging"}
    bare = loaded_by("pass")
    assert (loaded_by("import linkis_ecm.agent.__main__") - bare) & heavy == set()


def test_the_agent_loads_no_more_of_its_packages_than_it_uses() -> None:
    names = loaded_by("import linkis_ecm.agent.app, linkis_ecm.agent.executors.ipython")
    assert "jupyter_client.session" in names
    refused = {"aiohttp", "pydantic", "IPython", "ipykernel", "jupyter_client.manager", "jupyter_client.client",
               "dateutil.parser._parser", "linkis_ecm.model", "yaml"}  # fmt: skip
    assert names & refused == set()


PACKAGE = {
    "__init__.py": "__version__ = '1.0'\nfrom .part import thing, part\nfrom .other import *\nwhole = True\n",
    "part.py": "from pack import other\nthing = 'thing'\nclass part: pass\n",
    "other.py": "import sys\nextra = 'extra'\n",
    "alone.py": "value = 1\n",
}


@pytest.mark.parametrize(
    "use",
    [
        "import pack.alone; assert pack.alone.value == 1; assert 'whole' not in vars(pack)",
        "import pack; assert pack.whole; assert pack.extra == 'extra'; assert isinstance(pack.part, type)",
        "from pack import whole, thing; assert whole and thing == 'thing'",
        "from pack import other; assert other.extra == 'extra'",
        "import pack; assert not hasattr(pack, 'nothing'); assert pack.whole",
        "import pack.alone, pack; assert pack.thing; assert pack.alone.value; assert '__getattr__' not in vars(pack)",
        "import pack; assert pack.__version__ == '1.0'",
        "from pack import *; assert whole and extra",
    ],
)
def test_a_lean_package_is_whole_for_whoever_asks(tmp_path: Path, use: str) -> None:
    for name, source in PACKAGE.items():
        path = tmp_path / "pack" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom linkis_ecm.agent.lean import lean_package\n"
    subprocess.run([sys.executable, "-c", f"{code}lean_package('pack')\n{use}"], check=True)


def test_an_early_import_of_a_name_does_not_hide_what_init_defines(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .part import part, thing\n")
    (folder / "part.py").write_text("thing = 'thing'\nclass part: pass\n")
    code = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "from linkis_ecm.agent.lean import lean_package\n"
        "lean_package('pack', {'thing': 'pack.part'})\n"
        "from pack import thing\nimport pack\n"
        "assert '__getattr__' in vars(pack)\n"
        "from pack import part\nassert isinstance(part, type)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_package_that_is_not_there_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError):
        lean_package("no_such_package_at_all")
