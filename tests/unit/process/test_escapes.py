"""Escape sequences are taken out wherever a text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.agent.formats.escapes import Stripper, plain
from linkis_ecm.agent.outputs import Outputs

SEQUENCES = (
    "\x1b[31m", "\x1b[0m", "\x1b[m", "\x1b[1;38;5;196m", "\x1b[38:2::1:2:3m", "\x1b[K", "\x1b[2J", "\x1b[?25l",
    "\x1b(B", "\x1b=", "\x1b>", "\x1b7", "\x1b8", "\x1bM", "\x1b]0;title\x07", "\x1b]8;;http://a.b/c\x1b\\",
    "\x1bP1$r0m\x1b\\", "\x1b_x\x1b\\",
)  # fmt: skip
TEXT = st.text(alphabet=st.characters(exclude_characters="\x1b\x07"), max_size=5)


@given(st.lists(TEXT | st.sampled_from(SEQUENCES), max_size=12), st.randoms(use_true_random=False))
def test_no_cut_of_a_text_leaves_a_part_of_a_sequence(parts: list[str], rng: object) -> None:
    whole = "".join(parts)
    wanted = "".join(part for part in parts if part not in SEQUENCES)
    assert plain(whole) == wanted
    stripper, found, start = Stripper(), "", 0
    while start < len(whole):
        end = start + rng.randint(1, 4)  # type: ignore[attr-defined]
        found += stripper.feed(whole[start:end])
        start = end
    assert found + stripper.flush() == wanted


@pytest.mark.parametrize("text", ["\x1b", "\x1b[", "\x1b[3", "a\x1b]0;never ends", "\x1b("])
def test_what_is_no_sequence_is_not_lost(text: str) -> None:
    stripper = Stripper()
    assert stripper.feed(text) + stripper.flush() == text


def test_a_sequence_between_two_messages_is_taken_out_of_its_own_stream() -> None:
    outputs = Outputs()
    outputs.stream("stdout", "a\x1b[3")
    outputs.stream("stderr", "\x1b[1mwarn")
    outputs.stream("stdout", "1mred\x1b[0m\x1b")
    outputs.flush()
    assert [(item["stream"], item["text"]) for item in outputs.result()] == [
        ("stdout", "a"), ("stderr", "warn"), ("stdout", "red\x1b"),
    ]  # fmt: skip


@pytest.mark.parametrize("piece", ["\x1b", "\x1b]", "\x1b[0", "\x1b]" + "x" * 4000])
def test_a_text_of_beginnings_alone_is_held_within_bounds(piece: str) -> None:
    stripper = Stripper()
    for _ in range(20):
        stripper.feed(piece * 2000)
        assert len(stripper.flush()) < 5000
