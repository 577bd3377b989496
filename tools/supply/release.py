"""What goes with an image that ships: its contents (SPDX, CycloneDX), its provenance, and signatures.

A folder per image: the image as an OCI archive, `sbom.*.json`, `provenance.json`, and a `*.sigstore.json` for each.
Contents are listed by syft, signatures are cosign's, with a key of one's own; neither reaches for a network.
Must not build images: they are exported by the cluster tool.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.cluster import binaries
from tools.cluster.progress import ClusterError, run
from tools.supply import rootfs

ROOT = Path(__file__).parents[2]
ARCHIVE = "image.oci.tar"
# Predicate types, and the file of each.
PROVENANCE, SPDX, CYCLONEDX = "provenance.json", "sbom.spdx.json", "sbom.cdx.json"
_TYPES = {
    PROVENANCE: ("slsaprovenance1", "https://slsa.dev/provenance/v1"),
    SPDX: ("spdxjson", "https://spdx.dev/Document"),
    CYCLONEDX: ("cyclonedx", "https://cyclonedx.org/bom"),
}
# docs/security/supply-chain.md says what its parameters mean. No host: the project has no address of its own yet.
BUILD_TYPE = "urn:linkis-ecm:dockerfile:1"
# No service of sigstore's is asked: an empty list of them, and no root of trust but the key.
_SIGNING = {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"}
_TRUSTED = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}


@dataclass(frozen=True)
class Source:
    """What an image was built from: digests are SHA-256 in hexadecimal, by name."""

    target: str
    tag: str
    repository: str
    commit: str
    clean: bool  # the work tree was as the commit
    builder: str
    base: str
    materials: Mapping[str, str]


@dataclass(frozen=True)
class Keys:
    """The two files of cosign's key pair."""

    private: Path
    public: Path


def keys(environment: Mapping[str, str] = os.environ) -> Keys:
    """LINKIS_ECM_SIGNING_KEY and LINKIS_ECM_VERIFY_KEY, else cosign.key and cosign.pub of the user's settings."""
    home = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "linkis-ecm"
    private = Path(environment.get("LINKIS_ECM_SIGNING_KEY") or home / "cosign.key")
    return Keys(private, Path(environment.get("LINKIS_ECM_VERIFY_KEY") or private.with_suffix(".pub")))


def sha256(path: Path) -> str:
    """A file's digest in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def provenance(source: Source) -> dict[str, Any]:
    """SLSA's provenance v1, without its envelope."""
    repository = {"uri": source.repository, "digest": {"gitCommit": source.commit}}
    materials = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(source.materials.items())]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"target": source.target, "base": source.base},
            "internalParameters": {"tag": source.tag, "workTreeClean": source.clean},
            "resolvedDependencies": [repository, *materials],
        },
        "runDetails": {"builder": {"id": source.builder}},
    }


def statement(folder: Path, target: str, name: str) -> dict[str, Any]:
    """An in-toto statement: this document is about this archive, and about the image by the digest a registry shows."""
    image = rootfs.manifest(folder / ARCHIVE)[0].removeprefix("sha256:")
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": ARCHIVE, "digest": {"sha256": sha256(folder / ARCHIVE)}},
            {"name": f"linkis-ecm/{target}", "digest": {"sha256": image}},
        ],
        "predicateType": _TYPES[name][1],
        "predicate": json.loads((folder / name).read_text()),
    }


def list_contents(folder: Path, source: Source) -> None:
    """Writes the two lists of contents and the provenance beside the archive."""
    outputs = [f"-o=spdx-json={folder / SPDX}", f"-o=cyclonedx-json={folder / CYCLONEDX}"]
    named = ["--source-name", f"linkis-ecm/{source.target}", "--source-version", source.tag.rpartition(":")[2]]
    run([binaries.build("syft"), "scan", "-q", f"oci-archive:{folder / ARCHIVE}", *outputs, *named],
        what=f"listing the contents of {source.target}", remedy="look at the lines above", seconds=900,
        env=os.environ | {"SYFT_CHECK_FOR_APP_UPDATE": "false"})  # fmt: skip
    _write(folder / PROVENANCE, provenance(source))


def make_keys(pair: Keys) -> None:
    """A new key pair; COSIGN_PASSWORD encrypts the private one. None is overwritten."""
    _outside(pair.private)
    if pair.private.suffix != ".key" or pair.public != pair.private.with_suffix(".pub"):
        raise ClusterError(f"{pair.private} is not named *.key with *.pub", remedy="cosign gives its files these names")
    if pair.private.exists():
        raise ClusterError(f"{pair.private} exists", remedy="remove it if nobody verifies by it any more")
    pair.private.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _cosign("generate-key-pair", "--output-key-prefix", str(pair.private.with_suffix("")))


def require_clean(folder: Path) -> None:
    """Raises where the image was built from changes that no commit has: its provenance would name the wrong source."""
    try:
        told = json.loads((folder / PROVENANCE).read_text())
    except FileNotFoundError:
        raise ClusterError(f"there is no {folder / PROVENANCE}", remedy="make sbom") from None
    if not told["buildDefinition"]["internalParameters"]["workTreeClean"]:
        raise ClusterError(
            f"{folder.name} was built from uncommitted changes", remedy="commit them and make sbom again"
        )


