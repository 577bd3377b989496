"""Renders the chart into two files: `python -m tools.render manifests` writes install.yaml and catalogue.yaml there.

For those who install without Helm. The rendered files name a Secret that the reader makes (a secret in a public file is
none), so rendering twice gives the same text. The catalogue is a file of its own: kubectl looks up all kinds of a file
before it makes the first object, so one with a CRD and a resource of it fails on a new cluster.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import typer

from tools.cluster.tools import helm

ROOT = Path(__file__).parents[1]
NAMESPACE = "linkis-ecm"
HEAD = f"""\
# Rendered from helm/linkis-ecm by `make generate`; do not edit. Make the namespace's Secret, apply this file, then the
# catalogue; each object names its namespace, so no -n is needed:
#   kubectl create namespace {NAMESPACE}
#   kubectl create secret generic linkis-ecm-auth -n {NAMESPACE} \\
#     --from-literal=token-key="$(openssl rand -base64 48)" \\
#     --from-literal=tokens.json="{{\\"LINKIS-ECM-$(openssl rand -hex 16)\\": {{\\"users\\": [\\"*\\"]}}}}"
#   kubectl apply -f manifests/install.yaml
#   kubectl apply -f manifests/catalogue.yaml
---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
# The engines live in a namespace of their own, linkis-ecm-engines, which is made below.
"""
CATALOGUE_HEAD = """\
# Rendered from helm/linkis-ecm by `make generate`; do not edit. To be applied after install.yaml.
"""
_CATALOGUE = re.compile(r"^kind: EngineConnPlugin$", re.MULTILINE)


def render() -> str:
    """The text of install.yaml: all but the catalogue."""
    return HEAD + "".join(document for document in _documents() if not _CATALOGUE.search(document))


def catalogue() -> str:
    """The text of catalogue.yaml."""
    return CATALOGUE_HEAD + "".join(document for document in _documents() if _CATALOGUE.search(document))


def _documents() -> list[str]:
    """What Helm renders, one text for each object, with its `---` in front."""
    command = [
        *(str(helm()), "template", "linkis-ecm", str(ROOT / "helm/linkis-ecm"), "--namespace", NAMESPACE),
        *("--include-crds", "--no-hooks", "--set", "auth.existingSecret=linkis-ecm-auth"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return re.split(r"^(?=---\n)", done.stdout, flags=re.MULTILINE)


def main(folder: Path) -> None:
    """Writes both files into this folder."""
    for name, text in (("install.yaml", render()), ("catalogue.yaml", catalogue())):
        (folder / name).write_text(text)


if __name__ == "__main__":
    typer.run(main)
