"""What an engine's container runs: today an agent, with its environment, its port and its token. Pure."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

TOKEN_ENV = "ECM_TOKEN"  # noqa: S105 - a name


def with_token(pod: dict[str, Any], token: str) -> dict[str, Any]:
    """A copy of the pod with the engine's token where its agent reads it."""
    filled = deepcopy(pod)
    for variable in filled["spec"]["containers"][0]["env"]:
        if variable["name"] == TOKEN_ENV:
            variable["value"] = token
    return filled
