"""An executor for tests in virtual time: no thread is started."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class AtOnce(ThreadPoolExecutor):
    """Calls "in a thread" are made at once: a real one takes real time, which virtual time would follow as it comes."""

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        made: Future[Any] = Future()
        try:
            made.set_result(fn(*arguments, **options))
        except Exception as error:
            made.set_exception(error)
        return made
