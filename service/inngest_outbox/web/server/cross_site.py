"""Requests of other sites: those that are refused, and the origins that may read answers.

Only browsers send `Origin` and `Sec-Fetch-Site`, and no page can change them. So a request without
them does not come from a page and passes. The service's own origin is in the Host header, or in
X-Forwarded-Host and X-Forwarded-Proto of a trusted proxy. Where clients use https, an http origin
is another site, because an eavesdropper can write its pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from inngest_outbox.errors import CrossSiteRequestError
from inngest_outbox.web.server.proxies import Proxies

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({None, "same-origin", "none"})
_HTTPS = "https"
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}
_PREFLIGHT = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "DELETE, GET, POST, PUT",
    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
}
_HEADERS = "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, traceparent"
# Inngest's SDKs add headers from one release to the next, so a preflight allows those it names.
_is_inngests = re.compile(r"x-inngest-[a-z-]{1,64}", re.IGNORECASE).fullmatch
_EXPOSED = "ETag, Idempotent-Replayed, Location, Retry-After, X-Request-Id"


class CrossSite:
    """The rule for requests from other sites.

    `allowed_origins` are trusted like the service's own. With `secure`, clients use https only.
    """

    def __init__(
        self,
        allowed_origins: Iterable[str],
        *,
        secure: bool,
        proxies: Proxies,
    ) -> None:
        self._allowed = frozenset(allowed_origins)
        self._secure = secure
        self._proxies = proxies

    def install(self, app: web.Application) -> None:
        """Answer preflights and let the allowed origins read answers, if there are any.

        Preflights of other origins raise CrossSiteRequestError, so install the error middleware
        before.
        """
        if self._allowed:
            app.middlewares.append(self._preflight)
            app.on_response_prepare.append(self._share)

    def check(self, request: web.Request) -> None:
        """Raise CrossSiteRequestError for a state-changing request that another site caused."""
        if request.method in _SAFE_METHODS:
            return
        headers = request.headers
        origin = headers.get(hdrs.ORIGIN)
        if origin in self._allowed:
            return
        if headers.get("Sec-Fetch-Site") not in _OWN_SITES:
            raise CrossSiteRequestError
        if origin is not None and not self._is_own(origin, request):
            raise CrossSiteRequestError

    def _is_own(self, origin: str, request: web.Request) -> bool:
        scheme, _, host = origin.lower().partition("://")
        port = _DEFAULT_PORTS.get(scheme)
        is_https = self._secure or self._proxies.scheme(request) == _HTTPS
        if port is None or not host or (is_https and scheme != _HTTPS):
            return False
        own = (request.headers.get(hdrs.HOST, ""), self._proxies.host(request))
        return host.removesuffix(port) in [name.lower().removesuffix(port) for name in own if name]

    @web.middleware
    async def _preflight(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        asks = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if request.method != hdrs.METH_OPTIONS or not asks:
            return await handler(request)
        if request.headers.get(hdrs.ORIGIN) not in self._allowed:
            raise CrossSiteRequestError
        headers = {**_PREFLIGHT, hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _allowed_headers(request)}
        return web.Response(status=204, headers=headers)

    async def _share(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in self._allowed and origin is not None:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED


def _allowed_headers(request: web.Request) -> str:
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "").split(",")
    return ", ".join([_HEADERS, *filter(_is_inngests, map(str.strip, asked))])
