"""How bytes reach the API server: the asyncio part of the `kubernetes` package, with raw responses.

The package gives configuration (kubeconfig, in-cluster token and its rotation, exec plugins), TLS and the HTTP session.
Its typed models are left out: they validate each response and cost more than all else (numbers in docs/design/kube.md).
Must not retry, parse objects or know verbs: that is `client`'s. Tests put an in-memory `Transport` in its place.
"""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import orjson
from kubernetes.aio import config as kube_config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from yaml import YAMLError

from linkis_ecm import __version__
from linkis_ecm.kube.errors import KubeconfigError, ReplyTooLarge, Unreachable

USER_AGENT = f"linkis-ecm/{__version__}"
# A connect to a live API server takes milliseconds; three seconds also cover one lost SYN (1 s) and its double (2 s).
CONNECT_TIMEOUT = 3.0
# Seconds for which an idle connection is kept. aiohttp's own 15 would end those of the policies' reading, each 30 s
# (controller.policies), and a user's start would wait for four handshakes of TLS. The API server keeps them for 90, a
# load balancer in front of it for some 50.
KEEPALIVE_SECONDS = 45.0
# A page of 500 pods has some 5 MiB. Users may make each of theirs 1.5 MiB long, etcd's limit: such pages are asked for
# again with fewer objects.
REPLY_BYTES = 64 << 20
_SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


# Errors that mean "no answer"; the kubernetes package raises ConfigException where a token file is missing or empty.
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, kube_config.ConfigException)


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the API server; `body` is anything that JSON can hold."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    accept: str = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """A running watch; `reply.body` is the whole answer where the status is no success, else empty."""

    reply: Reply
    chunks: AsyncIterator[bytes]


class Transport(Protocol):
    """What KubeClient needs. Every failure to get an answer is raised as `Unreachable`."""

    async def request(self, request: Request, *, timeout: float) -> Reply: ...

    def stream(self, request: Request, *, timeout: float) -> AbstractAsyncContextManager[Stream]:
        """A watch; `timeout` bounds the wait for the first answer, not the stream."""

    async def refresh(self) -> None:
        """Fetches the credentials anew: the API server has refused them."""

    async def close(self) -> None: ...


def _kubeconfig_path(explicit: str | None) -> str | None:
    """The path given, else KUBECONFIG, else None in a pod with a service account, else ~/.kube/config."""
    path = explicit or os.environ.get("KUBECONFIG")
    if not path and "KUBERNETES_SERVICE_HOST" in os.environ and _SERVICE_ACCOUNT_TOKEN.is_file():
        return None
    path = path or str(Path("~/.kube/config").expanduser())
    if not any(Path(part).is_file() for part in path.split(os.pathsep)):
        raise KubeconfigError(f"no kubeconfig at {path}: set KUBECONFIG, or run in a pod with a service account")
    return path


async def load_configuration(kubeconfig: str | None = None) -> Configuration:
    """Where the API server is and who we are, from the first of those that `_kubeconfig_path` names."""
    configuration = Configuration()
    path = _kubeconfig_path(kubeconfig)
    try:
        if path is None:
            kube_config.load_incluster_config(client_configuration=configuration)
            return configuration
        await kube_config.load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
    except (kube_config.ConfigException, YAMLError, KeyError, TypeError, ValueError) as error:
        # In one line, and without the content of the file: it may hold a token.
        where = f"the kubeconfig {path}" if path is not None else "the pod's service account"
        raise KubeconfigError(
            f"{where} cannot be used ({type(error).__name__}): `kubectl cluster-info` with it must name a cluster"
        ) from error
    if configuration.proxy is None:
        configuration.proxy = _proxy_of_environment(configuration.host)
    return configuration


def _proxy_of_environment(host: str) -> str | None:
    """HTTPS_PROXY and NO_PROXY, read once. aiohttp's trust_env reads them, and .netrc in a thread, on each request."""
    url = urlsplit(host)
    if urllib.request.proxy_bypass(url.netloc):
        return None
    return urllib.request.getproxies().get(url.scheme)


