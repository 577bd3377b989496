"""What is said of an image in provenance and statements, and which keys are taken.

Signatures: e2e/installation/test_images.py.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tools.cluster.progress import ClusterError
from tools.supply import release, rootfs

SOURCE = release.Source(
    target="ecm",
    tag="localhost/linkis-ecm/ecm:abc",
    repository="urn:linkis-ecm:source",
    commit="c" * 40,
    clean=True,
    builder="urn:linkis-ecm:make-sbom",
    base="localhost/base:1",
    materials={"b.txt": "2" * 64, "a.txt": "1" * 64},
)


def test_provenance_names_commit_base_and_materials() -> None:
    assert release.provenance(SOURCE) == {
        "buildDefinition": {
            "buildType": "urn:linkis-ecm:dockerfile:1",
            "externalParameters": {"target": "ecm", "base": "localhost/base:1"},
            "internalParameters": {"tag": "localhost/linkis-ecm/ecm:abc", "workTreeClean": True},
            "resolvedDependencies": [
                {"uri": "urn:linkis-ecm:source", "digest": {"gitCommit": "c" * 40}},
                {"name": "a.txt", "digest": {"sha256": "1" * 64}},
                {"name": "b.txt", "digest": {"sha256": "2" * 64}},
            ],
        },
        "runDetails": {"builder": {"id": "urn:linkis-ecm:make-sbom"}},
    }


def test_a_statement_is_about_the_archive_and_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfs, "manifest", lambda path: ("sha256:" + "d" * 64, {}))
    (tmp_path / release.ARCHIVE).write_bytes(b"image")
    (tmp_path / release.SPDX).write_text(json.dumps({"name": "x"}))
    assert release.statement(tmp_path, "ecm", release.SPDX) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "image.oci.tar", "digest": {"sha256": hashlib.sha256(b"image").hexdigest()}},
            {"name": "linkis-ecm/ecm", "digest": {"sha256": "d" * 64}},
        ],
        "predicateType": "https://spdx.dev/Document",
        "predicate": {"name": "x"},
    }


def test_what_a_checkout_says_of_a_build(tmp_path: Path) -> None:
    base = tmp_path / "base.tar"
    base.write_bytes(b"base")
    pins = release.ROOT / "requirements/runtime.txt"
    found = release.source("ecm", "x/ecm:1", "localhost/base:1", base, pins)
    assert len(found.commit) == 40
    assert found.materials == {
        "Dockerfile": release.sha256(release.ROOT / "Dockerfile"),
        "tools/image/prune.py": release.sha256(release.ROOT / "tools/image/prune.py"),
        "tools/image/fonts.py": release.sha256(release.ROOT / "tools/image/fonts.py"),
        "requirements/runtime.txt": release.sha256(pins),
        "base image of Debian packages, localhost/base:1": hashlib.sha256(b"base").hexdigest(),
    }


def test_keys_are_those_of_the_environment_else_of_the_users_settings(tmp_path: Path) -> None:
    home = tmp_path / "linkis-ecm"
    assert release.keys({"XDG_CONFIG_HOME": str(tmp_path)}) == release.Keys(home / "cosign.key", home / "cosign.pub")
    named = {"LINKIS_ECM_SIGNING_KEY": "/k/a.key"}
    assert release.keys(named) == release.Keys(Path("/k/a.key"), Path("/k/a.pub"))
    assert release.keys(named | {"LINKIS_ECM_VERIFY_KEY": "/p"}).public == Path("/p")


def test_a_key_in_the_checkout_is_refused(tmp_path: Path) -> None:
    inside = release.Keys(release.ROOT / "out/a.key", release.ROOT / "out/a.pub")
    for action in (lambda: release.make_keys(inside), lambda: release.sign(tmp_path, "ecm", inside)):
        with pytest.raises(ClusterError, match="is in the checkout"):
            action()
    link = tmp_path / "linked.key"
    link.symlink_to(inside.private)
    with pytest.raises(ClusterError, match="is in the checkout"):
        release.make_keys(release.Keys(link, link.with_suffix(".pub")))


def test_a_key_that_others_may_read_is_refused_and_one_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    pair = release.Keys(tmp_path / "a.key", tmp_path / "a.pub")
    with pytest.raises(ClusterError, match="there is no key"):
        release.sign(tmp_path, "ecm", pair)
    pair.private.write_text("x")
    pair.private.chmod(0o640)
    with pytest.raises(ClusterError, match="others may read"):
        release.sign(tmp_path, "ecm", pair)
    with pytest.raises(ClusterError, match="exists"):
        release.make_keys(pair)
    with pytest.raises(ClusterError, match="not named"):
        release.make_keys(release.Keys(tmp_path / "a.pem", tmp_path / "a.pub"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"there is no .*/ecm/image\.oci\.tar"):
        release.verify(tmp_path / "ecm", release.Keys(tmp_path / "a.key", tmp_path / "a.pub"))


def test_what_was_built_from_uncommitted_changes_is_not_signed(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="there is no"):
        release.require_clean(tmp_path)
    for clean in (True, False):
        (tmp_path / release.PROVENANCE).write_text(json.dumps(release.provenance(replace(SOURCE, clean=clean))))
        if clean:
            release.require_clean(tmp_path)
    with pytest.raises(ClusterError, match="uncommitted changes"):
        release.require_clean(tmp_path)
