"""Mutations of requests and of JSON, from a seeded source of randomness. Pure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

# Values at the edges of what readers of JSON take.
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, -(2**63) - 1, 0.5, 1e308, -0.0, "", " ", "a",
    "\x00", "\ud800", "\U0001f600" * 40, "x" * 5000, "../../etc/passwd", "%00%ff", "\r\nX: y", "Idle", "engines/real-1",
    [], {}, [[]], [None] * 50, {"a": {"a": {"a": []}}}, {"": ""}, [[[[[[[[]]]]]]]], {"resultId": "0" * 32}, "1e999",
)  # fmt: skip
# Written into JSON as they are: no encoder writes them.
RAW = (
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-",
    b'"\\ud800"',
    b"[" * 3000,
    b'{"a":' * 400,
    b"9" * 5000,
    b'"\xff\xfe"',
    b"\x00",
)
_LENGTHS = (b"0", b"-1", b"+5", b"5, 5", b"0x10", b"99999999999999999999", b"9223372036854775807", b"1_0", b" 5", b"")
_HEADERS = (
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: \x0bchunked",
    b"Content-Length: 5", b"Content-Length: 99999999", b"Content-Encoding: gzip", b"Content-Encoding: br",
    b"Connection: close", b"Connection: Upgrade", b"Upgrade: websocket", b"Expect: 100-continue", b"Host: other",
    b"Range: bytes=0-,5-1", b"Range: bytes=-99999999999999999999", b"If-Range: x", b"If-None-Match: *", b"TE: trailers",
    b"Accept-Encoding: gzip;q=1e9, \xff", b"Token-User: root", b"Token-Code: x", b"Authorization: Bearer ",
    b"Authorization: Bearer a.b.c", b"Cookie: Token-User=root; Token-Code=x", b"Last-Event-ID: 99999999999999999999",
    b"Content-Type: application/json; charset=utf-16", b"Content-Type: multipart/form-data", b"X: " + b"a" * 9000,
    b"X-Forwarded-For: 127.0.0.1", b": empty", b" folded: y", b"X\x00Y: z", b"X: \xff\xfe", b"Sec-WebSocket-Key: x",
)  # fmt: skip
_METHODS = (
    b"GET",
    b"POST",
    b"PUT",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"PATCH",
    b"TRACE",
    b"CONNECT",
    b"PRI",
    b"\x00",
    b"G" * 900,
)
_VERSIONS = (b"HTTP/1.0", b"HTTP/1.1", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 ", b"HTTX/1.1", b"")
_TARGETS = (
    b"*",
    b"//",
    b"/%2e%2e/",
    b"/%",
    b"/\xff",
    b"http://other/healthz",
    b"/?" + b"a=1&" * 900,
    b"/" + b"a/" * 4000,
    b"",
)


def request(rng: random.Random, data: bytes) -> bytes:
    """A request that is like `data`, changed in one to three ways."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_WAYS)(rng, data)
    return data


