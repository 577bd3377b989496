"""A kernel that waits in a warm pool for its engine: imports what its plugin names, then takes the engine's variables.

Both are asked for over two pipes of the agent's own (`formats.member_requests`), which are closed before there is any
code of the user; so they are in no history and count as no execution. Runs in the kernel. Must not tell a value of the
environment to anybody.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from linkis_ecm.agent.formats.member_requests import read_member_request
from linkis_ecm.agent.kernel import packages
from linkis_ecm.agent.kernel.surroundings import move

# Of an error's text: some list all that they have tried.
_ERROR_CHARS = 500


class Member:
    """One kernel that waits; `requests` and `answers` are descriptors."""

    def __init__(self, kernel: Any, requests: int, answers: int) -> None:
        self._kernel = kernel
        self._requests = requests
        self._answers = answers
        # Variables that modules have set while they were imported: they stay, where the engine says nothing of them.
        self._set_by_modules: dict[str, str] = {}
        self._packages = packages.prepare(os.environ)

    def install(self) -> None:
        """Take requests from the kernel's start on."""
        for descriptor in (self._requests, self._answers):
            os.set_inheritable(descriptor, False)
        self._kernel.at_start = lambda loop: loop.add_reader(self._requests, self._on_request, loop)

    def _on_request(self, loop: Any) -> None:
        request = read_member_request(self._requests)
        if request is None:
            self._close(loop)
        elif "module" in request:
            self._preload(request["module"])
        else:
            self._answer(_error_of(lambda: self._move(request), values=False))
            self._close(loop)

    def _move(self, request: dict[str, Any]) -> None:
        move(
            self._kernel.shell, self._set_by_modules | request["environment"], request["folder"], self._packages
        )  # fmt: skip

    def _preload(self, name: str) -> None:
        before = dict(os.environ)
        error = _error_of(lambda: importlib.import_module(name))
        self._set_by_modules |= {name: value for name, value in os.environ.items() if before.get(name) != value}
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # What was loaded stays: later collections need not look at it.
        gc.collect()
        gc.freeze()
        self._answer(error)

    def _answer(self, error: str) -> None:
        os.write(self._answers, json.dumps(error).encode() + b"\n")

    def _close(self, loop: Any) -> None:
        loop.remove_reader(self._requests)
        os.close(self._requests)
        os.close(self._answers)


def _error_of(call: Callable[[], object], *, values: bool = True) -> str:
    """The error that `call` raises, in words; without its text where that may hold a value of the environment."""
    try:
        call()
    except BaseException as error:  # a module may call exit()
        name = type(error).__name__
        try:
            text = " ".join(str(error).split()) if values else getattr(error, "strerror", None) or ""
        except Exception:
            text = ""
        return (f"{name}: {text}" if text else name)[:_ERROR_CHARS]
    return ""
