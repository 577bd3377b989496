"""What both processes read of JSON Web Tokens and key sets before a signature is checked.

Must not decide who is let in.
"""

from __future__ import annotations

import base64
import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from joserfc.jwk import JWKRegistry, Key, RSAKey

log = logging.getLogger(__name__)

KEY_TYPES = frozenset({"RSA", "EC", "OKP"})
RSA_BITS = 2048  # NIST's least
# The year 10000 in seconds since 1970: what is larger is no time.
LAST_TIME = 253_402_300_800


def unverified_part(token: str, number: int) -> dict[str, Any] | None:
    """The header (0) or the claims (1) of a JWT, not verified; None where it is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        part = json.loads(base64.urlsafe_b64decode(parts[number] + "=" * (-len(parts[number]) % 4)))
    except (ValueError, RecursionError):
        return None
    return part if isinstance(part, dict) else None


def end_of(claims: Mapping[str, Any]) -> float:
    """When a token of these claims ends (exp), in seconds since 1970; infinity where they say no time."""
    ends = claims.get("exp")
    return float(ends) if isinstance(ends, int | float) and abs(ends) < LAST_TIME else math.inf


def public_key(data: Any) -> Key | None:
    """A key of a key set that can verify signatures; None for other keys, of which a set may have any."""
    if not isinstance(data, dict) or str(data.get("kty")) not in KEY_TYPES or "d" in data:
        return None
    try:
        key = JWKRegistry.import_key(data)
    except Exception as error:
        # joserfc and cryptography raise many types, and one bad key must not disable the others.
        log.warning("a key of the issuer cannot be used: %s", type(error).__name__)
        return None
    if isinstance(key, RSAKey) and key.raw_value.key_size < RSA_BITS:
        log.warning("a key of the issuer has fewer than %d bits and does not count", RSA_BITS)
        return None
    return key
