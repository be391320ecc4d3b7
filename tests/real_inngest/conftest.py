"""The fake Inngest, and a real one where INNGEST_BIN names its program.

Each is started once, and what runs beside it by the first test that needs it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import aiohttp
import pytest

from tests.real_inngest.inngest_handle import Inngest
from tests.real_inngest.servers import JAVASCRIPT, FakeServer, RealServer, Server
from tests.support.inngest_process import REAL

SERVERS = ["fake", "real"] if REAL else ["fake"]


class Kind(NamedTuple):
    """The server that a test is held against, the app that it uses, and the way of its events."""

    server: str
    app: str = "py"
    way: str = "direct"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an `app` is done for each SDK's; one that is marked, through the service too."""
    if "inngest" not in metafunc.fixturenames:
        return
    relayed = metafunc.definition.get_closest_marker("relayed")
    ways = ["direct", "relayed"] if relayed else ["direct"]
    if relayed and relayed.kwargs.get("only"):
        ways = ["relayed"]
    kinds = [Kind(server, way=way) for way in ways for server in SERVERS]
    chosen = [pytest.param(one, id="-".join(one)) for one in kinds]
    if "app" in metafunc.fixturenames:
        others = [("fake", "js4"), *(("real", app) for app in JAVASCRIPT if REAL)]
        javascript = [Kind(server, app, ways[0]) for server, app in others]
        slow = pytest.mark.slow
        chosen += [pytest.param(one, id="-".join(one), marks=slow) for one in javascript]
    metafunc.parametrize("kind", chosen, scope="session")


@pytest.fixture(scope="session")
def fake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = FakeServer(tmp_path_factory.mktemp("fake"))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = RealServer(tmp_path_factory.mktemp("inngest"))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def app(kind: Kind) -> str:
    """The app whose functions the test starts."""
    return kind.app


@pytest.fixture
async def inngest(request: pytest.FixtureRequest, kind: Kind) -> AsyncIterator[Inngest]:
    server: Server = request.getfixturevalue(f"{kind.server}_server")
    server.need(kind.app)
    async with aiohttp.ClientSession() as http:
        relayed = server.service_url if kind.way == "relayed" else None
        yield Inngest(http, server.url, relayed, server.outbox_url)
