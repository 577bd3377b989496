"""The page at /docs that shows the OpenAPI document and sends calls from a form. Serves its own few files alone.

The files are this project's own and stand in `docs/`: neither gateway nor browser loads anything from another server.
Anyone may read them, as /openapi.json; the form sends ordinary calls, with the token that is typed into it.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from aiohttp import web

_TYPES = {
    "index.html": "text/html",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    "page.js": "text/javascript",
    "dom.js": "text/javascript",
    "schema.js": "text/javascript",
    "tryit.js": "text/javascript",
}
# No other server, no inline script or style, no text used as HTML by a script, no frame of another page.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def add_routes(router: web.UrlDispatcher) -> None:
    """/docs and the page's files. Its links are relative: it works behind a proxy that adds a path prefix."""
    router.add_get("/docs", _page)
    router.add_get("/docs/", _to_page)
    router.add_get("/docs/{name:[a-z]+[.](?:css|js|svg)}", _page)


async def _page(request: web.Request) -> web.Response:
    name = request.match_info.get("name", "index.html")
    if name not in _TYPES:
        raise web.HTTPNotFound
    return web.Response(body=_file(name), content_type=_TYPES[name], charset="utf-8", headers=_HEADERS)


async def _to_page(_: web.Request) -> web.Response:
    """A slash at the end would change what the page's relative links mean."""
    return web.Response(status=308, headers={"Location": "../docs", **_HEADERS})


@cache
def _file(name: str) -> bytes:
    """One of the page's files: read once, at its first request."""
    return resources.files("linkis_ecm.gateway.pages").joinpath("docs", name).read_bytes()
