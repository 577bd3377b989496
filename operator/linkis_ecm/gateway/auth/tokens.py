"""Authenticates callers by Linkis's tokens: `Token-Code` and `Token-User` in headers or cookies.

As Linkis's gateway does. A browser sends cookies also with calls that another site makes, so a login by a cookie is
refused to those.

The tokens are in a JSON file, {"<token>": {"users": ["*"] or names, "readOnly": true where it may only look, "expires":
the time of its end, where it has one}}, mounted from a Secret and read again when it changes. Closed by default:
without a readable file every call is refused. Must not log a token.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from linkis_ecm.gateway.auth.base import Caller, Credentials, single_header
from linkis_ecm.gateway.http.errors import Refused, forbidden, no_login
from linkis_ecm.model.users import LOGIN_MAX, is_login, linkis_user

log = logging.getLogger(__name__)

TOKEN_HEADER = "Token-Code"  # noqa: S105 - the header's name
USER_HEADER = "Token-User"
# Seconds between two checks of the file: a kubelet takes up to a minute to mount a changed Secret anyway.
CHECK_SECONDS = 1.0
# A Secret's own limit.
MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Token:
    """The users that a token may speak for, "*" for all; whether it may only look; its end in seconds since 1970."""

    users: frozenset[str]
    read_only: bool = False
    expires: float = math.inf


class TokenFile:
    """The Authenticator of Linkis's tokens."""

    def __init__(
        self,
        path: str,
        *,
        admins: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`clock` counts the seconds between two checks of the file; `now` is the time, in seconds since 1970."""
        self._path = path
        self._admins = admins
        self._clock = clock
        self._now = now
        self._checked = float("-inf")
        self._mark: tuple[int, int, int] | None = None
        self._users: dict[bytes, _Token] = {}
        self._closed = "" if path else "the gateway has no tokens: set ECM_TOKENS_FILE to a file of tokens"

    async def authenticate(self, request: Credentials) -> Caller:
        """The user named by Token-User, if Token-Code may speak for him."""
        self._reread()
        if self._closed:
            raise no_login(self._closed)
        code = single_header(request, TOKEN_HEADER) or request.cookies.get(TOKEN_HEADER)
        user = single_header(request, USER_HEADER) or request.cookies.get(USER_HEADER)
        if not code or not user:
            missing = TOKEN_HEADER if not code else USER_HEADER
            raise no_login(
                f"{missing} is missing: send the headers or cookies {TOKEN_HEADER} (a token of this gateway) and"
                f" {USER_HEADER} (your user name)"
            )
        if not (request.headers.get(TOKEN_HEADER) and request.headers.get(USER_HEADER)):
            _require_same_origin(request)
        return self._admit(code, user)

    def _admit(self, code: str, user: str) -> Caller:
        # Compared by hash and in constant time, so that the time reveals nothing about the tokens.
        digest = hashlib.sha256(code.encode(errors="surrogateescape")).digest()
        found = _Token(frozenset())
        for known, token in self._users.items():
            if hmac.compare_digest(known, digest):
                found = token
        allowed = found.users
        if not allowed:
            raise _not_accepted()
        if self._now() >= found.expires:
            raise no_login(f"{TOKEN_HEADER} has expired: ask an admin for a new token")
        if not is_login(user):
            # What nobody can be in the file either.
            if "*" not in allowed:
                raise _not_accepted()
            raise no_login(
                f"{USER_HEADER} is no user name: use printable characters without blanks at the ends, at most"
                f" {LOGIN_MAX} of them"
            )
        user = linkis_user(user)
        if not ("*" in allowed or user in allowed):
            raise _not_accepted()
        return Caller(user, user in self._admins, read_only=found.read_only, expires=found.expires)

    def first_expiry(self) -> float:
        """When the first of the tokens in the file ends or has ended, in seconds since 1970; NaN where none ends."""
        self._reread()
        first = min((token.expires for token in self._users.values()), default=math.inf)
        return first if first < math.inf else math.nan

    def _reread(self) -> None:
        now = self._clock()
        if not self._path or now - self._checked < CHECK_SECONDS:
            return
        self._checked = now
        try:
            found = os.stat(self._path)
            mark = (found.st_mtime_ns, found.st_ino, found.st_size)
            if mark == self._mark:
                return
            if found.st_size > MAX_FILE_BYTES:
                raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
            self._users = _parse(Path(self._path).read_bytes())
            self._mark = mark
            self._closed = ""
            log.info("read %d tokens from %s", len(self._users), self._path)
        except (OSError, ValueError) as error:
            # Closed, instead of keeping the old tokens: the change may have removed a token.
            reason = (error.strerror or "") if isinstance(error, OSError) else str(error)
            closed = f"the gateway's tokens file cannot be used ({reason}): mend the Secret behind ECM_TOKENS_FILE"
            if closed != self._closed:
                log.error("%s: %s", self._path, closed)
            self._users, self._mark, self._closed = {}, None, closed


def _require_same_origin(request: Credentials) -> None:
    """Raises Refused where a browser says that another origin makes the call. No page of another origin can change
    these headers. What sends neither is no browser of today, and sends its cookies for nobody else."""
    site, origin = single_header(request, "Sec-Fetch-Site"), single_header(request, "Origin")
    host = single_header(request, "Host")
    # "none": the person has typed the address. "same-site" is another host of the same domain.
    own = site in ("same-origin", "none") if site else not origin or origin.partition("://")[2] == host.lower()
    if not own:
        raise forbidden(
            f"A page of another site makes this call, and cookies do not log in for it: send the headers {TOKEN_HEADER}"
            f" and {USER_HEADER}, or call from the gateway's own origin"
        )


def _not_accepted() -> Refused:
    return no_login(
        f"{TOKEN_HEADER} is not accepted for this {USER_HEADER}: check both, or ask an admin for a token that may speak"
        " for you"
    )


def _parse(content: bytes) -> dict[bytes, _Token]:
    """sha256 of each token → whom it may act for. Raises ValueError, without a token in its text."""
    try:
        tokens = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(tokens, dict):
        raise ValueError('it is not an object like {"<token>": {"users": ["*"]}}')
    found = {}
    for number, (token, entry) in enumerate(tokens.items(), 1):
        users = entry.get("users") if isinstance(entry, dict) else None
        if not isinstance(users, list) or not all(isinstance(user, str) and user for user in users):
            raise ValueError(f'entry {number} has no list "users" of names or "*"')
        read_only = entry.get("readOnly", False)
        if not isinstance(read_only, bool):
            raise ValueError(f"entry {number} has a readOnly that is neither true nor false")
        if len(token) < 8:
            raise ValueError(f"the token of entry {number} has fewer than 8 characters")
        found[hashlib.sha256(token.encode()).digest()] = _Token(
            frozenset(user if user == "*" else linkis_user(user) for user in users),
            read_only,
            _expiry(number, entry.get("expires")),
        )
    return found


def _expiry(number: int, written: object) -> float:
    """Seconds since 1970; infinity where nothing is written. Raises ValueError."""
    if written is None:
        return math.inf
    try:
        # Longer than any time is written.
        parsed = datetime.fromisoformat(written) if isinstance(written, str) and len(written) <= 64 else None
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        raise ValueError(f"entry {number} has an expires that is no time with its zone, such as 2027-01-31T00:00:00Z")
    return parsed.timestamp()
