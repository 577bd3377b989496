"""Makes methods of recipes, so that both clients have the same names, parameters and texts from one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def as_method(method: F, recipe: Callable[..., Any], *, drop: int = 0) -> F:
    """`method` with the recipe's name and text, and its parameters but for the first `drop`, behind `self`: what help()
    and a notebook's completion see."""
    parameters = list(inspect.signature(recipe).parameters.values())[drop:]
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__name__ = recipe.__name__
    method.__doc__ = recipe.__doc__
    method.__signature__ = inspect.Signature([this, *parameters])  # type: ignore[attr-defined]
    return method
