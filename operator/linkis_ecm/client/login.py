"""The gateway's address and the caller's identity, from arguments or the environment. A token is never shown.

LINKIS_ECM_URL    the gateway, like http://127.0.0.1:9102
LINKIS_ECM_TOKEN  one of Linkis's tokens where there is a user beside it, else a bearer token
LINKIS_ECM_USER   the user that the token speaks for
LINKIS_ECM_CA_FILE  for https: a PEM file with the authorities of the gateway's certificate, instead of the public ones
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from linkis_ecm.api.paths import PREFIX
from linkis_ecm.model.users import linkis_user

URL, TOKEN, USER = "LINKIS_ECM_URL", "LINKIS_ECM_TOKEN", "LINKIS_ECM_USER"
CA_FILE = "LINKIS_ECM_CA_FILE"

# A function is called before each request: for tokens that expire while the client lives.
Bearer = str | Callable[[], str]


@dataclass(frozen=True, slots=True)
class Login:
    """One gateway and one caller."""

    url: str
    user: str | None = None
    token: str | None = field(default=None, repr=False)
    bearer: Bearer | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """The headers that identify the caller. Raises ValueError where they cannot be sent."""
        if self.bearer is not None:
            token = self.bearer if isinstance(self.bearer, str) else self.bearer()
            return {"Authorization": f"Bearer {_sendable('bearer', token)}"}
        return {"Token-Code": self.token or "", "Token-User": self.user or ""}


def login_of(
    environment: Mapping[str, str],
    *,
    url: str | None = None,
    token: str | None = None,
    user: str | None = None,
    bearer: Bearer | None = None,
) -> Login:
    """The login from arguments and environment. Raises ValueError that says what is missing."""
    url = url or environment.get(URL) or ""
    if not url:
        raise ValueError(f"no url: give the gateway's, like http://127.0.0.1:9102, or set {URL}")
    url = _root(url)
    if bearer is not None:
        if token is not None:
            raise ValueError("both token and bearer are given: give the one that this gateway takes")
        if isinstance(bearer, str):
            _sendable("bearer", bearer)
        return Login(url, bearer=bearer)
    token = token or environment.get(TOKEN)
    user = user or environment.get(USER)
    if not token:
        raise ValueError(f"no token: give token and user, or bearer, or set {TOKEN} (and {USER})")
    if not user:
        return Login(url, bearer=_sendable("token", token))
    if not user.isascii() and user.isprintable() and " " not in user:
        # A header holds ASCII alone, and Linkis's form of the name is the same user.
        user = linkis_user(user)
    return Login(url, user=_sendable("user", user), token=_sendable("token", token))


def _root(url: str) -> str:
    """The url without the REST's own paths, which may be given with it. Raises ValueError."""
    try:
        parts = urlsplit(url.strip())
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("url (LINKIS_ECM_URL) is no address of a gateway: write it like http://127.0.0.1:9102")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("url has more than an address: leave out names, passwords and what follows ? or #")
    path = parts.path.rstrip("/").removesuffix("/engineconnManager").removesuffix(PREFIX)
    return f"{parts.scheme}://{parts.netloc}{path}"


def _sendable(name: str, text: str) -> str:
    """`text` where a header can hold it. Raises ValueError, without the text."""
    text = text.strip()
    if not text or not all("!" <= char <= "~" for char in text):
        raise ValueError(f"{name} cannot be sent: it must be printable ASCII without blanks, and not empty")
    return text
