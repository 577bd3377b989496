"""A kernel's messages: only what its key has signed is read, once, and whatever is broken is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jupyter_client.session import DELIM, Session

from linkis_ecm.agent.executors.messages import BadMessageError, read_message, session

KEY = "k" * 64
PARENT = {"msg_id": "asked", "session": "s", "date": "2026-11-27T12:00:00.000000Z"}


def frames(kind: str = "stream", content: Any = None, *, key: str = KEY, **changes: bytes) -> list[bytes]:
    """A message as jupyter_client sends it; `changes` replace parts before they are signed."""
    sender = Session(key=key.encode(), packer="json", unpacker="json")
    message = sender.msg(
        kind, {"name": "stdout", "text": "x"} if content is None else content, parent={"header": PARENT}
    )
    parts = sender.serialize(message, ident=b"topic")
    at = parts.index(DELIM) + 1
    for number, name in enumerate(("header", "parent", "metadata", "content"), at + 1):
        parts[number] = changes.get(name, parts[number])
    parts[at] = sender.sign(parts[at + 1 : at + 5])
    return list(parts)


def test_a_message_has_its_kind_its_content_and_what_it_belongs_to() -> None:
    found = read_message(
        session(KEY), [*frames("display_data", {"data": {"n": 1}, "when": PARENT["date"]}), b"a buffer"]
    )
    assert found["msg_type"] == "display_data"
    assert found["content"] == {"data": {"n": 1}, "when": PARENT["date"]}
    assert found["parent_header"]["msg_id"] == "asked"


def test_a_message_counts_once() -> None:
    reader, sent = session(KEY), frames()
    read_message(reader, sent)
    with pytest.raises(BadMessageError):
        read_message(reader, sent)


def with_part(number: int, data: bytes) -> list[bytes]:
    parts = frames()
    parts[parts.index(DELIM) + 1 + number] = data
    return parts


@pytest.mark.parametrize(
    "sent",
    [
        frames(key="another key"),
        with_part(0, b""),
        with_part(0, b"0" * 64),
        with_part(1, b'{"msg_id": "x", "msg_type": "stream"}'),
        with_part(2, b'{"msg_id": "another"}'),
        with_part(3, b'{"more": 1}'),
        with_part(4, b'{"name": "stdout", "text": "y"}'),
        frames()[:-1],
        frames()[:2],
        frames()[2:],
        [],
    ],
    ids=[
        "key",
        "unsigned",
        "signature",
        "header",
        "parent",
        "metadata",
        "content",
        "short",
        "bare",
        "no mark",
        "empty",
    ],
)
def test_what_is_not_signed_with_the_kernels_key_is_left_out(sent: list[bytes]) -> None:
    with pytest.raises(BadMessageError):
        read_message(session(KEY), sent)


@pytest.mark.parametrize(
    "changes",
    [
        {"header": b"no JSON"}, {"header": b"[]"}, {"header": b"{}"}, {"header": b'{"msg_id": "x", "msg_type": 1}'},
        {"parent": b"[1]"}, {"content": b"null"}, {"content": b"{" * 100_000},
    ],
)  # fmt: skip
def test_a_signed_message_of_another_shape_is_left_out(changes: dict[str, bytes]) -> None:
    with pytest.raises(BadMessageError):
        read_message(session(KEY), frames(**changes))


def test_an_older_kernels_message_is_read_as_one_of_today() -> None:
    header = json.dumps({"msg_id": "x", "msg_type": "pyout", "username": "", "session": "s"}).encode()
    found = read_message(session(KEY), frames(content={"data": {}, "metadata": {}}, header=header))
    assert found["msg_type"] == "execute_result"