class _Rest(RESTClientObject):  # type: ignore[misc]  # the package has no types
    """The package's session, with its TLS and its proxy, and with connections that are kept for KEEPALIVE_SECONDS.

    Its own `request` costs more than `send`.
    """

    pool_manager: aiohttp.ClientSession | None

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, keepalive_timeout=KEEPALIVE_SECONDS)

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: Any, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """One request."""
        if self.pool_manager is None:
            self.pool_manager = self._create_pool_manager()
        more: dict[str, Any] = {}
        if self.configuration.tls_server_name:
            more["server_hostname"] = self.configuration.tls_server_name
        if self.proxy:
            more["proxy"] = self.proxy
        if self.proxy_headers:
            more["proxy_headers"] = self.proxy_headers
        data = None if body is None else encoded(body)
        session: aiohttp.ClientSession = self.pool_manager
        return await session.request(method, url, headers=headers, data=data, timeout=limits, **more)


def encoded(body: Any) -> bytes:
    """A body as JSON. What orjson refuses (whole numbers of more than 64 bits, half of a character) goes as before."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body).encode()


class RestTransport:
    """The kubernetes package's REST client, used raw."""

    def __init__(self, configuration: Configuration, *, kubeconfig: str | None = None) -> None:
        # See _proxy_of_environment; and .netrc must never meet the Authorization header.
        # What is not asked for is not unpacked either: a few bytes become any number.
        configuration.client_session_kwargs = {"trust_env": False, "auto_decompress": False}
        self._configuration = configuration
        self._kubeconfig = kubeconfig
        self._rest = _Rest(configuration)
        # A watch holds its connection. In the pool of the calls some hundred of them, a few for each namespace, would
        # leave none for a call.
        self._watches = _Rest(configuration)
        self._watches.maxsize = 0  # no limit: each reflector has one

    async def request(self, request: Request, *, timeout: float) -> Reply:
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_TIMEOUT, timeout))
        try:
            answer = await self._send(self._rest, request, limits)
            data = await _read(answer, request)
        except _NO_ANSWER as error:
            raise Unreachable(_describe(error, request)) from error
        return Reply(answer.status, data, answer.headers)

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float) -> AsyncIterator[Stream]:
        limits = aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_TIMEOUT, timeout))
        try:
            async with asyncio.timeout(timeout):
                answer = await self._send(self._watches, request, limits)
                data = b"" if answer.status == 200 else await _read(answer, request)
        except _NO_ANSWER as error:
            raise Unreachable(_describe(error, request)) from error
        try:
            yield Stream(Reply(answer.status, data, answer.headers), self._chunks(answer, request))
        finally:
            # Not release(): a watch has no end to read up to, so its connection cannot be used again.
            answer.close()

    @staticmethod
    async def _chunks(response: aiohttp.ClientResponse, request: Request) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except _NO_ANSWER as error:
            raise Unreachable(_describe(error, request)) from error

    async def _send(
        self, rest: _Rest, request: Request, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:  # fmt: skip
        url = self._configuration.host + quote(request.path)
        if request.query:
            url += "?" + urlencode(request.query)
        # identity: next to the API server, unpacking gzip costs more than the bytes it saves.
        headers = {
            "Accept": request.accept,
            "Accept-Encoding": "identity",
            "Content-Type": request.content_type,
            "User-Agent": USER_AGENT,
        }
        for setting in (await self._configuration.auth_settings()).values():
            if setting["value"]:
                headers[setting["key"]] = setting["value"]
        return await rest.send(request.method, url, headers=headers, body=request.body, limits=limits)

    async def refresh(self) -> None:
        try:
            fresh = await load_configuration(self._kubeconfig)
        except _NO_ANSWER as error:
            raise Unreachable(f"fresh credentials: {type(error).__name__} ({error})") from error
        self._configuration.api_key = fresh.api_key
        self._configuration.refresh_api_key_hook = fresh.refresh_api_key_hook

    async def close(self) -> None:
        try:
            await self._rest.close()
        finally:
            await self._watches.close()


async def _read(response: aiohttp.ClientResponse, request: Request) -> bytes:
    """The body of at most REPLY_BYTES. Raises ReplyTooLarge."""
    try:
        if "Content-Encoding" in response.headers:
            raise Unreachable(f"{request.method} {request.path}: a packed answer, which was not asked for")
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > REPLY_BYTES:
                raise ReplyTooLarge(f"{request.method} {request.path}: more than {REPLY_BYTES} bytes")
        return bytes(data)
    finally:
        if response.content.is_eof():
            response.release()
        else:
            response.close()


def _describe(error: BaseException, request: Request) -> str:
    return f"{request.method} {request.path}: {type(error).__name__}{f' ({error})' if str(error) else ''}"
