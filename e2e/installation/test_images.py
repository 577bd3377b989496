"""What the images that ship hold, what is said of it, and that a signature is of this image and no other."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools import vendor
from tools.cluster import images, tools
from tools.cluster.progress import ClusterError
from tools.image import prune
from tools.supply import release, rootfs

pytestmark = [
    pytest.mark.cluster,
    # Reading the layers of one image takes 15 s of a core, listing its contents as much, and others go before it.
    pytest.mark.timeout(2700),
    pytest.mark.skipif(tools.backend() != "node", reason="the images of another's registry are not at hand as files"),
]
# Where the console's libraries are in an image.
VENDORED = "opt/venv/lib/python3.11/site-packages/linkis_ecm/gateway/pages/console/vendor/"


@dataclass(frozen=True)
class Shipped:
    """An image's folder, as `make sbom` and `make sign` leave it, and the key that it is signed by."""

    target: str
    folder: Path
    keys: release.Keys

    @property
    def archive(self) -> Path:
        return self.folder / release.ARCHIVE


@pytest.fixture(scope="module", params=images.TARGETS)
def shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    """Built, listed and signed by a key of this run."""
    target: str = request.param
    folder = tmp_path_factory.mktemp(target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COSIGN_PASSWORD", "of this run alone")
        tag = images.export(target, folder / release.ARCHIVE)
        base, archive = images.base_image()
        release.list_contents(folder, release.source(target, tag, base, archive, release.ROOT / images.PINS[target]))
        keys = release.Keys(folder / "cosign.key", folder / "cosign.pub")
        release.make_keys(keys)
        release.sign(folder, target, keys)
        yield Shipped(target, folder, keys)
    (folder / release.ARCHIVE).unlink()


@pytest.fixture(scope="module")
def held(shipped: Shipped) -> dict[str, bytes]:
    """dpkg's lists and the console's libraries, by path: read once, because reading takes 15 s."""
    # One list, and one for each package that was added to it.
    return rootfs.read(shipped.archive, re.compile(rf"var/lib/dpkg/status(\.d/[\w.+-]+)?|{VENDORED}.+"))


def test_an_image_has_no_installer_no_compiler_and_nothing_that_raises_rights(shipped: Shipped) -> None:
    files = rootfs.entries(shipped.archive)
    assert "opt/venv/bin/python" in files
    # A session installs packages by pip's modules, into its own volume.
    assert rootfs.faults(files, installs=shipped.target == "engine-python") == []


def test_openssl_finds_certificates(shipped: Shipped) -> None:
    files = rootfs.entries(shipped.archive)
    for name in ("usr/lib/ssl/certs", "usr/lib/ssl/cert.pem"):
        assert files[name].kind == "link"
    assert "etc/ssl/certs/ca-certificates.crt" in files


def test_its_contents_are_all_listed(shipped: Shipped, held: dict[str, bytes]) -> None:
    """Each Debian package of the image and each pin of its requirements, with their versions, in both lists."""
    written = [text for path, text in held.items() if path.startswith("var/lib/dpkg/")]
    stanzas = {name: one for text in written for name, one in prune.stanzas(text.decode()).items()}
    assert ("fonts-wqy-microhei" in stanzas) == (shipped.target == "engine-python")
    debian = {(name, one["Version"]) for name, one in stanzas.items()}
    pins = re.findall(r"^([\w.-]+)==(\S+)", (release.ROOT / images.PINS[shipped.target]).read_text(), re.MULTILINE)
    wanted = debian | {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in pins}
    assert len(debian) > 40
    spdx = json.loads((shipped.folder / release.SPDX).read_text())
    cyclonedx = json.loads((shipped.folder / release.CYCLONEDX).read_text())
    for found in (spdx["packages"], cyclonedx["components"]):
        versions = {
            (one["name"], one.get("version") or one.get("versionInfo"))
            for one in found
        } | {
            (re.sub(r"[-_.]+", "-", one["name"]).lower(), one.get("version") or one.get("versionInfo"))
            for one in found
        }  # fmt: skip
        assert wanted - versions == set()


def test_the_consoles_libraries_and_their_licences_are_there_and_listed(
    shipped: Shipped, held: dict[str, bytes]
) -> None:
    """What was copied into the source is no package of Debian's or pip's: its own package.json says what it is."""
    found = {
        path.removeprefix(VENDORED): hashlib.sha256(data).hexdigest()
        for path, data in held.items()
        if path.startswith(VENDORED)
    }
    packages = vendor.CONSOLE if shipped.target == "ecm" else ()
    assert found == {file.name: file.sha256 for package in packages for file in package.files}
    spdx = json.loads((shipped.folder / release.SPDX).read_text())
    by_name = {
        (one["name"], one["versionInfo"]): one["licenseDeclared"]
        for one in spdx["packages"]
        if any(ref["referenceLocator"].startswith("pkg:npm/") for ref in one.get("externalRefs", ()))
    }
    cyclonedx = json.loads((shipped.folder / release.CYCLONEDX).read_text())
    by_purl = {
        one["purl"]: [each["license"]["id"] for each in one["licenses"]]
        for one in cyclonedx["components"]
        if one.get("purl", "").startswith("pkg:npm/")
    }
    licences = {"preact": "MIT", "htm": "Apache-2.0", "uplot": "MIT"}
    assert by_name == {(package.name, package.version): licences[package.name] for package in packages}
    assert by_purl == {f"pkg:npm/{package.name}@{package.version}": [licences[package.name]] for package in packages}


def test_its_signatures_hold_and_name_its_digest(shipped: Shipped) -> None:
    assert release.verify(shipped.folder, shipped.keys) == rootfs.manifest(shipped.archive)[0]
    told = json.loads((shipped.folder / release.PROVENANCE).read_text())
    assert told["buildDefinition"]["internalParameters"]["tag"] == images.tag(shipped.target)


def test_an_altered_image_is_refused(shipped: Shipped) -> None:
    """One bit, in the middle of a layer."""
    middle = shipped.archive.stat().st_size // 2

    def flip() -> None:
        with shipped.archive.open("r+b") as file:
            file.seek(middle)
            (byte,) = file.read(1)
            file.seek(middle)
            file.write(bytes([byte ^ 1]))

    flip()
    try:
        with pytest.raises(ClusterError, match="cosign verify-blob"):
            release.verify(shipped.folder, shipped.keys)
        assert rootfs.broken_blobs(shipped.archive) != []
    finally:
        flip()
    release.verify(shipped.folder, shipped.keys)


@pytest.mark.parametrize("name", [release.PROVENANCE, release.SPDX, release.CYCLONEDX])
def test_an_altered_document_is_refused(shipped: Shipped, name: str) -> None:
    path = shipped.folder / name
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | {"added": True}))
    try:
        with pytest.raises(ClusterError, match=f"{name} is not what was signed"):
            release.verify(shipped.folder, shipped.keys)
    finally:
        path.write_text(text)


def test_another_key_and_another_images_statement_are_refused(shipped: Shipped, tmp_path: Path) -> None:
    other = release.Keys(tmp_path / "other.key", tmp_path / "other.pub")
    release.make_keys(other)
    with pytest.raises(ClusterError, match="cosign verify-blob"):
        release.verify(shipped.folder, other)
    # A statement of the right kind by the right key, in the place of another kind's.
    bundle = shipped.folder / "sbom.spdx.sigstore.json"
    text = bundle.read_text()
    bundle.write_text((shipped.folder / "provenance.sigstore.json").read_text())
    try:
        with pytest.raises(ClusterError, match="verify-blob-attestation"):
            release.verify(shipped.folder, shipped.keys)
    finally:
        bundle.write_text(text)
