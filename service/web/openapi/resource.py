"""GET /openapi.json and GET /docs."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

import msgspec
from aiohttp import web

from service.web.openapi.document import describe
from service.web.openapi.endpoint import JSON, Endpoint
from service.web.openapi.page import render_page
from service.web.server.security_headers import page_policy

_STYLE_FILE = "docs.css"


class OpenApi:
    """The handlers of the description and of its page."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        document = describe(endpoints)
        style = resources.files(__package__).joinpath(_STYLE_FILE).read_text("utf-8")
        self._json = msgspec.json.encode(document)
        self._page = render_page(document, style).encode()
        self._page_headers = {"Content-Security-Policy": page_policy(style)}

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.get("/openapi.json", self.document), web.get("/docs", self.docs)]

    async def document(self, request: web.Request) -> web.Response:
        """The OpenAPI document."""
        del request
        return web.Response(body=self._json, content_type=JSON)

    async def docs(self, request: web.Request) -> web.Response:
        """The document as a page."""
        del request
        return web.Response(
            body=self._page,
            content_type="text/html",
            charset="utf-8",
            headers=self._page_headers,
        )
