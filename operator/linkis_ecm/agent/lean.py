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
import threading
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
    early = dict(direct or {})
    # Held while `__init__` runs, so that another thread waits for the whole package; entered again by the same thread
    # where the package asks itself for a name that it has not defined yet.
    lock = threading.RLock()
    running = False

    def lookup(attribute: str) -> Any:
        nonlocal running
        # Import machinery and inspection probe for many dunders; these two are a user's.
        if attribute.startswith("__") and attribute not in ("__all__", "__version__"):
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        with lock:
            if attribute in early and not running:
                source = importlib.import_module(early[attribute])
                # Importing it bound it to its package. Where `__init__` defines that name otherwise (dateutil.parser's
                # isoparser is a class), the binding would hide it.
                module.__dict__.pop(early[attribute].rpartition(".")[2], None)
                return getattr(source, attribute)
            if attribute not in module.__dict__ and not running and "__getattr__" in module.__dict__:
                running = True
                try:
                    loader.exec_module(module)
                    del module.__dict__["__getattr__"]
                finally:
                    running = False
        if attribute not in module.__dict__:
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        return module.__dict__[attribute]

    module.__dict__["__getattr__"] = lookup
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(importlib.import_module(parent), child, module)
