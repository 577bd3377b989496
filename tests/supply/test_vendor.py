"""The console's libraries are the pinned ones, each with its licence; what is not as pinned is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import replace

import pytest

from tools import vendor
from tools.vendor import Package, VendoredFile, VendorError


def test_each_vendored_file_has_its_pinned_hash_and_no_other_file_is_there() -> None:
    pinned = {file.name: file.sha256 for package in vendor.CONSOLE for file in package.files}
    files = [path for path in vendor.VENDOR.rglob("*") if path.is_file()]
    found = {str(path.relative_to(vendor.VENDOR)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found == pinned


def test_each_package_comes_with_its_licence_and_says_who_it_is() -> None:
    for package in vendor.CONSOLE:
        text = (vendor.VENDOR / f"{package.name}.LICENSE").read_text()
        assert "MIT License" in text or "Apache License" in text or "MIT" in text, package.name
        known = json.loads((vendor.VENDOR / package.name / "package.json").read_text())
        assert (known["name"], known["version"]) == (package.name, package.version)
        assert known["license"] in ("MIT", "Apache-2.0")


def packed(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def package_of(tarball: bytes, content: bytes) -> Package:
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    return Package("x", "1", integrity, (VendoredFile("package/a.js", "a.js", hashlib.sha256(content).hexdigest()),))


def test_a_package_as_pinned_gives_its_files() -> None:
    tarball = packed({"package/a.js": b"1", "package/../../etc/passwd": b"2"})
    assert vendor.files_of(package_of(tarball, b"1"), tarball) == {"a.js": b"1"}


def test_another_tarball_or_another_file_is_refused() -> None:
    tarball = packed({"package/a.js": b"1"})
    package = package_of(tarball, b"1")
    with pytest.raises(VendorError, match=r"and sha512-.* is pinned"):
        vendor.files_of(package, packed({"package/a.js": b"evil"}))
    with pytest.raises(VendorError, match=r"a\.js has the SHA-256"):
        vendor.files_of(package_of(tarball, b"other"), tarball)
    missing = replace(package.files[0], path="package/b.js")
    with pytest.raises(VendorError, match="has no file"):
        vendor.files_of(replace(package, files=(missing,)), tarball)


def wheel_with(name: str, data: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, data)
    return made.getvalue()


def test_axe_core_is_the_pinned_file_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "AXE_SHA256", hashlib.sha256(b"axe").hexdigest())
    assert vendor.axe_of(wheel_with(vendor.AXE_FILE, b"axe")) == b"axe"
    with pytest.raises(VendorError, match=r"axe\.min\.js has the SHA-256"):
        vendor.axe_of(wheel_with(vendor.AXE_FILE, b"evil"))
    with pytest.raises(VendorError, match="has no pytest_playwright_axe/resources"):
        vendor.axe_of(wheel_with("other.js", b"axe"))
    with pytest.raises(VendorError, match="has no pytest_playwright_axe/resources"):
        vendor.axe_of(b"no archive")
