"""A part of a page that a program makes, between two marks. Must not know what it is about."""

from __future__ import annotations


def marks(name: str, maker: str) -> tuple[str, str]:
    """The comments before and behind a part; `maker` is the command that makes it."""
    return f"<!-- {name}: made by {maker} -->", f"<!-- end of {name} -->"


def part(page: str, name: str, maker: str) -> str:
    """What stands between the marks. Raises ValueError where the page has no such marks."""
    begin, end = marks(name, maker)
    _, found, rest = page.partition(f"{begin}\n")
    text, closed, _ = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no marks of {name}: {begin} and {end}")
    return text.removesuffix("\n")


def with_part(page: str, name: str, maker: str, text: str) -> str:
    """The page with that text between the marks. Raises ValueError as `part` does."""
    part(page, name, maker)
    begin, end = marks(name, maker)
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
