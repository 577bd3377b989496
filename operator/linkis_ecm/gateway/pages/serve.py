"""The pages for a browser: /docs shows the OpenAPI document, /console shows and runs engines, and / leads to it.
Serves their files alone.

The files stand in `docs/` and `console/`; the console's libraries in `console/vendor/` are npm's, pinned by
tools/vendor.py. Neither gateway nor browser loads anything from another server. Anyone may read the files, as
/openapi.json: what they show comes from ordinary calls, with the login of whoever uses the page.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from importlib import resources

from aiohttp import web

from linkis_ecm.gateway.http.compression import accepts_gzip

_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "svg": "image/svg+xml",
    "js": "text/javascript",
    "mjs": "text/javascript",
}
# No other server, no inline script or style, no frame of another page. Trusted Types: no script may use text as HTML.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Site:
    """One page with its files. `policy`: what its Content-Security-Policy allows besides."""

    name: str
    policy: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Security-Policy": f"{_POLICY}; {self.policy}", **_HEADERS}


DOCS = Site("docs", "img-src 'self'")
# Pictures that code has made. One Trusted Types policy makes the text of a frame that runs no script.
CONSOLE = Site("console", "img-src 'self' data: blob:; trusted-types console-frame")


def add_routes(router: web.UrlDispatcher) -> None:
    """Each page, and its files. Their links are relative: they work behind a proxy that adds a path prefix."""
    for site in (DOCS, CONSOLE):
        _add_site(router, site)
    router.add_get("/", _to_console)


async def _to_console(_: web.Request) -> web.Response:
    """Who opens the gateway's address in a browser is looking for the console."""
    return web.Response(status=307, headers={"Location": CONSOLE.name, **CONSOLE.headers})


def _add_site(router: web.UrlDispatcher, site: Site) -> None:
    async def page(request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        if name not in _names(site.name):
            raise web.HTTPNotFound
        plain, packed = _file(site.name, name)
        use_gzip = accepts_gzip(request.headers.get("Accept-Encoding", ""))
        return web.Response(
            body=packed if use_gzip else plain,
            content_type=_TYPES[name.rpartition(".")[2]],
            charset="utf-8",
            headers={**site.headers, "Vary": "Accept-Encoding", **({"Content-Encoding": "gzip"} if use_gzip else {})},
        )

    async def to_page(_: web.Request) -> web.Response:
        """A slash at the end, or a name, would change what the page's relative links mean."""
        return web.Response(status=308, headers={"Location": f"../{site.name}", **site.headers})

    router.add_get(f"/{site.name}", page)
    router.add_get(f"/{site.name}/", to_page)
    router.add_get(f"/{site.name}/index.html", to_page)
    router.add_get(f"/{site.name}/{{name:(?:vendor/)?[a-z]+[.](?:css|m?js|svg|html)}}", page)


@cache
def _names(site: str) -> frozenset[str]:
    """The files of a page, as they are in its folder and in `vendor/`."""
    folder = resources.files("linkis_ecm.gateway.pages").joinpath(site)
    entries = [
        (prefix, entry.name)
        for prefix in ("", "vendor")
        if folder.joinpath(prefix).is_dir()
        for entry in folder.joinpath(prefix).iterdir()
    ]
    return frozenset(
        f"{prefix}/{name}" if prefix else name for prefix, name in entries if name.rpartition(".")[2] in _TYPES
    )


@cache
def _file(site: str, name: str) -> tuple[bytes, bytes]:
    """One of a page's files, as it is and as gzip: read and packed once, at its first request."""
    plain = resources.files("linkis_ecm.gateway.pages").joinpath(site, *name.split("/")).read_bytes()
    return plain, gzip.compress(plain, mtime=0)
