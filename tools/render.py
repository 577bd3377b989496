"""Renders the chart into one file: `python -m tools.render manifests/install.yaml`.

For those who install without Helm. The rendered file names a Secret that the reader makes (a secret in a public file is
none), so rendering twice gives the same text.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.cluster.tools import helm

ROOT = Path(__file__).parents[1]
NAMESPACE = "linkis-ecm"
HEAD = f"""\
# Rendered from helm/linkis-ecm by `make generate`; do not edit. Before it is applied, make the namespace's Secret:
#   kubectl create namespace {NAMESPACE}
#   kubectl create secret generic linkis-ecm-auth -n {NAMESPACE} \\
#     --from-literal=token-key="$(openssl rand -base64 48)" \\
#     --from-literal=tokens.json="{{\\"LINKIS-ECM-$(openssl rand -hex 16)\\": {{\\"users\\": [\\"*\\"]}}}}"
---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
# The engines live in a namespace of their own, linkis-ecm-engines, which is made below.
"""


def render() -> str:
    """The text of the file."""
    command = [
        *(str(helm()), "template", "linkis-ecm", str(ROOT / "helm/linkis-ecm"), "--namespace", NAMESPACE),
        *("--include-crds", "--no-hooks", "--set", "auth.existingSecret=linkis-ecm-auth"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return HEAD + done.stdout


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render())
