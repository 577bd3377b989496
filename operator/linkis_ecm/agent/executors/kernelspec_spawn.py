"""Starts any Jupyter kernel by its kernelspec: argv, env, interrupt_mode, language.

`ECM_KERNEL_NAME` says which; it is looked up where Jupyter looks (jupyter_client's KernelSpecManager). Kernels know TCP
better than Unix sockets, so the channels are ports of the loopback interface, guarded by the connection's HMAC key.
Must not wait for the kernel.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

from jupyter_client.connect import write_connection_file
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from traitlets import TraitError

from linkis_ecm.agent.executors.registry import ExecutorError
from linkis_ecm.agent.executors.spawn import SpawnedKernel, kernel_environment, start_process
from linkis_ecm.agent.host import parent_death

SETTING = "ECM_KERNEL_NAME"
_PYTHONS = ("python", f"python{sys.version_info[0]}", "python{}.{}".format(*sys.version_info))


class SpecifiedKernel(SpawnedKernel):
    """A kernel process, and what its kernelspec says of it."""

    def __init__(
        self, *, pid: int, directory: str, key: str, stdout_fd: int, stderr_fd: int, ports: Mapping[str, int],
        name: str, language: str, by_message: bool,
    ) -> None:  # fmt: skip
        super().__init__(pid=pid, directory=directory, key=key, stdout_fd=stdout_fd, stderr_fd=stderr_fd)
        self._ports = ports
        self.name = name
        self.language = language
        # interrupt_mode: message, over the control channel; else SIGINT.
        self.by_message = by_message

    def url(self, channel: str) -> str:
        return f"tcp://127.0.0.1:{self._ports[channel]}"


def spawn_kernel(environment: Mapping[str, str]) -> SpecifiedKernel:
    """Start the kernel that ECM_KERNEL_NAME names. Raises ExecutorError."""
    name = environment.get(SETTING, "")
    spec = _spec_of(name)
    directory = tempfile.mkdtemp(prefix="ecm-")
    try:
        # The library's own default is an empty key: nothing is signed, and whoever reaches the ports runs code.
        path, connection = write_connection_file(
            f"{directory}/connection.json", ip="127.0.0.1", key=os.urandom(32).hex().encode(), kernel_name=name
        )
        replaced = {"connection_file": path, "resource_dir": spec.resource_dir, "prefix": sys.prefix}
        argv = [_filled(word, replaced) for word in spec.argv]
        kept = kernel_environment(environment, directory)
        # As Jupyter does: a variable of the spec may name one of the process's.
        kept |= {key: Template(value).safe_substitute(kept) for key, value in spec.env.items()}
        # As Jupyter does: a kernelspec that runs "python" means the interpreter that found it.
        program = sys.executable if argv[0] in _PYTHONS else shutil.which(argv[0], path=kept.get("PATH"))
        if program is None:
            raise ExecutorError(f"{SETTING} {name!r}: its kernelspec runs {argv[0]!r}, which is not in this image")
        # By way of a script, since a foreign program does not watch its parent. That costs a start of the interpreter
        # without site-packages: a tenth of what the agent's own imports take meanwhile.
        wrapper = [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), program]
        pid, out, err = start_process(sys.executable, [*wrapper, program, *argv[1:]], kept)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    ports = {channel: int(connection[f"{channel}_port"]) for channel in ("shell", "iopub", "stdin", "control", "hb")}
    return SpecifiedKernel(
        pid=pid, directory=directory, key=str(connection["key"]), stdout_fd=out, stderr_fd=err, ports=ports,
        name=name, language=(spec.language or name).lower(), by_message=spec.interrupt_mode == "message",
    )  # fmt: skip


def _spec_of(name: str) -> KernelSpec:
    manager = KernelSpecManager(ensure_native_kernel=False)
    try:
        if name:
            return _checked(manager.get_kernel_spec(name))
    except NoSuchKernel:
        pass
    except (OSError, ValueError, TypeError, TraitError) as error:
        raise ExecutorError(f"{SETTING} {name!r}: its kernel.json cannot be read: {error}") from None
    known = ", ".join(sorted(manager.find_kernel_specs())) or "none"
    raise ExecutorError(f"{SETTING} is {name!r}, which is no kernel of this image; there are: {known}")


def _checked(spec: KernelSpec) -> KernelSpec:
    """Raises ValueError where the file lacks what is needed, or has something else in its place."""
    # As the file has it: a text would become a list of its characters.
    written = json.loads(Path(spec.resource_dir, "kernel.json").read_bytes())
    if not isinstance(written.get("argv"), list):
        raise ValueError("argv must be a list of at least one text")
    if not spec.argv or not all(isinstance(word, str) for word in spec.argv):
        raise ValueError("argv must be a list of at least one text")
    if not all(isinstance(value, str) for value in spec.env.values()):
        raise ValueError("env must map names to texts")
    return spec


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word
