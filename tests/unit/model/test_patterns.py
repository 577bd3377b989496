"""Every regular expression that reads a stranger's text takes time in proportion to it, however hostile the text is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any

import orjson
import pytest
import yaml
from pydantic import StringConstraints, TypeAdapter, ValidationError

from linkis_ecm.agent.formats import escapes, log_pages
from linkis_ecm.controller.pods import refusals
from linkis_ecm.engine.causes import start_problems, verdicts
from linkis_ecm.gateway import openapi
from linkis_ecm.gateway.auth import bearer
from linkis_ecm.gateway.followers import lines as event_lines
from linkis_ecm.gateway.http import peers
from linkis_ecm.gateway.http.compression import accepts_gzip
from linkis_ecm.gateway.inventory import lookup
from linkis_ecm.gateway.linkis import records
from linkis_ecm.model import crd, formats, users
from linkis_ecm.process import exact_json

SHORT, LONG = 6_000, 60_000
# Ten times the text: linear time grows by 10, quadratic by 100. Between them, and what a busy machine adds at most.
GROWTH, NOISE = 35, 0.02

Reader = Callable[[str], object]


def forwarded(text: str) -> object:
    """Without the bound on what is read: the scanner itself is linear."""
    return [peers._forwarded_for(element) for element in peers._elements(text)]


def engines_answer(text: str) -> object:
    with suppress(orjson.JSONDecodeError):
        return exact_json.loads(b"[" + b"1" * 20 + b"," + text.encode())
    return None


def stripped(text: str) -> object:
    stripper = escapes.Stripper()
    return stripper.feed(text), stripper.flush()


CASES: list[tuple[str, Reader, str, str, str]] = [
    # What is tried, who reads it, and a text: its beginning, what is repeated, its end.
    ("blanks", forwarded, "for=", " ", "x y"),
    ("blanks before a name", forwarded, "for", " ", "x"),
    ("blanks between parameters", forwarded, "", " ;", "x"),
    ("quotes", forwarded, "for=", '"', "x"),
    ("quotes and commas", forwarded, "", '",', "x"),
    ("escapes", forwarded, 'for="', "\\", '"'),
    ("escaped quotes", forwarded, 'for="', '\\"', ""),
    ("escaped quotes that end", forwarded, 'for="', '\\"', '"'),
    ("commas", forwarded, "", ",", ""),
    ("equals", forwarded, "for", "=", ""),
    ("semicolons", forwarded, "", ";", "="),
    ("parameters", forwarded, "", "for=1;", "x"),
    ("a name", forwarded, "", "a", ""),
    ("quotes that do not end", engines_answer, '"', '\\"', ""),
    ("backslashes", engines_answer, '"', "\\", ""),
    ("texts", engines_answer, "", '"a"', '"'),
    ("digits", engines_answer, "", "1", "."),
    ("minuses", engines_answer, "", "-", ""),
    ("short numbers", engines_answer, "", "1111111111111111111.", "x"),
    ("a name of a resource", refusals._LIMIT_RANGE.findall, "", "a", " max"),
    ("names of resources", refusals._LIMIT_RANGE.findall, "", "maximum a ", ""),
    ("what a quota wants", refusals._specify, "", "limits.", ""),
    ("dots", start_problems._NO_DEVICE.search, "Insufficient ", "a.", ""),
    ("slashes", start_problems._NO_DEVICE.search, "Insufficient a.b", "/-", ""),
    ("a service account", refusals._NO_ACCOUNT.search, "looking up service account a/", "-", ""),
    ("a container", verdicts._OWN_DISK.search, "", "Container x", ""),
    ("encodings", accepts_gzip, "gzip", " ", "x"),
    ("weights", accepts_gzip, "gzip;q=", "1", " x"),
    ("a token", bearer._TOKEN.fullmatch, "", "=", "x"),
    ("a token's letters", bearer._TOKEN.fullmatch, "", "a", "!"),
    ("a duration", formats._DURATION.match, "", "1", "x"),
    ("an amount", formats._QUANTITY.match, "", "1", "x"),
    ("a user", users._USER.fullmatch, "", "a", "!"),
    ("an account", users._SERVICE_ACCOUNT.fullmatch, "system:serviceaccount:", "a", ""),
    ("an account's parts", users._DNS_ACCOUNT.fullmatch, "system:serviceaccount:", "-", ":!"),
    ("an engine's name", lookup._NAME.fullmatch, "", "a-", ""),
    ("a creator", records._CREATOR.fullmatch, "", "a", "!"),
    ("an event's end", lambda t: event_lines._END.search(t.encode()), "", '"id": "1"} ', "x"),
    ("a line of a log", lambda t: log_pages._ENTRY.match(t.encode()), "2026-01-01", " ", "x"),
    ("the beginnings of sequences", stripped, "", "\x1b[", ""),
    ("a sequence's digits", stripped, "\x1b[", "1", "\n"),
    ("a sequence's blanks", stripped, "\x1b[1", " ", "\n"),
    ("titles", stripped, "", "\x1b]", ""),
]


@pytest.mark.parametrize(
    ("read", "begin", "repeated", "end"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_ten_times_the_text_takes_no_hundred_times_the_time(read: Reader, begin: str, repeated: str, end: str) -> None:
    def seconds(size: int) -> float:
        text = begin + repeated * (size // len(repeated)) + end
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            read(text)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(LONG) < GROWTH * seconds(SHORT) + NOISE


def patterns(node: Any) -> Iterator[str]:
    """All patterns of a schema."""
    if isinstance(node, dict):
        found = node.get("pattern")
        if isinstance(found, str):
            yield found
        for child in node.values():
            yield from patterns(child)
    elif isinstance(node, list):
        for child in node:
            yield from patterns(child)


PATTERNS = sorted({*patterns([yaml.safe_load(text) for text in crd.files().values()]), *patterns(openapi.document())})
# Blanks, digits and letters of Unicode that are none of ASCII's, and ends of lines: where regular expressions differ.
DIFFERENT = ["\u00a0", "\u2028", "\u0085", "\u0663", "\u00e9", "\u017f", "\u212a", "\n", "\r", "\v"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_means_the_same_to_the_api_server_and_to_pydantic(pattern: str) -> None:
    """An object that only the API server takes is seen by neither operator nor gateway. The classes s, d, w and b are
    ASCII's to Go and Unicode's to pydantic: a pattern writes its characters out."""
    assert not re.search(r"(?<!\\)\\[sSdDwWbBpP]|\(\?", pattern)
    pydantics = TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
    for strange in DIFFERENT:
        for text in (strange, f"a{strange}", f"{strange}a", f"a{strange}a", f"1{strange}", f"/{strange}"):
            try:
                taken = bool(pydantics.validate_python(text))
            except ValidationError:
                taken = False
            as_go_reads_it = re.compile(pattern.removesuffix("$") + r"\Z" * pattern.endswith("$"), re.ASCII)
            assert taken == bool(as_go_reads_it.search(text)), repr(text)
