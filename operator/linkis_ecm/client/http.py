"""httpx as the wire: what both drivers share. Must not know what is said."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import httpx

from linkis_ecm import __version__
from linkis_ecm.client.errors import EcmError
from linkis_ecm.client.login import Login
from linkis_ecm.client.wire import CONNECT_SECONDS, Broken, Head, NotReached, Open, Silent

# One client's calls under way; more wait their turn.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30.0)
# A call may run for hours without a byte. That its peer is gone without a word is noticed within two minutes so.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
# Sending code of some MiB over a slow line.
_WRITE_SECONDS = 30.0
# What cannot be sent as it is, or read.
CANNOT = (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.DecodingError, httpx.InvalidURL, UnicodeError)
FAULTS = (httpx.HTTPError, *CANNOT)


def socket_options() -> list[tuple[int, int, int]]:
    """Probes on idle connections, as far as this system has them."""
    probes = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _KEEPALIVE if hasattr(socket, name)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *probes]


def common() -> dict[str, Any]:
    """Arguments of both kinds of httpx's client. No proxy or password comes from the environment, and no redirect is
    followed: the token goes to the gateway that was named and nowhere else."""
    return {
        "headers": {"User-Agent": f"linkis-ecm-client/{__version__}"},
        "trust_env": False,
        "follow_redirects": False,
    }


def arguments(request: Open, login: Login) -> dict[str, Any]:
    """The request as httpx takes it. Raises ValueError where the login cannot be sent."""
    return {
        "method": request.verb,
        "url": login.url + request.path,
        "params": request.params,
        "headers": {**request.headers, **login.headers()},
        "content": request.body,
        # A turn among this client's own calls takes as long as these may.
        "timeout": httpx.Timeout(
            connect=CONNECT_SECONDS, read=request.seconds, write=_WRITE_SECONDS, pool=request.seconds
        ),
    }


def head_of(response: httpx.Response) -> Head:
    """The answer's head."""
    headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return Head(response.status_code, headers)


def fault_of(error: Exception, login: Login) -> EcmError:
    """What one of FAULTS means. Made of its kind and text, neither of which holds what was sent."""
    if isinstance(error, CANNOT):
        # Its text may repeat a header.
        return EcmError(f"The call cannot be made at {login.url}: {type(error).__name__}; check url and what was sent")
    what = f"{login.url}: {type(error).__name__}" + (f" ({text})" if (text := str(error)) else "")
    match error:
        case httpx.PoolTimeout():
            calls = LIMITS.max_connections
            return NotReached(f"{calls} calls of this client are under way already: wait for one of them", sent=False)
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            return NotReached(f"The gateway cannot be reached at {what}", can_retry=True, sent=False)
        case httpx.TimeoutException():
            return Silent(f"The gateway did not answer in time at {what}", can_retry=True)
    return Broken(f"The connection to the gateway broke at {what}", can_retry=True)
