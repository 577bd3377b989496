"""The kernel process: ipykernel's own IPKernelApp, started without what no engine uses.

Left out, with what each costs at start on the machine of the benchmark: debugpy (0.25 s: it compiles itself), the
packages' `__init__` of jupyter_client and ipykernel (0.08 s), profile folders, configuration files and history on disk
(the root filesystem is read-only), extensions. Must import nothing that the user's code may want first: no pandas, no
matplotlib.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import os
import sys
import warnings
from typing import Any

from linkis_ecm.agent.host.parent_death import end_with
from linkis_ecm.agent.lean import lean_package


def _import_ipykernel() -> Any:
    """ipykernel's application class, with debugpy kept out of its boot and free for the user's code afterwards."""
    lean_package("jupyter_client", {"write_connection_file": "jupyter_client.connect"})
    lean_package("dateutil.parser", {"isoparse": "dateutil.parser.isoparser"})
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # "not installed", for this one import
    try:
        import ipykernel.debugger  # noqa: F401, PLC0415
    finally:
        del sys.modules["debugpy"]
    from ipykernel.kernelapp import IPKernelApp  # noqa: PLC0415

    return IPKernelApp


def _configured(config: Any) -> Any:
    config.HistoryManager.enabled = False
    config.IPKernelApp.exec_PYTHONSTARTUP = False
    # The agent reads the process's own file descriptors; a second reader inside would print everything twice.
    config.IPKernelApp.capture_fd_output = False
    config.IPKernelApp.outstream_class = "linkis_ecm.agent.kernel.output.streams.EngineOutStream"
    # Tracebacks go into JSON and log files, where escape sequences are noise.
    config.InteractiveShell.colors = "nocolor"
    return config


def main() -> None:
    """Serve the connection file named by the first argument until told to shut down; the second is the folder for
    results that are too big to be shown. With two more, descriptors of pipes, it waits for its engine (`member`)."""
    end_with(int(os.environ["JPY_PARENT_PID"]))
    # Imports make many objects and no garbage: 14 ms of collector for nothing.
    gc.disable()
    base = _import_ipykernel()
    # Below the lean packages, or they would load the whole ones.
    from traitlets import Type  # noqa: PLC0415
    from traitlets.config import Config  # noqa: PLC0415

    from linkis_ecm.agent.kernel import exits, nested, packages, surroundings  # noqa: PLC0415
    from linkis_ecm.agent.kernel.children import replace_system  # noqa: PLC0415
    from linkis_ecm.agent.kernel.forks import end_children_with_code  # noqa: PLC0415
    from linkis_ecm.agent.kernel.interrupts import EngineKernel, NoShellThread  # noqa: PLC0415
    from linkis_ecm.agent.kernel.output import bounds, journal, streams  # noqa: PLC0415
    from linkis_ecm.agent.kernel.shell import prepare, tell_errors_without_text  # noqa: PLC0415
    from linkis_ecm.agent.kernel.tables.display import register  # noqa: PLC0415
    from linkis_ecm.agent.kernel.tracebacks import bound_frames  # noqa: PLC0415

    class EngineKernelApp(base):  # type: ignore[misc, valid-type]
        """IPKernelApp without files, options and clients of its own."""

        shell_channel_thread: Any

        # A kernel is not its own client; the default would import all of jupyter_client (25 ms).
        blocking_class = Type(klass=object, default_value=object)

        def parse_command_line(self, argv: Any = None) -> None:
            """No options: an engine is configured by its resource."""

        def load_config_file(self, *_args: Any, **_kwargs: Any) -> None:
            """No configuration files, for the same reason."""

        def init_config_files(self) -> None:
            """Nothing to stage."""

        def init_pdb(self) -> None:
            """No debugger: a task has no standard input to talk to it (6 ms)."""

        def init_control(self, context: Any) -> None:
            """Without the thread that hands each request to the main thread (`NoShellThread`)."""
            super().init_control(context)
            self.shell_channel_thread.io_loop.close(all_fds=True)
            self.shell_channel_thread = NoShellThread()

        def init_iopub(self, context: Any) -> None:
            """Make a fast writer wait for the agent; by default messages above 1000 waiting ones are dropped."""
            context.setsockopt(bounds.XPUB_NODROP, 1)
            super().init_iopub(context)
            context.sockopts.pop(bounds.XPUB_NODROP)

        def write_connection_file(self, **_kwargs: Any) -> None:
            """The agent wrote it."""

        def log_connection_info(self) -> None:
            """Its only reader is the agent, which knows."""

    config = _configured(Config())
    connection_file, folder = sys.argv[1:3]
    pipes = [int(descriptor) for descriptor in sys.argv[3:5]]
    # As an interactive Python has it: code that reads its arguments finds none.
    sys.argv[:] = [""]
    app = EngineKernelApp.instance(
        config=config, default_extensions=[], connection_file=connection_file, kernel_class=EngineKernel
    )
    asked_for = dict(os.environ)
    app.initialize([])
    prepare(app.shell)
    # IPython drops the oldest of 1000 results then, as it should; said within a user's task, it looks like the task's.
    warnings.filterwarnings("ignore", message="Output cache limit", category=UserWarning)
    app.session.pack = bounds.bounded(app.session.pack)
    formatter = app.shell.display_formatter
    register(formatter, folder)
    # A display prints what goes wrong in it, an interrupted query too, and the next line would run.
    formatter.format = app.kernel.interrupts.reraising(formatter.format)
    nested.install(app.shell)
    exits.install(app.shell)
    tell_errors_without_text(app.shell)
    bound_frames(app.shell.InteractiveTB)
    end_children_with_code(app.shell, app.session)
    replace_system()
    streams.write_lines_at_once()
    journal.keep_messages(app.iopub_thread, os.path.dirname(connection_file))
    streams.flush_before_children(app.iopub_thread.linkis_buffer)
    # Behind the user's own exit handlers, and before ipykernel's, which ends the thread that sends.
    atexit.register(app.iopub_thread.linkis_buffer.end)
    surroundings.settle(asked_for)
    if pipes:
        from linkis_ecm.agent.kernel.member import Member  # noqa: PLC0415 - of a pool's kernel alone

        Member(app.kernel, *pipes).install()
    else:
        packages.enter(os.environ)
    packages.register_pip(app.shell)
    # A crash in C names the line that it came from: into the descriptor, which the agent reads when the kernel is gone.
    faulthandler.enable(file=2, all_threads=False)
    # What was loaded stays: later collections need not look at it.
    gc.freeze()
    gc.enable()
    app.start()
