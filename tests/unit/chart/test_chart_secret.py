"""The chart's Secret: made once, found again by upgrades and reinstalls, and never made where no cluster is asked.

Helm looks up at a small API server on loopback that knows namespaces and Secrets.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from linkis_ecm.model.agent_key import master_key
from tools.cluster.tools import helm

CHART = Path(__file__).parents[3] / "helm/linkis-ecm"
RESOURCES = {
    "kind": "APIResourceList", "groupVersion": "v1",
    "resources": [
        {"name": "namespaces", "singularName": "namespace", "namespaced": False, "kind": "Namespace", "verbs": ["get"]},
        {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret", "verbs": ["get"]},
    ],
}  # fmt: skip
OBJECTS = {
    "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": RESOURCES,
    "/api/v1/namespaces/default": {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}},
}
SECRET = "/api/v1/namespaces/ns/secrets/x-auth"
MISSING = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


@contextmanager
def api_server(objects: dict[str, Any]) -> Iterator[str]:
    """An API server with these objects by path; the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = objects.get(self.path.partition("?")[0])
            body = json.dumps(MISSING if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def rendered(tmp_path: Path, found: dict[str, Any] | None = None, *arguments: str) -> list[dict[str, Any]]:
    """What `helm install` or `upgrade` renders of the Secret's template in a cluster that has `found`."""
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True, exist_ok=True)
    helpers = [f"templates/{path.name}" for path in (CHART / "templates").glob("_*.tpl")]
    for name in ("Chart.yaml", "values.yaml", "values.schema.json", *helpers, "templates/secrets.yaml"):
        shutil.copy(CHART / name, chart / name)
    with api_server(OBJECTS | ({SECRET: found} if found is not None else {})) as address:
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": address}}], "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }  # fmt: skip
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        done = subprocess.run(
            [
                *(str(helm()), "template", "x", str(chart), "--namespace", "ns", "--dry-run=server"),
                *("--kubeconfig", str(tmp_path / "kubeconfig"), "--disable-openapi-validation"),
                *("--set", "persistence.enabled=false,archive.persistence.enabled=false", *arguments),
            ],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def in_cluster(made: dict[str, Any], **data: str) -> dict[str, Any]:
    return made | {"data": made["data"] | {name: base64.b64encode(v.encode()).decode() for name, v in data.items()}}


def test_an_install_makes_a_secret_that_an_uninstall_keeps(tmp_path: Path) -> None:
    (made,) = rendered(tmp_path)
    assert made["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert set(made["data"]) == {"token-key", "tokens.json"}
    assert master_key(base64.b64decode(made["data"]["token-key"]))
    (another,) = rendered(tmp_path)
    assert made["data"]["token-key"] != another["data"]["token-key"]


def test_no_revision_has_the_secret_so_a_rollback_leaves_a_rotated_key(tmp_path: Path) -> None:
    """A rollback to the revision that made it conflicted with the rotation (Helm 4), or undid it (Helm 3)."""
    (made,) = rendered(tmp_path)
    # A hook stands in no manifest; a rollback runs those of its own alone.
    assert made["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    # before-hook-creation, which counts without a policy, would delete a Secret that the chart has not seen.
    assert made["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "hook-failed"
    # All that an upgrade or a reinstall finds, rotated or not, is left alone.
    assert rendered(tmp_path, in_cluster(made, **{"token-key": "n" * 48, "previous-token-key": "k" * 48})) == []


def test_an_upgrade_and_a_reinstall_find_it_and_do_not_render_its_key(tmp_path: Path) -> None:
    (made,) = rendered(tmp_path)
    assert rendered(tmp_path, made) == []


def test_a_secret_from_before_is_kept_as_it_is_and_marked(tmp_path: Path) -> None:
    """Else Helm would delete it: what a new revision does not render goes, unless its annotation says keep."""
    (made,) = rendered(tmp_path)
    before = in_cluster(made, **{"previous-token-key": "k" * 48})
    helms = {"meta.helm.sh/release-name": "x", "meta.helm.sh/release-namespace": "ns"}
    before["metadata"] = made["metadata"] | {"annotations": helms}
    (after,) = rendered(tmp_path, before)
    assert after["data"] == before["data"]
    assert after["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_a_secret_of_ones_own_is_not_looked_up(tmp_path: Path) -> None:
    assert rendered(tmp_path, None, "--set", "auth.existingSecret=mine") == []


@pytest.mark.parametrize("more", [[], ["--api-versions", "v1/Secret"], ["--is-upgrade"]])
def test_without_a_cluster_the_chart_makes_no_key(more: list[str]) -> None:
    command = [str(helm()), "template", "x", str(CHART), "--namespace", "ns", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "auth.existingSecret is not set" in done.stderr


def test_rendering_twice_gives_the_same_text_and_no_key() -> None:
    command = [str(helm()), "template", "x", str(CHART), "--namespace", "ns", "--set", "auth.existingSecret=mine"]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout for _ in range(2)
    )
    assert first == second
    assert "kind: Secret\n" not in first


def test_a_rotation_mounts_both_keys_in_both_parts() -> None:
    def parts(*arguments: str) -> list[tuple[set[str], list[str]]]:
        command = [str(helm()), "template", "x", str(CHART), "--set", "auth.existingSecret=mine", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        found = []
        for document in yaml.safe_load_all(done.stdout):
            if document and document["kind"] == "Deployment":
                pod = document["spec"]["template"]["spec"]
                env = {one["name"] for container in pod["containers"] for one in container["env"]}
                (auth,) = [volume for volume in pod["volumes"] if volume["name"] == "auth"]
                found.append((env, [item["key"] for item in auth["secret"]["items"]]))
        return found

    rotating = parts("--set", "auth.previousTokenKey=true")
    assert len(rotating) == 2
    for env, keys in rotating:
        assert "ECM_PREVIOUS_TOKEN_KEY_FILE" in env
        assert {"token-key", "previous-token-key"} <= set(keys)
    for env, keys in parts():
        assert "ECM_PREVIOUS_TOKEN_KEY_FILE" not in env
        assert "previous-token-key" not in keys


def test_each_release_has_a_lease_of_its_own_and_a_right_to_it_alone() -> None:
    for release in ("linkis-ecm", "two"):
        command = [str(helm()), "template", release, str(CHART), "--set", "auth.existingSecret=mine"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        documents = [document for document in yaml.safe_load_all(done.stdout) if document]
        (role,) = [d for d in documents if d["kind"] == "Role" and d["metadata"]["name"] == f"{release}-lease"]
        named = [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule]
        env = {
            one["name"]: one.get("value")
            for d in documents if d["kind"] == "Deployment"
            for container in d["spec"]["template"]["spec"]["containers"]
            for one in container["env"]
        }  # fmt: skip
        assert named == [[f"{release}-operator"], [f"{release}-shards"]]
        assert env["ECM_LEASE_NAME"] == f"{release}-operator"