def sign(folder: Path, target: str, pair: Keys) -> None:
    """Signs the archive, and a statement for each document about it."""
    _outside(pair.private)
    if not pair.private.exists():
        raise ClusterError(f"there is no key {pair.private}", remedy="make one: make signing-key")
    if pair.private.stat().st_mode & 0o077:
        raise ClusterError(f"others may read {pair.private}", remedy=f"chmod 600 {pair.private}")
    _there(folder)
    if broken := rootfs.broken_blobs(folder / ARCHIVE):
        raise ClusterError(f"the archive is damaged: {broken[0]}", remedy="make sbom again")
    offline = ["--signing-config", _write(folder / ".signing.json", _SIGNING), "--trusted-root", _trusted(folder)]
    with_key = ["--key", str(pair.private), "--yes", *offline]
    _cosign("sign-blob", *with_key, "--bundle", _bundle(folder, ARCHIVE), str(folder / ARCHIVE))
    for name in _TYPES:
        told = _write(folder / ".statement.json", statement(folder, target, name))
        _cosign("attest-blob", *with_key, "--statement", told, "--bundle", _bundle(folder, name), str(folder / ARCHIVE))
    for name in (ARCHIVE, *_TYPES):
        Path(_bundle(folder, name)).chmod(0o644)  # cosign lets nobody else read them, and they are published
    for left in (".signing.json", ".trusted.json", ".statement.json"):
        (folder / left).unlink(missing_ok=True)


def verify(folder: Path, pair: Keys) -> str:
    """The image's digest, where archive and documents are as they were signed; else an error that says which is not."""
    _there(folder)
    # Without a public log of signatures: the key alone vouches.
    with_key = ["--key", str(pair.public), "--insecure-ignore-tlog", "--trusted-root", _trusted(folder)]
    archive = str(folder / ARCHIVE)
    try:
        _cosign("verify-blob", *with_key, "--bundle", _bundle(folder, ARCHIVE), archive)
        # By its digest: cosign reads no blob above 128 MiB for this.
        about = ["--digest", sha256(folder / ARCHIVE), "--digestAlg", "sha256"]
        for name, (kind, _) in _TYPES.items():
            bundle = ["--type", kind, "--bundle", _bundle(folder, name)]
            _cosign("verify-blob-attestation", *with_key, *bundle, *about)
            _compare(folder, name)
    finally:
        (folder / ".trusted.json").unlink(missing_ok=True)
    return rootfs.manifest(folder / ARCHIVE)[0]


def _compare(folder: Path, name: str) -> None:
    """The document beside the archive is the one that was signed."""
    envelope = json.loads(Path(_bundle(folder, name)).read_text())["dsseEnvelope"]
    signed = json.loads(base64.b64decode(envelope["payload"]))
    if signed["predicate"] != json.loads((folder / name).read_text()):
        raise ClusterError(f"{folder / name} is not what was signed", remedy="take it from where the image came from")


def _bundle(folder: Path, name: str) -> str:
    return str(folder / f"{name.removesuffix('.json')}.sigstore.json")


def _trusted(folder: Path) -> str:
    return _write(folder / ".trusted.json", _TRUSTED)


def _write(path: Path, content: Mapping[str, Any]) -> str:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return str(path)


def _there(folder: Path) -> None:
    if missing := [name for name in (ARCHIVE, *_TYPES) if not (folder / name).exists()]:
        raise ClusterError(f"there is no {folder / missing[0]}", remedy="make sbom, or take it from the release")


def _outside(key: Path) -> None:
    if key.resolve().is_relative_to(ROOT):
        raise ClusterError(f"{key} is in the checkout", remedy="keep keys where no commit takes them along")


def _cosign(*arguments: str) -> None:
    verifies = arguments[0].startswith("verify")
    remedy = (
        "use neither image nor documents: take them anew from the release"
        if verifies
        else "COSIGN_PASSWORD opens the key"
    )
    run([binaries.build("cosign"), *arguments], what=f"cosign {arguments[0]}", seconds=900, remedy=remedy)  # fmt: skip


def source(target: str, tag: str, base: str, base_archive: Path, pins: Path) -> Source:
    """What this checkout and this machine say about a build."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    files = [ROOT / "Dockerfile", ROOT / "tools/image/prune.py", ROOT / "tools/image/fonts.py", pins]
    materials = {str(path.relative_to(ROOT)): sha256(path) for path in files}
    if base_archive.exists():
        materials[f"base image of Debian packages, {base}"] = sha256(base_archive)
    builder = os.environ.get("LINKIS_ECM_BUILDER") or "urn:linkis-ecm:make-sbom"
    repository = os.environ.get("LINKIS_ECM_REPOSITORY") or "urn:linkis-ecm:source"
    clean = not git("status", "--porcelain")
    return Source(target, tag, repository, git("rev-parse", "HEAD"), clean, builder, base, materials)
