"""The names of Linkis's users, and the Linkis user that stands for a Kubernetes user. Pure."""

from __future__ import annotations

import hashlib
import re

from linkis_ecm.model import formats

_USER = re.compile(formats.USER_PATTERN)
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):([^:]+)")
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_.]")
# A name that looks like one of ours gets a suffix too, else a user could take the name of a service account.
_LIKE_MAPPED = re.compile(r"_(?:[0-9a-f]{6}|[0-9a-f]{16})$")
# Enough to tell names apart; where much of a name is lost, so much that another cannot be sought to fit.
_SHORT, _LONG = 6, 16


def is_user_name(name: str) -> bool:
    """Whether Linkis can have a user of that name."""
    return len(name) <= formats.USER_MAX and _USER.fullmatch(name) is not None


def user_name(name: str) -> str:
    """The Linkis user of a Kubernetes user: the same where it can be one, else one that is no other user's.

    `system:serviceaccount:<namespace>:<name>` becomes `<namespace>.<name>_<hash>`, other names lose only what no Linkis
    user may have; the hash is of the whole name.
    """
    account = _SERVICE_ACCOUNT.fullmatch(name)
    wanted = _NOT_ALLOWED.sub("_", f"{account[1]}.{account[2]}" if account else name)
    if wanted.startswith("."):
        wanted = f"_{wanted[1:]}"
    if wanted == name and len(name) <= formats.USER_MAX and not _LIKE_MAPPED.search(name):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    fits = len(wanted) + 1 + _SHORT <= formats.USER_MAX and name.isascii()
    suffix = digest[: _SHORT if fits else _LONG]
    return f"{wanted[: formats.USER_MAX - 1 - len(suffix)]}_{suffix}"
