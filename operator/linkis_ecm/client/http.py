"""The parts of httpx's use that both drivers share: settings, arguments, errors. Must not know the gateway's
methods."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from linkis_ecm import __version__
from linkis_ecm.client.errors import EcmError
from linkis_ecm.client.login import CA_FILE, Login
from linkis_ecm.client.protocol import CONNECT_SECONDS, ConnectionBroken, Head, NotConnected, Open, ReadTimedOut

# One client's concurrent calls; more wait for a connection.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30.0)
# A call may run for hours without a byte. These probes notice a dead peer within two minutes.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
# Sending code of some MiB over a slow line.
_WRITE_SECONDS = 30.0
# The request cannot be sent as it is, or the answer cannot be decoded.
CANNOT = (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.DecodingError, httpx.InvalidURL, UnicodeError)
TRANSPORT_ERRORS = (httpx.HTTPError, *CANNOT)


def socket_options() -> list[tuple[int, int, int]]:
    """TCP keepalive probes, as far as this system supports them."""
    probes = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _KEEPALIVE if hasattr(socket, name)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *probes]


def common() -> dict[str, Any]:
    """Arguments of both of httpx's clients. No proxy or password is taken from the environment and no redirect is
    followed: the token goes to the given gateway and nowhere else."""
    return {
        # Answers are read as they come: what is packed could become any number of bytes.
        "headers": {"User-Agent": f"linkis-ecm-client/{__version__}", "Accept-Encoding": "identity"},
        "trust_env": False,
        "follow_redirects": False,
    }


def verification(verify: ssl.SSLContext | bool, environment: Mapping[str, str]) -> ssl.SSLContext | bool:
    """How a gateway's certificate is checked: as the argument says, else by the authorities in the environment's file.
    Reads that file. Raises ValueError."""
    path = environment.get(CA_FILE)
    if verify is not True or not path:
        return verify
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl's errors are among them
        why = "it has no certificate in PEM form" if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"{CA_FILE} cannot be used ({why}): write the file with the gateway's authorities") from None


def arguments(request: Open, login: Login) -> dict[str, Any]:
    """The request as httpx takes it. Raises ValueError where the login cannot be sent."""
    return {
        "method": request.verb,
        "url": login.url + request.path,
        "params": request.params,
        "headers": {**request.headers, **login.headers()},
        "content": request.body,
        # Waiting for a connection of the pool takes as long as the other calls may take.
        "timeout": httpx.Timeout(
            connect=CONNECT_SECONDS, read=request.seconds, write=_WRITE_SECONDS, pool=request.seconds
        ),
    }


def response_head(response: httpx.Response) -> Head:
    """The answer's head."""
    headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return Head(response.status_code, headers)


def error_of_transport(error: Exception, login: Login) -> EcmError:
    """The error for one of TRANSPORT_ERRORS. Made of its type and text, neither of which contains what was sent."""
    if isinstance(error, CANNOT):
        # Its text may repeat a header.
        return EcmError(f"The call cannot be made at {login.url}: {type(error).__name__}; check url and what was sent")
    what = f"{login.url}: {type(error).__name__}" + (f" ({text})" if (text := str(error)) else "")
    match error:
        case httpx.PoolTimeout():
            calls = LIMITS.max_connections
            return NotConnected(f"{calls} calls of this client are under way already: wait for one of them", sent=False)
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            return NotConnected(f"The gateway cannot be reached at {what}", can_retry=True, sent=False)
        case httpx.TimeoutException():
            return ReadTimedOut(f"The gateway did not answer in time at {what}", can_retry=True)
    return ConnectionBroken(f"The connection to the gateway broke at {what}", can_retry=True)
