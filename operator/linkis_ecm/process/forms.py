"""Forms of settings that several processes read: namespaces, host:port, URLs, users. Each variable has one form
everywhere, so that what the operator takes the gateway takes, too.

What a refusal repeats of a value never has a secret: of a URL no more than scheme and host (`shown_value`). Must not
know what a setting is for.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from linkis_ecm.model.users import is_login, linkis_user
from linkis_ecm.process.environment import Form, names, shown_value

# A DNS label (RFC 1123): a namespace's name, and a Service's.
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
# What Kubernetes adds to a container's environment for a Service named ecm-…, and what tests and agents have besides.
_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$")


def _namespace(text: str) -> str:
    if not re.fullmatch(_LABEL, text):
        raise ValueError(
            f"is {shown_value(text)}, which is no namespace: write a name of lower-case letters, digits and '-'"
        )
    return text


def _service(text: str) -> str:
    if not re.fullmatch(_LABEL, text):
        raise ValueError(f"is {shown_value(text)}: write a Service's name of lower-case letters, digits and '-'")
    return text


def _lease(text: str) -> str:
    if not re.fullmatch(_LABEL, text):
        raise ValueError(f"is {shown_value(text)}: write a Lease's name of lower-case letters, digits and '-'")
    return text


def _configmap(text: str) -> str:
    if not re.fullmatch(_LABEL, text):
        raise ValueError(f"is {shown_value(text)}: write a ConfigMap's name of lower-case letters, digits and '-'")
    return text


def _host_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not re.fullmatch(_HOST, host) or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"is {shown_value(text)}: write host:port, such as ecm-gateway.linkis:9102")
    return text


def _http_url(text: str) -> str:
    if text and _parts(text, ("http", "https")) is None:
        raise ValueError(f"is {shown_value(text)}: write a URL that begins with https:// or http:// and names a host")
    return text


def _users(text: str) -> tuple[str, ...]:
    """People's names as they log in, or as Linkis has them: the users that they are in Linkis."""
    # Another separator, or a list in quotes, is no name.
    found = names(r"""[^\s,;"'][^\s,;"]*""", "user name of Linkis").parse(text)
    for name in found:
        if not is_login(name):
            raise ValueError(
                f"holds {shown_value(name)}, which is no user name of Linkis: write names with commas between them"
            )
    return tuple(map(linkis_user, found))


def _networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    found = []
    for name in names(what="network").parse(text):
        try:
            found.append(ipaddress.ip_network(name))
        except ValueError:
            raise ValueError(
                f"holds {shown_value(name)}, which is no network: write CIDRs with commas between them, such as"
                " 10.244.0.0/16 or 192.0.2.7"
            ) from None
    return tuple(found)


def _origin(text: str) -> str:
    # The agent's client speaks no TLS: it starts in each pod, and its requests stay in the cluster.
    if _parts(text, ("http",)) is None or not re.fullmatch(r"http://[^/?#\s@]+", text):
        raise ValueError(f"is {shown_value(text)}: write scheme, host and port only, such as http://host:9103")
    return text


def _origins(text: str) -> dict[str, str]:
    return {_namespace(name): _origin(url) for name, url in _object(text, str).items()}


def _namespaces_by_lease(text: str) -> dict[str, tuple[str, ...]]:
    return {_lease(name): tuple(map(_namespace, found)) for name, found in _object(text, list).items()}


def _object(text: str, of: type[str] | type[list[Any]]) -> dict[str, Any]:
    """A JSON object whose values are all texts, or all lists of texts."""
    what = f"is {shown_value(text)}: write a JSON object of {'texts' if of is str else 'lists of texts'}"
    try:
        found = json.loads(text)
    except ValueError:
        raise ValueError(what) from None
    values = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(value, of) and all(isinstance(one, str) for one in value) for value in values):
        raise ValueError(what)
    return dict(found)


def _parts(text: str, schemes: Iterable[str]) -> str | None:
    """The URL's host; None for a text that is no URL of one of the schemes."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    usable = parts.scheme in schemes and bool(parts.hostname) and not re.search(r"\s", text)
    return parts.hostname if usable else None


NAMESPACE = Form("a namespace", _namespace)
NAMESPACES = names(_LABEL, "namespace")
USERS = Form("names with commas between them", _users)
NETWORKS = Form("CIDRs with commas between them", _networks)
SERVICE = Form("a Service's name", _service)
LEASE = Form("a Lease's name", _lease)
CONFIGMAP = Form("a ConfigMap's name", _configmap)
HOST_PORT = Form("host:port", _host_port)
HTTP_URL = Form("URL", _http_url)
ORIGIN = Form("URL of scheme, host and port", _origin)
ORIGINS = Form("JSON: such a URL by namespace", _origins)
NAMESPACES_BY_LEASE = Form("JSON: lists of namespaces by Lease", _namespaces_by_lease)


def misspelled(variables: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """A sentence for each ECM_ variable that no process reads, with the nearest name that one does."""
    read = sorted(set(known))
    sentences = []
    for name in sorted(variables):
        if not name.startswith("ECM_") or name in read or _SERVICE_LINK.search(name):
            continue
        near = get_close_matches(name, read, n=1, cutoff=0.7)
        hint = f"did you mean {near[0]}?" if near else "docs/settings.md has all names"
        sentences.append(f"{name[:100]} is set and nothing reads it: {hint}")
    return sentences
