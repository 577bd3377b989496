"""A folder has 16 modules at most, so that whoever looks for something sees what is there (CONTRIBUTING.md)."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[3]
MOST = 16


def crowded(paths: Iterable[str]) -> dict[str, int]:
    """The folders with more modules than that, and how many. A package's own `__init__.py` is not one of them."""
    modules = [PurePosixPath(path) for path in paths if path.endswith(".py") and not path.endswith("__init__.py")]
    counts = Counter(str(module.parent) for module in modules)
    return {folder: count for folder, count in counts.items() if count > MOST}


def test_no_folder_of_the_repository_has_more_modules_than_the_bound() -> None:
    # A new file counts before it is committed, too; what git ignores does not.
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.py")
    said = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    files = {path for path in said.split("\0") if path and (ROOT / path).is_file()}
    assert {PurePosixPath(path).parts[0] for path in files} >= {"operator", "tools", "tests", "bench", "e2e"}
    assert crowded(files) == {}, "group them by subject in subfolders"


def test_a_folder_with_one_module_too_many_is_named() -> None:
    full = [f"tools/{number}.py" for number in range(MOST)]
    others = ["tools/__init__.py", "tools/corpus.yaml", "tools/inner/one.py"]
    assert crowded(full + others) == {}
    assert crowded([*full, *others, "tools/more.py"]) == {"tools": MOST + 1}
