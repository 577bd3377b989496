"""The names of Linkis's users, and the Linkis user that stands for a Kubernetes user. Pure."""

from __future__ import annotations

import hashlib
import re

from linkis_ecm.model import formats

_USER = re.compile(formats.USER_PATTERN)
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):([^:]+)")
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_.]")
# A name that looks like a mapped one gets a suffix too, else a user could take the name of a service account.
_LIKE_MAPPED = re.compile(r"_(?:[0-9a-f]{6}|[0-9a-f]{16})$")
# Characters of the hash: enough to distinguish names; where much of a name is lost, enough that no second name with the
# same hash can be found.
_SHORT, _LONG = 6, 16


def is_user_name(name: str) -> bool:
    """Whether Linkis can have a user of that name."""
    return len(name) <= formats.USER_MAX and _USER.fullmatch(name) is not None


def user_name(name: str) -> str:
    """The Linkis user of a Kubernetes user: the same name where Linkis allows it, else a name that no other user has.

    `system:serviceaccount:<namespace>:<name>` becomes `<namespace>.<name>_<hash>`; in other names only the
    characters that Linkis does not allow are replaced. The hash is of the whole name.
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
