"""What the operators' pages do with a form that no page of theirs makes, and at a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from aiohttp import web

from service.console.operations.views import Movement
from service.console.pages.changes import Changes
from service.console.pages.desk import Desk
from service.console.pages.overview import Overview
from service.identity.user import Operators, User
from service.observe.recorder import NullRecorder
from service.web.server.middleware import error_middleware
from tests.support.storage import PATIENCE_SECONDS

KIM = User("dev", "kim", "kim@example.com", email_verified=True)


class Silence:
    """Samples of an outbox of which there is none yet."""

    latest = None

    async def sample(self) -> None:
        pass

    async def watch(self) -> AsyncGenerator[Movement, None]:
        await asyncio.Event().wait()
        yield cast("Movement", None)


@pytest.fixture
def overview() -> Overview:
    nothing = cast("Any", None)
    return Overview(desk(), nothing, Silence(), nothing, nothing)


def desk() -> Desk:
    async def kim(request: web.Request) -> User:
        del request
        return KIM

    nothing = cast("Any", None)
    return Desk(kim, Operators(["kim@example.com"]), nothing, nothing)


@pytest.fixture
async def client(overview, aiohttp_client):
    app = web.Application(middlewares=[error_middleware(NullRecorder())])
    nothing = cast("Any", None)
    changes = Changes(desk(), nothing, nothing, nothing)
    app.add_routes([*overview.routes(), *changes.routes()])
    return await aiohttp_client(app)


async def test_a_stop_ends_the_live_figures(client, overview):
    async with asyncio.timeout(PATIENCE_SECONDS), client.get("/outbox/live") as answer:
        await overview.close()
        assert await answer.read() == b""


async def test_live_figures_that_begin_during_a_stop_end_at_once(client, overview):
    """Their request has arrived before the stop and is still being checked."""
    await overview.close()
    async with asyncio.timeout(PATIENCE_SECONDS), client.get("/outbox/live") as answer:
        assert await answer.read() == b""


async def test_a_form_of_too_many_fields_is_refused(client):
    answer = await client.post("/outbox/pause", data=b"a=1&" * 2_001)
    assert (answer.status, (await answer.json())["code"]) == (400, "invalid_field")
