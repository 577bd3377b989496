"""What IPython's shell and its environment are like in an engine, where nobody sits at a terminal.

Runs in the kernel. Must not import what the user's code may want first.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any

from ipykernel import ipkernel

from linkis_ecm.agent.kernel.tracebacks import without_own_frames

# What ipykernel sets so that programs print colours; outputs are shown without.
_COLOURS = ("CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR")
# Python's own words.
_NO_TEXT = "<exception str() failed>"


def prepare(shell: Any) -> None:
    """Once ipykernel is set up."""
    _remember_parameters()

    def forget_last_error() -> None:
        """A reply tells the last traceback; where none was shown, it would be an earlier task's, or the attribute is
        missing and there is no reply."""
        shell._last_traceback = None

    shell.events.register("pre_execute", forget_last_error)

    def format_for_storage(error: BaseException, *_: Any, **_options: Any) -> dict[str, Any]:
        """IPython makes each traceback a second time, for %notebook, in 0.1 to 1 s, and fails where the error has no
        text: it gets the traceback that was shown."""
        name = type(error).__name__
        return {"ename": name, "evalue": "", "traceback": shell._last_traceback or []}

    shell._format_exception_for_storage = format_for_storage

    get_exc_info = shell._get_exc_info

    def exc_info_to_show(exc_tuple: Any = None) -> tuple[Any, Any, Any]:
        kind, value, trace = get_exc_info(exc_tuple)
        return kind, value, without_own_frames(trace)

    shell._get_exc_info = exc_info_to_show

    def show_group(_shell: Any, kind: Any, value: BaseException, trace: Any, **_options: Any) -> None:
        trace = without_own_frames(trace)
        # Without IPython's own frame, as its tracebacks are.
        lines = traceback.format_exception(kind, value, trace.tb_next or trace if trace is not None else None)
        shell._showtraceback(kind, value, [line.rstrip("\n") for line in lines])

    # IPython prints a group of exceptions and sends no error.
    shell.set_custom_exc((BaseExceptionGroup,), show_group)


def _remember_parameters() -> None:
    """ipykernel asks before each task which parameters a function of IPython's has, in 0.1 ms."""
    # Few: code may put a function of its own in the place of IPython's.
    remembered = lru_cache(maxsize=8)(ipkernel._accepts_parameters)
    ipkernel._accepts_parameters = lambda method, names: remembered(method, tuple(names))


def tell_errors_without_text(shell: Any) -> None:
    """Of an error whose __str__ fails, tell what Python tells, and not the error of that; outside of exits.install,
    which looks at the error itself."""
    run_code, show = shell.run_code, shell._showtraceback

    async def run_code_to_text(code_obj: Any, result: Any = None, **options: Any) -> bool:
        failed = bool(await run_code(code_obj, result, **options))
        error = getattr(result, "error_in_exec", None)
        if error is not None and _fails_to_text(error):
            # The reply has this one's class and text.
            result.error_in_exec = type(type(error).__name__, (Exception,), {})(_NO_TEXT)
        return failed

    def show_with_text(kind: Any, value: Any, lines: list[str]) -> None:
        if _fails_to_text(value):
            value, lines = _NO_TEXT, [*lines[:-1], f"{kind.__name__}: {_NO_TEXT}"]
        show(kind, value, lines)

    shell.run_code, shell._showtraceback = run_code_to_text, show_with_text


def _fails_to_text(error: object) -> bool:
    try:
        str(error)
    except Exception:
        return True
    return False


def ask_for_no_colours(environment: MutableMapping[str, str], asked_for: Mapping[str, str]) -> None:
    """Whatever the engine's own spec says of colours stays; `asked_for` is the environment before ipykernel's own."""
    for name in _COLOURS:
        environment.pop(name, None)
        if name in asked_for:
            environment[name] = asked_for[name]
    environment["TERM"] = asked_for.get("TERM") or "dumb"
    if not any(asked_for.get(name) for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        environment.setdefault("NO_COLOR", "1")
