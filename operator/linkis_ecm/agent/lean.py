"""Imports a package's modules without running the package's own `__init__`, which imports far more.

`import jupyter_client.session` first runs `jupyter_client/__init__.py`, which imports every client and manager there
is: 80 ms at each engine's start for classes that neither agent nor kernel uses. A lean package is the real module with
its `__init__` put off until somebody asks it for a name that its `__init__` would have defined; users who import the
package in their code get all of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def lean_package(name: str, direct: Mapping[str, str] | None = None) -> None:
    """Put off the `__init__` of package `name`; `direct` says which module of it defines a name asked for early."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    loader = spec.loader
    module: ModuleType = importlib.util.module_from_spec(spec)

    def lookup(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        if direct is not None and attribute in direct:
            return getattr(importlib.import_module(direct[attribute]), attribute)
        if module.__dict__.pop("__getattr__", None) is not None:
            loader.exec_module(module)
        return getattr(module, attribute)

    module.__dict__["__getattr__"] = lookup
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(importlib.import_module(parent), child, module)
