"""The corpus of good and bad objects, shared by the unit tests and the tests on a real API server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def cases() -> list[dict[str, Any]]:
    """Every case of objects.yaml."""
    loaded: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "objects.yaml").read_text())
    return loaded
