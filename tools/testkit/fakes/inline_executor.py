"""An executor for tests in virtual time: no thread is started."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class InlineExecutor(ThreadPoolExecutor):
    """Runs each call at once: a thread takes real time, which a loop in virtual time does not wait for."""

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        made: Future[Any] = Future()
        try:
            made.set_result(fn(*arguments, **options))
        except Exception as error:
            made.set_exception(error)
        return made
