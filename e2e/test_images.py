"""What the images that ship hold: nothing that installs, compiles or raises rights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.cluster import images, tools
from tools.supply import rootfs

pytestmark = [
    pytest.mark.cluster,
    # Reading the layers of both takes 30 s of a core.
    pytest.mark.timeout(600),
    pytest.mark.skipif(tools.backend() != "node", reason="the images of another's registry are not at hand as files"),
]


@pytest.fixture(scope="module", params=images.TARGETS)
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("images") / f"{request.param}.oci.tar"
    images.export(request.param, path)
    yield path
    path.unlink()


def test_an_image_has_no_installer_no_compiler_and_nothing_that_raises_rights(archive: Path) -> None:
    files = rootfs.entries(archive)
    assert "opt/venv/bin/python" in files
    assert rootfs.faults(files) == []
