"""Builds the web application from its resources.

A request passes the error middleware (request id, errors, log line), preflights of allowed origins,
sessions, and the handler, in this order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from aiohttp import web

from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.web.openapi.endpoint import Endpoint
from inngest_outbox.web.openapi.resource import OpenApi
from inngest_outbox.web.pages.error_pages import ErrorPages
from inngest_outbox.web.server.body_budget import BodyBudget, body_budget_key
from inngest_outbox.web.server.cross_site import CrossSite
from inngest_outbox.web.server.middleware import error_middleware
from inngest_outbox.web.server.security_headers import install_security_headers


class Resource(Protocol):
    """A group of handlers."""

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        ...

    def endpoints(self) -> Iterable[Endpoint]:
        """Their entries of the API's description."""
        ...


def build_app(
    resources: Sequence[Resource],
    *,
    sessions: Sessions,
    cross_site: CrossSite,
    recorder: Recorder,
    error_pages: ErrorPages,
    body_budget: BodyBudget,
    secure: bool,
) -> web.Application:
    """The application with `resources` and the API's description mounted."""
    app = web.Application()
    app[body_budget_key] = body_budget
    app.middlewares.append(error_middleware(recorder, error_pages))
    cross_site.install(app)
    app.middlewares.append(sessions.middleware())
    install_security_headers(app, secure=secure)
    for resource in resources:
        app.router.add_routes(resource.routes())
    described = OpenApi(one for resource in resources for one in resource.endpoints())
    app.router.add_routes(described.routes())
    return app
