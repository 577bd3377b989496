"""`python -m tools.cluster up|down|prepare|status|images|packages|binaries|exec|kubeconfig`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from tools.cluster import binaries as builds
from tools.cluster import node, tools
from tools.cluster import packages as debian
from tools.cluster.progress import ClusterError, console

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def _do(action: Callable[[], None]) -> None:
    try:
        action()
    except ClusterError as error:
        error.show()
        raise typer.Exit(1) from error


@app.command()
def up() -> None:
    """Starts the cluster; harmless where it runs."""
    _do(tools.up)
    console.print(f"the cluster is up ({tools.backend()}): export KUBECONFIG={tools.kubeconfig()}", soft_wrap=True)


@app.command()
def prepare() -> None:
    """Builds what `up` and `images` need, and starts nothing."""
    _do(tools.prepare)


@app.command()
def down() -> None:
    """Ends it and leaves nothing behind."""
    _do(tools.down)


@app.command()
def status(
    quiet: Annotated[bool, typer.Option("--quiet", help="Only the exit code: 0 where it is up.")] = False,
) -> None:
    """Whether it is up."""
    there = tools.is_up()
    if not quiet:
        console.print(f"{tools.backend()}: {'up' if there else 'down'}")
        if not there and tools.backend() == "node":
            console.print(f"not running: {', '.join(node.not_running()) or 'no part, but the node is not Ready'}")
    raise typer.Exit(0 if there else 1)


@app.command()
def images() -> None:
    """Builds and loads the product's images; prints their tags as JSON."""
    _do(lambda: print(json.dumps(tools.images())))


@app.command()
def packages(names: list[str]) -> None:
    """Installs Debian packages that are missing."""
    _do(lambda: debian.install(names))


@app.command()
def binaries(names: list[str]) -> None:
    """Builds binaries that neither the machine nor the cache has."""

    def build() -> None:
        for name in names:
            print(tools.helm() if name == "helm" else builds.build(name))

    _do(build)


@app.command()
def kubeconfig() -> None:
    """Prints the path of the cluster's kubeconfig."""
    _do(lambda: print(tools.kubeconfig()))


@app.command("exec", context_settings={"ignore_unknown_options": True})
def execute(command: list[str]) -> None:
    """Runs a command where it reaches pods and Services by their addresses."""
    sys.exit(subprocess.run(tools.in_cluster_network(command), check=False).returncode)


if __name__ == "__main__":
    app()
