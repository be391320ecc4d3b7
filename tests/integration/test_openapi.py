"""The API's description of a whole service, against the specification and the routes."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web
from openapi_spec_validator import validate

from service.bootstrap.service import run_service
from service.config.settings import Settings
from service.fake_inngest.server import FakeInngest

# The description itself, and pages for people.
_NOT_DESCRIBED = ("/openapi.json", "/docs", "/outbox")


@pytest.fixture
async def app(tmp_path: Path, inngest_api: FakeInngest):
    settings = Settings.load(
        {
            "OUTBOX_URL": f"sqlite:///{tmp_path / 'outbox.db'}",
            "INNGEST_DEV": inngest_api.url,
            "OIDC_ISSUER": "https://identity.example.com",
            "OIDC_CLIENT_ID": "outbox",
        }
    )
    async with run_service(settings) as service:
        yield service.app


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }


async def test_it_is_openapi_3_1_and_has_every_route(app, aiohttp_client):
    client = await aiohttp_client(app)
    answer = await client.get("/openapi.json")
    document = await answer.json()
    validate(document)
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    expected = {one for one in routes_of(app) if not one[1].startswith(_NOT_DESCRIBED)}
    assert document["openapi"].startswith("3.1")
    assert described == expected


async def test_its_page_needs_nothing_from_elsewhere(app, aiohttp_client):
    client = await aiohttp_client(app)
    answer = await client.get("/docs")
    page = await answer.text()
    assert "/api/route" in page
    assert "://" not in page
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_uploads_without_a_bucket_name_the_variables_that_are_missing(app, aiohttp_client):
    client = await aiohttp_client(app)
    answer = await client.post("/api/uploads", json={})
    refused = await answer.json()
    assert (answer.status, refused["code"]) == (503, "storage_not_configured")
    assert "AWS_S3_REGION, AWS_S3_BUCKET" in refused["error"]
