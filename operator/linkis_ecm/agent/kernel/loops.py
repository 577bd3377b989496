"""Event loops of the user's own beside the kernel's, which runs already: `asyncio.run` as in a script. Runs in the
kernel.

asyncio refuses a second loop in a thread. Here the kernel's loop stands still while a task's code runs, so another one
may run in between. Must not change what a program does that never had the refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any


def allow_others(kernels: asyncio.AbstractEventLoop) -> None:
    """Let other loops run inside `kernels`, the kernel's own, and let it run itself until a future is done."""
    base: Any = asyncio.BaseEventLoop

    @contextlib.contextmanager
    def hidden() -> Iterator[None]:
        if asyncio._get_running_loop() is not kernels:
            yield
            return
        asyncio._set_running_loop(None)
        try:
            yield
        finally:
            asyncio._set_running_loop(kernels)
            asyncio.set_event_loop(kernels)

    def beside(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if args and args[0] is kernels:
                return function(*args, **kwargs)
            with hidden():
                return function(*args, **kwargs)

        return call

    asyncio.run = asyncio.runners.run = beside(asyncio.run)
    asyncio.Runner.run = beside(asyncio.Runner.run)  # type: ignore[method-assign]
    base.run_forever = beside(base.run_forever)
    whole = base.run_until_complete = beside(base.run_until_complete)

    def run_until_complete(future: Any) -> Any:
        return _run_inside(kernels, future) if kernels.is_running() else whole(kernels, future)

    kernels.run_until_complete = run_until_complete  # type: ignore[method-assign]


def _run_inside(loop: Any, future: Any) -> Any:
    """Run `loop`, which runs already and is inside one of its callbacks, until `future` is done; its result."""
    task = asyncio.ensure_future(future, loop=loop)
    current = asyncio.current_task(loop)
    # The callbacks that the outer turn of the loop has still to take, at most: it fails where it finds fewer.
    expected = len(loop._ready)
    if current is not None:
        asyncio.tasks._leave_task(loop, current)
    try:
        while not task.done():
            loop._run_once()
    except BaseException:
        task.cancel()
        raise
    finally:
        if current is not None:
            asyncio.tasks._enter_task(loop, current)
        for _ in range(expected):
            loop.call_soon(_nothing)
    return task.result()


def _nothing() -> None: ...
