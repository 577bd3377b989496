"""The kernel process: ipykernel's own IPKernelApp, started without what no engine uses.

Left out, with what each costs at start on the machine of the benchmark: debugpy (0.25 s: it compiles itself), the
packages' `__init__` of jupyter_client and ipykernel (0.08 s), profile folders, configuration files and history on disk
(the root filesystem is read-only), extensions. Must import nothing that the user's code may want first: no pandas, no
matplotlib.
"""

from __future__ import annotations

import sys
from typing import Any

from linkis_ecm.agent.lean import lean_package


def _import_ipykernel() -> Any:
    """ipykernel's application class, with debugpy kept out of its boot and free for the user's code afterwards."""
    lean_package("jupyter_client", {"write_connection_file": "jupyter_client.connect"})
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # "not installed", for this one import
    try:
        import ipykernel.debugger  # noqa: F401, PLC0415
    finally:
        del sys.modules["debugpy"]
    from ipykernel.kernelapp import IPKernelApp  # noqa: PLC0415

    return IPKernelApp


def main() -> None:
    """Serve the connection file named by the first argument until told to shut down."""
    base = _import_ipykernel()
    # Below the lean package, or they would load the whole one.
    from traitlets.config import Config  # noqa: PLC0415

    from linkis_ecm.agent.tables import register  # noqa: PLC0415

    class EngineKernelApp(base):  # type: ignore[misc, valid-type]
        """IPKernelApp without files of its own."""

        def load_config_file(self, *_args: Any, **_kwargs: Any) -> None:
            """No configuration files: an engine is configured by its resource."""

        def init_config_files(self) -> None:
            """Nothing to stage."""

        def write_connection_file(self, **_kwargs: Any) -> None:
            """The agent wrote it."""

        def log_connection_info(self) -> None:
            """Its only reader is the agent, which knows."""

    config = Config()
    config.HistoryManager.enabled = False
    config.IPKernelApp.exec_PYTHONSTARTUP = False
    config.IPKernelApp.default_extensions = []
    # The agent reads the process's own file descriptors; a second reader inside would print everything twice.
    config.IPKernelApp.capture_fd_output = False
    # Tracebacks go into JSON and log files, where escape sequences are noise.
    config.InteractiveShell.colors = "nocolor"
    app = EngineKernelApp.instance(config=config)
    app.initialize(["-f", sys.argv[1]])
    register(app.shell.display_formatter)
    app.start()
