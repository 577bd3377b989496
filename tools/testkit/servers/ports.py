"""A port for a server that has to be told one: chosen here, and nobody else's until the server has it, and after."""

from __future__ import annotations

import socket


def reserved() -> socket.socket:
    """A socket that holds a free port while it is open: the system gives it to nobody who asks for any.

    A server that names it can bind it still, and again after its end, for both allow the address to be used again. It
    is held for all addresses: another's connection may have the port of one, and a server that listens on all fails.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("0.0.0.0", 0))
    return held
