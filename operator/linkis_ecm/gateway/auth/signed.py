"""What can be said of a Kubernetes token without asking the API server to review it: by its own public keys.

A TokenReview stays the only way in. Here a token is only sorted, so that what is surely wrong costs no review, and what
is surely right does not wait among strangers' tokens. Must not let anybody in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from linkis_ecm.gateway.auth.bearer import AUTHORIZATION
from linkis_ecm.gateway.http.errors import no_login, unavailable
from linkis_ecm.kube.errors import ApiError
from linkis_ecm.process.signing_keys import KeysUnavailableError, NotSignedError, SigningKeys, UnknownKeyError

log = logging.getLogger(__name__)

LEEWAY_SECONDS = 60
# A login may wait for the keys so long, once in 10 s (process/signing_keys.py); without them it goes the usual way.
FETCH_SECONDS = 3.0


class KeySource(Protocol):
    """Where the API server's keys come from."""

    async def signing_keys(self, *, timeout: float) -> Mapping[str, Any]:
        """The JSON Web Key Set. Raises ApiError."""
        ...


@dataclass(frozen=True, slots=True)
class Holder:
    """The account that the API server has signed a token for."""

    name: str


class SignedTokens:
    """Sorts bearer tokens. `service_accounts_only`: no other token is taken. `clock` gives Unix seconds."""

    def __init__(
        self,
        source: KeySource,
        *,
        service_accounts_only: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._service_accounts_only = service_accounts_only
        self._clock = clock
        self._keys = SigningKeys(self._fetch, monotonic=monotonic)
        # The failure that was logged last.
        self._problem = ""

    async def holder(self, token: str) -> Holder | None:
        """The account of a token with a right signature; None where only a TokenReview can say. Raises Refused for one
        that no review would accept."""
        try:
            claims = await self._keys.signed_claims(token)
        except UnknownKeyError:
            if self._service_accounts_only:
                raise no_login(
                    f"{AUTHORIZATION}: the Bearer token is no service account's of this cluster, and this gateway takes"
                    " no other: get one with kubectl create token"
                ) from None
            return None
        except NotSignedError:
            raise no_login(
                f"{AUTHORIZATION}: the Bearer token is not accepted by Kubernetes: its signature is wrong; send it as"
                " it was issued"
            ) from None
        except KeysUnavailableError:
            if self._service_accounts_only:
                raise unavailable("The API server does not give its keys: try again later") from None
            return None
        expires = claims.get("exp")
        # Tokens of Secrets have no end.
        if isinstance(expires, int | float) and self._clock() > expires + LEEWAY_SECONDS:
            raise no_login(
                f"{AUTHORIZATION}: the Bearer token is not accepted by Kubernetes: it has expired, get a new one"
            )
        name = claims.get("sub")
        return Holder(name) if isinstance(name, str) and name else None

    async def _fetch(self) -> Mapping[str, Any]:
        try:
            found = await self._source.signing_keys(timeout=FETCH_SECONDS)
        except ApiError as error:
            problem = f"{type(error).__name__}, status {error.status}"
            if problem != self._problem:
                log.warning("the API server's keys cannot be had, so each login needs a TokenReview: %s", problem)
            self._problem = problem
            raise KeysUnavailableError from error
        self._problem = ""
        return found
