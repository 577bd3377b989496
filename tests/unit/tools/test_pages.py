"""The parts of pages that programs make."""

from __future__ import annotations

import pytest

from tools import pages

PAGE = "a\n<!-- x: made by make x -->\nold\n<!-- end of x -->\nb"


def test_a_part_takes_the_place_of_the_one_before() -> None:
    new = pages.with_part(PAGE, "x", "make x", "new\nlines")
    assert new == PAGE.replace("old", "new\nlines")
    assert pages.part(new, "x", "make x") == "new\nlines"
    assert pages.with_part(new, "x", "make x", "new\nlines") == new


def test_an_empty_part_can_be_filled() -> None:
    empty = PAGE.replace("old\n", "")
    assert pages.part(empty, "x", "make x") == ""
    assert pages.with_part(empty, "x", "make x", "old") == PAGE


@pytest.mark.parametrize(("name", "maker"), [("y", "make x"), ("x", "make y")])
def test_a_page_without_the_marks_is_refused(name: str, maker: str) -> None:
    with pytest.raises(ValueError, match=f"no marks of {name}: <!-- {name}: made by {maker} -->"):
        pages.with_part(PAGE, name, maker, "new")
