"""One rule for both processes of what a body may be encoded as."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from linkis_ecm.process.ports.encoding import is_packed


@pytest.mark.parametrize(
    ("values", "packed"),
    [
        ([], False),
        (["identity"], False),
        (["UTF-8"], False),
        (["utf-8", "identity"], False),
        (["gzip"], True),
        (["identity", "gzip"], True),
        (["identity, gzip"], True),
        (["utf-8,br"], True),
        (["x"], True),
        ([""], True),
    ],
)
def test_what_would_have_to_be_unpacked_is_packed(values: list[str], packed: bool) -> None:
    assert is_packed(CIMultiDict([("content-encoding", value) for value in values])) == packed
