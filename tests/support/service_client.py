"""A whole service in the test's own process, and an HTTP client of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import DummyCookieJar
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import BaseRunner

from inngest_outbox.bootstrap.service import Service, run_service
from inngest_outbox.config.settings import Settings
from inngest_outbox.web.server.server import HttpServer
from tests.support.described_answers import described_answers
from tests.support.judged_answer import JudgedAnswer

Client = TestClient[Any, Any]


class _Server(TestServer):
    """The server that `serve` runs."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.app)
        self._recorder = service.recorder

    async def _make_runner(self, **_: Any) -> BaseRunner:
        return HttpServer(self.app, self._recorder)


@contextlib.asynccontextmanager
async def service_client(
    folder: Path, *, keeps_cookies: bool = True, **environ: str
) -> AsyncIterator[tuple[Service, Client]]:
    """A service with these variables, an outbox in `folder` and an Inngest that is away."""
    given = {
        "OUTBOX_URL": f"sqlite:///{folder / 'outbox.db'}",
        "INNGEST_DEV": "http://127.0.0.1:9",
        **environ,
    }
    cookies: dict[str, Any] = {} if keeps_cookies else {"cookie_jar": DummyCookieJar()}
    async with (
        run_service(Settings.load(given)) as service,
        described_answers(service.app),
        TestClient(_Server(service), response_class=JudgedAnswer, **cookies) as client,
    ):
        yield service, client
