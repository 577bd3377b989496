"""Gives a client's method the name, the parameters and the text of the function that makes its plan, so that both
clients have these from one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def as_method(method: F, maker: Callable[..., Any], *, drop: int = 0) -> F:
    """`method` with the maker's name and text, and its parameters after the first `drop`, behind `self`: help() and a
    notebook's completion show these."""
    parameters = list(inspect.signature(maker).parameters.values())[drop:]
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__name__ = maker.__name__
    method.__doc__ = maker.__doc__
    method.__signature__ = inspect.Signature([this, *parameters])  # type: ignore[attr-defined]
    return method
