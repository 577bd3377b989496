"""The test command runs every folder of tests."""

from __future__ import annotations

from tools.checks import FAST_FOLDERS, FOREIGN_FOLDERS, ROOT


def test_each_folder_of_tests_is_in_a_step() -> None:
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("*/test_*.py")}
    assert folders == {*FAST_FOLDERS, *FOREIGN_FOLDERS}
