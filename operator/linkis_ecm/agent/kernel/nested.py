"""An error of code that code runs fails the task, as a script's error does. Runs in the kernel.

IPython shows the error of a file (`%run`), of a cell inside a cell (`%%capture`, `run_cell`) and of some magics (`%cd`,
`%%script`), and goes on with the next line. Here it is raised: behind the magic, which has done its work by then, or at
the call where the code itself made it. Must not change what a magic does that ends well.
"""

from __future__ import annotations

import functools
import os
import runpy
import sys
from collections.abc import Callable
from typing import Any

import ipykernel
import IPython
from IPython.core import interactiveshell

from linkis_ecm.agent.kernel.exits import exit_code

_IPYTHON = os.path.dirname(IPython.__file__) + os.sep
# Who runs a cell and looks at its result: ipykernel the task's own, IPython each one of a file.
_LOOKS_AT_RESULT = (os.path.dirname(ipykernel.__file__) + os.sep, interactiveshell.__file__)
# Their magics print an OSError and return. They are loaded when a magic of theirs is used.
_PRINTING = ("IPython.core.magics.osm", "IPython.core.magics.script")


class _Nested:
    """What runs inside the code of one shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._magics = 0  # how many run, one inside the other
        self._error: BaseException | None = None  # of what the innermost has run
        self._shown: BaseException | None = None

    def install(self) -> None:
        shell = self._shell
        shell.safe_execfile = self._raising_file(shell.safe_execfile)
        shell.safe_execfile_ipy = self._raising_file(shell.safe_execfile_ipy)
        shell.safe_run_module = self._run_module
        run_cell, find, show = shell.run_cell, shell._find_with_lazy_load, shell._showtraceback

        @functools.wraps(run_cell)
        def run_inner_cell(*args: Any, **kwargs: Any) -> Any:
            result = run_cell(*args, **kwargs)
            caller = sys._getframe(1).f_code.co_filename
            error = result.error_before_exec or result.error_in_exec
            if error is not None and not caller.startswith(_LOOKS_AT_RESULT):
                self._report(error, caller)
            return result

        def find_magic(kind: str, name: str) -> Any:
            function = find(kind, name)
            for module in _PRINTING:
                if module in sys.modules:
                    vars(sys.modules[module])["print"] = _print_or_raise
            return function and self._raising_magic(function)

        def show_once(kind: Any, value: Any, lines: list[str]) -> None:
            # An inner cell has shown its error already.
            if value is None or value is not self._shown:
                show(kind, value, lines)
            self._shown = value

        def forget() -> None:
            self._shown = None

        shell.run_cell, shell._find_with_lazy_load, shell._showtraceback = run_inner_cell, find_magic, show_once
        shell.events.register("pre_execute", forget)

    def _report(self, error: BaseException, caller: str) -> None:
        """Raise the error behind the magic that runs, if that has called; at once otherwise."""
        # "<string>" is how a profiler calls.
        if self._magics and (caller.startswith(_IPYTHON) or caller == "<string>"):
            self._error = self._error or error
        else:
            raise error

    def _raising_magic(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            outer, self._error = self._error, None
            self._magics += 1
            error = None
            try:
                result = function(*args, **kwargs)
            except KeyboardInterrupt:
                # The same, where it hit the file that ran: that one has the lines.
                error = self._error
                if not isinstance(error, KeyboardInterrupt):
                    raise
            else:
                error = self._error
            finally:
                self._magics -= 1
                self._error = outer
            if error is not None:
                raise error
            return result

        return call

    def _raising_file(self, execute: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(execute)
        def call(*args: Any, exit_ignore: bool = False, raise_exceptions: bool = False, **kwargs: Any) -> None:
            try:
                execute(*args, raise_exceptions=True, **kwargs)
            except BaseException as error:
                if raise_exceptions and not isinstance(error, SystemExit):
                    raise
                self._file_ended(error, sys._getframe(1).f_code.co_filename, exit_ignore=exit_ignore)

        return call

    def _run_module(self, name: str, where: dict[str, Any]) -> None:
        try:
            where.update(runpy.run_module(str(name), run_name="__main__", alter_sys=True))
        except BaseException as error:
            self._file_ended(error, sys._getframe(1).f_code.co_filename)

    def _file_ended(self, error: BaseException, caller: str, *, exit_ignore: bool = False) -> None:
        """A file that ends by exit code 0 has succeeded, and the code behind it goes on."""
        if not isinstance(error, SystemExit):
            self._report(error, caller)
        elif exit_code(error) and not exit_ignore:
            # exit() in a file ends the file's run, not the engine.
            self._report(SystemExit(error.code).with_traceback(error.__traceback__), caller)


def install(shell: Any) -> None:
    """Let this IPython shell raise the errors of what its code runs; before `exits.install`."""
    _Nested(shell).install()


def _print_or_raise(*args: Any, **kwargs: Any) -> None:
    """`print` of a magic that prints the OSError which it has just caught."""
    error = sys.exc_info()[1]
    caught = error.__traceback__ if isinstance(error, OSError) else None
    # Not one that the user's code handles while it calls the magic.
    if error is not None and caught is not None and caught.tb_frame is sys._getframe(1):
        raise error
    print(*args, **kwargs)  # noqa: T201 - the magic's own output