def json_bytes(rng: random.Random, content: Any) -> bytes:
    """JSON that is like `content`, changed in one to three ways; now and then it is none."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = value(rng, content)
    raw = json.dumps(content).encode(errors="surrogatepass")
    if rng.random() < 0.15:
        raw = raw.replace(rng.choice((b"0", b"1", b'""', b"null", b"[]", b"{}")), rng.choice(RAW), 1)
    if rng.random() < 0.1:
        raw = rng.choice(_BYTES)(rng, raw)
    return raw


def value(rng: random.Random, content: Any) -> Any:
    """The same JSON with one value, name or entry changed, somewhere in it."""
    if isinstance(content, dict) and content and rng.random() < 0.9:
        changed = dict(content)
        name = rng.choice(sorted(changed))
        what = rng.random()
        if what < 0.75:
            changed[name] = value(rng, changed[name])
        elif what < 0.85:
            del changed[name]
        elif what < 0.95:
            changed[rng.choice(("", "a", "taskId", "__proto__", "x" * 300, name.upper()))] = rng.choice(NASTY)
        else:
            changed |= {f"{name}{n}": rng.choice(NASTY) for n in range(rng.choice((3, 100, 2000)))}
        return changed
    if isinstance(content, list) and content and rng.random() < 0.8:
        changed_list = list(content)
        at = rng.randrange(len(changed_list))
        if rng.random() < 0.7:
            changed_list[at] = value(rng, changed_list[at])
        else:
            changed_list = changed_list[:at] + changed_list[at : at + 1] * rng.choice((0, 2, 500))
        return changed_list
    if isinstance(content, str) and content and rng.random() < 0.3:
        at = rng.randrange(len(content))
        return (
            content[:at]
            + rng.choice(("", "\x00", "'", '"', "/", "\\", "\ud800", "%", " ", content))
            + content[at + 1 :]
        )
    return rng.choice(NASTY)


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 16))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _double(rng: random.Random, data: bytes) -> bytes:
    start, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:end] + data[start:end] * rng.choice((1, 2, 20)) + data[end:]


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return (
        data[:at]
        + rng.choice((rng.randbytes(rng.choice((1, 8, 200))), b"\r\n", b"\n", b"\x00", b"\r\n\r\n"))
        + data[at:]
    )


_BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (_flip, _cut, _double, _insert)


def _header(rng: random.Random, data: bytes) -> bytes:
    head, gap, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(_HEADERS))
    return b"\r\n".join(lines) + gap + body


def _repeat_header(rng: random.Random, data: bytes) -> bytes:
    head, gap, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    if len(lines) > 1:
        lines += [rng.choice(lines[1:])] * rng.choice((1, 2, 300))
    return b"\r\n".join(lines) + gap + body


def _length(rng: random.Random, data: bytes) -> bytes:
    head, gap, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, b"Content-Length: " + rng.choice(_LENGTHS)]) + gap + body


def _chunked(rng: random.Random, data: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    sizes = (b"%x" % len(body), b'%X;ext="x"' % len(body), b"-1", b"0", b"FFFFFFFFFFFFFFFF", b"0" * 5000, b"zz", b"")
    end = rng.choice((b"\r\n0\r\n\r\n", b"0\r\n\r\n", b"\r\n0\r\nX: y\r\nContent-Length: 3\r\n\r\n", b"", b"\r\n1\r\n"))
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""]) + rng.choice(sizes) + b"\r\n" + body + end


def _first_line(rng: random.Random, data: bytes) -> bytes:
    first, gap, rest = data.partition(b"\r\n")
    words = [*first.split(b" "), b"", b""][:3]
    which = rng.randrange(3)
    words[which] = rng.choice((_METHODS, _TARGETS, _VERSIONS)[which])
    return b" ".join(words) + gap + rest


def _target(rng: random.Random, data: bytes) -> bytes:
    """The path and query of the request, changed."""
    first, gap, rest = data.partition(b"\r\n")
    words = first.split(b" ")
    if len(words) == 3:
        way = rng.randrange(4)
        if way == 0:
            words[1] = rng.choice(_BYTES)(rng, words[1]).replace(b" ", b"%20").replace(b"\r", b"").replace(b"\n", b"")
        elif way == 1:
            words[1] += (b"&" if b"?" in words[1] else b"?") + rng.choice(words[1].split(b"?")[-1].split(b"&"))
        elif way == 2:
            nasty = (
                b"%00",
                b"%ed%a0%80",
                b"%ff",
                b"-1",
                b"99999999999999999999",
                b"%F0%9F%98%80",
                b"",
                b"'--",
                b"a" * 3000,
            )
            name, mark, _ = words[1].rpartition(b"=")
            words[1] = name + mark + rng.choice(nasty)
        else:
            words[1] = words[1].replace(b"/", rng.choice((b"//", b"/./", b"%2f", b"/../", b"\\")), 1)
    return b" ".join(words) + gap + rest


def _body(rng: random.Random, data: bytes) -> bytes:
    """The JSON body changed, with a length that fits."""
    head, _, body = data.partition(b"\r\n\r\n")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # an earlier mutation has made it so
        return rng.choice(_BYTES)(rng, data)
    changed = json_bytes(rng, content)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(changed)]) + b"\r\n\r\n" + changed


def _pipeline(rng: random.Random, data: bytes) -> bytes:
    return data * rng.choice((2, 3, 30))


_WAYS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *_BYTES, _header, _header, _repeat_header, _length, _chunked, _first_line, _target, _target, _target,
    _body, _body, _body, _body, _body, _body, _pipeline,
)  # fmt: skip
