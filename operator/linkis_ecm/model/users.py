"""The names of people as companies have them, and as Linkis can bear them: one rule for logins, resources, labels, rows
and log folders.

Linkis writes a user into the label `user-creator,engineType-version` and into the folder `user/day/type/ticket/logs`,
and splits both again; its history takes letters, digits, '_' and '.' alone. A name of these characters is the same in
Linkis. Each other character becomes `_x` and two hexadecimal digits, as jane-doe becomes jane_x2ddoe: nothing is lost,
and no two names become one. Upper and lower case are different names, as in Linkis's own tables. Pure.
"""

from __future__ import annotations

import hashlib
import re

from linkis_ecm.model.formats import USER_MAX, USER_PATTERN

# What spec.user and a request's user may be: printable, without blanks at the ends. A slash and a first dot are there
# rather a path's than a name's; who has one is written in Linkis's form. The blank is written out: \s is ASCII's blanks
# to the API server and Unicode's to pydantic, and an object that only one of them takes is not seen by the operator.
LOGIN_PATTERN = r"^[^ ./\x00-\x1f\x7f]([^/\x00-\x1f\x7f]*[^ /\x00-\x1f\x7f])?$"
LOGIN_MAX = 256

_USER = re.compile(USER_PATTERN)
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):([^:]+)")
# What a mapped name has, and a name that is not mapped must not have, or it could be another user's.
_LIKE_ESCAPED = re.compile(r"_(?=x[0-9a-f]{2})")
# 16 digits are those of names that were mapped before the hash had 20.
_LIKE_HASHED = re.compile(r"_(?=(?:[0-9a-f]{6}|[0-9a-f]{16}|[0-9a-f]{20})$)")
_ESCAPED = re.compile(r"_x([0-9a-f]{2})")
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_.]|^\.")
# Characters of the hash. Where it decides whose name it is, 80 bits: a second name with the same 24 bits was found in a
# minute. A service account of Kubernetes's own characters that fits keeps all of its name, so no other one has it: the
# few digits only tell it from a name that is not mapped.
_SHORT, _LONG = 6, 20
# A DNS label has no "." and no "_", and a DNS name no "_": what replaces "-" cannot be mistaken, nor the first ".".
_DNS_ACCOUNT = re.compile(r"system:serviceaccount:[a-z0-9-]+:[a-z0-9.-]+")


def is_login(name: str) -> bool:
    """Whether somebody can have that name."""
    return 0 < len(name) <= LOGIN_MAX and name.isprintable() and name == name.strip()


def is_linkis_user(name: str) -> bool:
    """Whether Linkis takes the name as it is."""
    return len(name) <= USER_MAX and _USER.fullmatch(name) is not None


def user_name(name: str) -> str:
    """The Linkis user of a name that an identity provider has checked. No two names have the same user.

    `system:serviceaccount:<namespace>:<name>` becomes `<namespace>.<name>_<hash>`. A name that is too long when it is
    escaped is cut and gets a hash of the whole: it is the only one that cannot be turned back.
    """
    account = _SERVICE_ACCOUNT.fullmatch(name)
    if account is not None:
        return _hashed(re.sub(r"[^A-Za-z0-9_.]", "_", f"{account[1]}.{account[2]}"), name)
    escaped = _NOT_ALLOWED.sub(_escape, _LIKE_HASHED.sub("_x5f", _LIKE_ESCAPED.sub("_x5f", name)))
    return escaped if len(escaped) <= USER_MAX else _hashed(re.sub(r"[^A-Za-z0-9_.]", "_", name), name)


def linkis_user(name: str) -> str:
    """The Linkis user of a name that is written down in either form, in a setting, a request or a resource."""
    return name if is_linkis_user(name) else user_name(name)


def login_of(user: str) -> str:
    """The name that `user_name` was given; of a user with a hash, the user as it is."""
    if _LIKE_HASHED.search(user):
        return user
    return re.sub(
        r"(?:_x[0-9a-f]{2})+",
        lambda found: bytes.fromhex("".join(_ESCAPED.findall(found[0]))).decode(errors="replace"),
        user,
    )


def _escape(found: re.Match[str]) -> str:
    return "".join(f"_x{byte:02x}" for byte in found[0].encode(errors="surrogatepass"))


def _hashed(wanted: str, name: str) -> str:
    if wanted.startswith("."):
        wanted = f"_{wanted[1:]}"
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    fits = len(wanted) + 1 + _SHORT <= USER_MAX and _DNS_ACCOUNT.fullmatch(name) is not None
    suffix = digest[: _SHORT if fits else _LONG]
    return f"{wanted[: USER_MAX - 1 - len(suffix)]}_{suffix}"
