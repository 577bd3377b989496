"""Commands of the checkout as `python -m` runs them: many in one process, as imports are most of what each would cost.

A command that takes no notice of its arguments runs here, so all have a bound. Must not decide what one should answer.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
# Below the time that pytest gives a test: its own words say which command it was.
SECONDS = 150


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def commands(*folders: str) -> list[str]:
    """The modules there that are run by `python -m`."""
    found = []
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if '\nif __name__ == "__main__":' in file.read_text():
                module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
                found.append(module.removesuffix(".__main__"))
    return found


def answers(calls: Iterable[Sequence[str]]) -> dict[tuple[str, ...], Answer]:
    """What each of these commands answers; a call is the module and its arguments."""
    wanted = [tuple(call) for call in calls]
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}"}
    try:
        done = subprocess.run(
            [sys.executable, __file__], input=json.dumps(wanted), cwd=ROOT, env=env, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        said, err = done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        said, err = (late.stdout or b"").decode(), f"not over after {SECONDS} s"
    found = {call: Answer(*json.loads(line)) for call, line in zip(wanted, said.splitlines(), strict=False)}
    assert len(found) == len(wanted), f"python -m {' '.join(wanted[len(found)])} went on, or ended all: {err[-2000:]}"
    return found


def _answer(module: str, *arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    sys.argv = [module, *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code: object = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
            code = 1
    if code is not None and not isinstance(code, int):
        err.write(f"{code}\n")
        code = 1
    return code or 0, out.getvalue(), err.getvalue()


def _main() -> None:
    warnings.simplefilter("ignore")  # a module that another one has imported is run anew
    told = sys.stdout
    for call in json.load(sys.stdin):
        print(json.dumps(_answer(*call)), file=told, flush=True)


if __name__ == "__main__":
    # As for `python -m`: not this file's folder comes first.
    sys.path[0] = str(ROOT)
    _main()
