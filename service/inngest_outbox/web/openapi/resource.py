"""GET /openapi.json, and GET /docs: Swagger UI over it, from files of this service alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import msgspec
from aiohttp import web

from inngest_outbox.web.openapi.document import describe
from inngest_outbox.web.openapi.endpoint import JSON, Endpoint
from inngest_outbox.web.server.security_headers import page_policy

# Of a package whose own code is not used.
_PACKAGE = "swagger_ui"
_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")
_BEGIN = (
    'SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", validatorUrl: null, deepLinking: true,'
    " presets: [SwaggerUIBundle.presets.apis]})"
)
_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/{_FILES[0]}">
<title>Outbox for Inngest</title>
</head>
<body>
<div id="ui"></div>
<noscript><a href="/openapi.json">The description</a>; this page needs JavaScript.</noscript>
<script src="/docs/{_FILES[1]}"></script>
<script>{_BEGIN}</script>
</body>
</html>
"""


class OpenApi:
    """The handlers of the description and of its page."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._json = msgspec.json.encode(describe(endpoints))
        self._page_headers = {"Content-Security-Policy": page_policy(_BEGIN, files=True)}

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get("/openapi.json", self.document),
            web.get("/docs", self.docs),
            *(web.get(f"/docs/{name}", self.file) for name in _FILES),
        ]

    async def document(self, request: web.Request) -> web.Response:
        """The OpenAPI document."""
        del request
        return web.Response(body=self._json, content_type=JSON)

    async def docs(self, request: web.Request) -> web.Response:
        """The document as a page."""
        del request
        return web.Response(text=_PAGE, content_type="text/html", headers=self._page_headers)

    async def file(self, request: web.Request) -> web.FileResponse:
        """A file of the page. A browser asks again each time, and gets 304 for what it has."""
        name = request.path.rpartition("/")[2]
        return web.FileResponse(_folder() / name, headers={"Cache-Control": "no-cache"})


def _folder() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"{_PACKAGE} is not installed.")
    return Path(found.submodule_search_locations[0]) / "static"
