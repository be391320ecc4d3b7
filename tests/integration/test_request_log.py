"""Which requests get a line in the log."""

from __future__ import annotations

import pytest
from aiohttp import web

from service.observe.logs import request_log
from service.observe.metrics import PrometheusRecorder
from service.web.server.middleware import error_middleware

PROBES = ("/healthz", "/readyz", "/metrics")


@pytest.fixture
def lines(monkeypatch):
    """The lines of the requests."""
    seen = []
    monkeypatch.setattr(request_log, "enabled", True)
    monkeypatch.setattr(request_log, "write", seen.append)
    return seen


@pytest.fixture
async def browser(aiohttp_client):
    """A client of an app whose probes answer with the status that the query names."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=int(request.query.get("status", "200")))

    app = web.Application(middlewares=[error_middleware(PrometheusRecorder())])
    app.router.add_routes([web.get(path, answer) for path in (*PROBES, "/api/events")])
    return await aiohttp_client(app)


@pytest.mark.parametrize("path", PROBES)
async def test_a_probe_is_logged_only_when_it_fails(browser, lines, path):
    await browser.get(path)
    assert lines == []
    await browser.get(path, params={"status": "503"})
    [line] = lines
    assert (line.route, line.status) == (path, 503)


async def test_a_request_is_logged(browser, lines):
    await browser.get("/api/events")
    [line] = lines
    assert (line.route, line.status) == ("/api/events", 200)
