"""exit() and sys.exit() in the kernel end the code as they end a script. Runs in the kernel.

Python's own rule (its manual, SystemExit): None and 0 are a success; another number is the exit code, of which a
process has the lowest eight bits; anything else is printed to stderr, and the code is 1. IPython counts each
SystemExit as an error, and exit() neither raises nor looks at what it was given. Must not end the kernel: the agent
does, when the reply tells it that exit() was called.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from IPython.core.autocall import ZMQExitAutocall

# What a C long holds: Python takes a number beyond it for -1.
_LONG = 1 << 63


# Of an error that exit() or quit() raised: it ends the engine, too, where sys.exit() ends the task alone.
_MARK = "ends_the_engine"


class _Exit(ZMQExitAutocall):  # type: ignore[misc]
    """`exit` and `quit`, also without brackets, as IPython has them."""

    def __call__(self, code: object = None) -> None:
        error = SystemExit(code)
        setattr(error, _MARK, True)
        raise error


def exit_code(error: SystemExit) -> int:
    """The exit code of a process that ends with this error, 0 to 255."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return (code if -_LONG <= code < _LONG else -1) & 0xFF
    return 1


def install(shell: Any) -> None:
    """Let this IPython shell end its code by Python's rule, and say in the reply's payload how it ended."""
    run_code, show = shell.run_code, shell.showtraceback
    depth = 0

    async def run_code_to_exit(code_obj: Any, result: Any = None, **options: Any) -> bool:
        nonlocal depth
        depth += 1
        try:
            failed = bool(await run_code(code_obj, result, **options))
        finally:
            depth -= 1
        error = getattr(result, "error_in_exec", None)
        # Of code that code runs, `nested` raises it: the outermost says how the task ends.
        if not isinstance(error, SystemExit) or depth:
            return failed
        code = exit_code(error)
        if code == 0:
            result.error_in_exec = None
        source = "ask_exit" if hasattr(error, _MARK) else "exit"
        shell.payload_manager.write_payload({"source": source, "keepkernel": False, "exitCode": code})
        # The statements after it are not run.
        return True

    def show_but_a_success(*args: Any, **options: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, SystemExit) and not args and "exc_tuple" not in options:
            code = exit_code(error)
            if code == 0:
                return
            if not isinstance(error.code, int):
                _print_text(error.code)
        show(*args, **options)

    shell.run_code, shell.showtraceback = run_code_to_exit, show_but_a_success
    # A module that calls exit() finds it among the builtins, where IPython hides it.
    leave = _Exit(shell)
    shell.exiter = leave
    for name in ("exit", "quit"):
        shell.user_ns[name] = shell.user_ns_hidden[name] = leave
        shell.builtin_trap.auto_builtins[name] = leave
    warnings.filterwarnings("ignore", message="To exit: use 'exit', 'quit', or Ctrl-D", category=UserWarning)


def _print_text(code: object) -> None:
    try:
        text = str(code)
    except Exception:  # Python prints nothing then
        text = ""
    print(text, file=sys.stderr)  # noqa: T201 - as Python does
