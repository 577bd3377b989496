"""The key of an agent: who can compute it, and of what it is bound to."""

from __future__ import annotations

from typing import Any

import pytest

from linkis_ecm.model.agent_key import (
    AgentKeyRef,
    Enrolment,
    agent_key,
    key_id,
    key_of,
    master_key,
    master_of,
)

OLD, NEW = b"o" * 32, b"n" * 32
NONCE = "0123456789abcdef" * 2
ENROLMENT = Enrolment("pod", "uid", 1, NONCE)


@pytest.mark.parametrize(
    "other",
    [
        Enrolment("pod2", "uid", 1, NONCE),
        Enrolment("pod", "uid2", 1, NONCE),
        Enrolment("pod", "uid", 2, NONCE),
        Enrolment("pod", "uid", 1, NONCE[::-1]),
    ],
)
def test_a_key_is_bound_to_pod_engine_attempt_and_enrolment(other: Enrolment) -> None:
    key = agent_key(NEW, ENROLMENT)
    assert agent_key(NEW, other) != key
    assert master_of((NEW, OLD), other, key) is None
    assert "." not in key, "a dot tells a token of Kubernetes from a key"


def test_two_master_keys_at_a_time() -> None:
    key = agent_key(OLD, ENROLMENT)
    assert master_of((NEW, OLD), ENROLMENT, key) == OLD
    assert master_of((NEW,), ENROLMENT, key) is None
    ref = AgentKeyRef("pod", NONCE, key_id(OLD))
    assert key_of((NEW, OLD), ref, "uid", 1) == key
    assert key_of((NEW,), ref, "uid", 1) is None, "no key rather than a wrong one"
    assert key_of((NEW, OLD), None, "uid", 1) is None


def test_the_id_of_a_master_key_tells_nothing_else() -> None:
    assert key_id(OLD) != key_id(NEW)
    assert len(key_id(OLD)) == 8


@pytest.mark.parametrize(
    "enrolment",
    [
        Enrolment("", "uid", 0, NONCE),
        Enrolment("pod/uid", "uid", 0, NONCE),
        Enrolment("p" * 65, "uid", 0, NONCE),
        Enrolment("pod", "", 0, NONCE),
        Enrolment("pod", "uid", -1, NONCE),
        Enrolment("pod", "uid", 0, NONCE[1:]),
        Enrolment("pod", "uid", 0, NONCE.upper()),
        Enrolment("pod", "uid", 0, NONCE + "\n"),
    ],
)
def test_an_enrolment_of_a_wrong_form_is_not_usable(enrolment: Enrolment) -> None:
    assert not enrolment.usable


@pytest.mark.parametrize("written", [None, "text", [], {}, {"podUid": "p"}, {"podUid": 1, "enrolment": 2, "keyId": 3}])
def test_a_status_that_was_edited_by_hand_has_no_key(written: Any) -> None:
    assert AgentKeyRef.read(written) is None


def test_what_is_written_is_read_back() -> None:
    ref = AgentKeyRef("pod", NONCE, key_id(NEW))
    assert AgentKeyRef.read(ref.written()) == ref


def test_a_short_master_key_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="the key has 5 bytes: write 32 random bytes"):
        master_key(b" short \n")
