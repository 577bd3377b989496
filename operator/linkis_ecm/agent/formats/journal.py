"""The journal of a kernel's messages: what the kernel has sent, kept where its death does not reach it.

ZeroMQ writes messages into the socket in a thread of its own. A process that ends by os._exit() or by a signal takes
along what that thread has not written. So each message is written into a file, too, which the agent reads when the
kernel is gone. The file begins with the number of the message that the agent has handled last; the agent writes it, and
the kernel begins the file anew once that is its own last one. Next is the number of the message that the kernel has
sent last: what comes by its pipes waits for that (`executors.pipes`). Entries follow. What the agent reads is written
by the user's process: it is not to be trusted. Must not import what the kernel has not loaded anyway.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

NAME = "journal"  # in the folder of the kernel's sockets
# Of the file. A flushed line has a message of 0.7 KB. The whole of it may be memory of the container.
SIZE = 512 << 10
_NUMBER = struct.Struct("<Q")
_HEAD = struct.Struct("<QI")  # an entry's number, and of how many frames it is
_LENGTH = struct.Struct("<I")
SENT = _NUMBER.size  # where the number of what was sent last stands
FIRST = 64  # where the first entry begins
_MAX_FRAMES = 16
# A message's last frame: this, and its number. Behind the parts that are signed, where Jupyter has buffers.
_PREFIX = b"linkis:n"


def number_frame(number: int) -> bytes:
    """What is sent as the last frame of the message with this number."""
    return _PREFIX + _NUMBER.pack(number)


def number_in(frames: Sequence[bytes]) -> int:
    """The number of a message that came by the socket; 0 where it has none."""
    last = frames[-1] if frames else b""
    if len(last) != len(_PREFIX) + _NUMBER.size or not last.startswith(_PREFIX):
        return 0
    return int(_NUMBER.unpack_from(last, len(_PREFIX))[0])


def entry(number: int, frames: Sequence[bytes]) -> bytes:
    """The bytes of one entry, with what ends the list of them."""
    lengths = b"".join(_LENGTH.pack(len(frame)) for frame in frames)
    return b"".join((_HEAD.pack(number, len(frames)), lengths, *frames, bytes(_NUMBER.size)))


def is_plain(frames: Sequence[object]) -> bool:
    """Whether an entry can be made of them: displays with arrays of their own are none."""
    return len(frames) <= _MAX_FRAMES and all(isinstance(frame, bytes) for frame in frames)


def size_of(frames: Sequence[bytes]) -> int:
    """Bytes of `entry`."""
    return _HEAD.size + _LENGTH.size * len(frames) + sum(map(len, frames)) + _NUMBER.size


def entries(data: bytes, after: int) -> Iterator[tuple[int, list[bytes]]]:
    """(number, frames) of the file's messages behind number `after`; ends where an entry has no meaning."""
    at, last = FIRST, 0
    while at + _HEAD.size <= len(data):
        number, count = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        # What is left of earlier entries has lower numbers.
        if number <= last or count > _MAX_FRAMES or at + count * _LENGTH.size > len(data):
            return
        lengths = [_LENGTH.unpack_from(data, at + index * _LENGTH.size)[0] for index in range(count)]
        at += count * _LENGTH.size
        if at + sum(lengths) > len(data):
            return
        frames = []
        for length in lengths:
            frames.append(data[at : at + length])
            at += length
        last = number
        if number > after:
            yield number, frames


def number_bytes(number: int) -> bytes:
    """A number at the file's beginning: what was handled, or at SENT what was sent."""
    return _NUMBER.pack(number)


def number_of(data: bytes) -> int:
    """The number in those bytes; 0 where they are cut short."""
    return int(_NUMBER.unpack(data)[0]) if len(data) == _NUMBER.size else 0
