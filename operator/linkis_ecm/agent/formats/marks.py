"""Marks in a kernel's raw output: how its order against the kernel's messages is told.

The kernel writes a mark into both raw pipes and sends its number as a message. What stands before the mark in a pipe
was written before the messages that follow the number, and the other way round. A mark is shorter than PIPE_BUF, so no
other writer's bytes can stand inside of it. Must not import what the kernel has not loaded anyway.
"""

import fcntl
import hashlib
import struct
import termios

# The messages' types: a mark's number; texts of both streams in their order.
MARK_MESSAGE, STREAMS_MESSAGE = "linkis_mark", "linkis_streams"
_NUMBER_BYTES = 4
LENGTH = 18 + _NUMBER_BYTES


def secret_of(key: str) -> bytes:
    """What marks of the kernel with this key begin with. 0xff is in no UTF-8."""
    return b"\xff\xfe" + hashlib.sha256(b"linkis-mark " + key.encode()).digest()[:16]


def mark(secret: bytes, number: int) -> bytes:
    """The bytes of one mark."""
    return secret + (number & 0xFFFFFFFF).to_bytes(_NUMBER_BYTES, "big")


def number_of(found: bytes) -> int:
    """Of the bytes of one mark."""
    return int.from_bytes(found[-_NUMBER_BYTES:], "big")


def unread(descriptor: int) -> int:
    """Bytes that a pipe holds: the kernel sends a mark where there are some, and the agent reads so many."""
    number: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0]
    return number
