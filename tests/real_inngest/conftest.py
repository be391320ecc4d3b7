"""The fake Inngest, and a real one where INNGEST_BIN names its program.

A real one is started once; a worker of an SDK is started by the first test that needs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from service.dev.fake_inngest.server import FakeInngest, FakeOptions
from tests.real_inngest.functions import functions
from tests.real_inngest.inngest_handle import Inngest
from tests.real_inngest.real_server import JAVASCRIPT, RealServer
from tests.support.confirmed_delivery import SIGNING_KEY
from tests.support.inngest_process import EVENT_KEY, REAL


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    if not REAL:
        pytest.skip("INNGEST_BIN names no server")
    server = RealServer(tmp_path_factory.mktemp("inngest"))
    try:
        yield server
    finally:
        server.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an `app` is done for each SDK's, any other one for the Python SDK's."""
    if "inngest" not in metafunc.fixturenames:
        return
    slow = pytest.mark.slow
    kinds = [("fake", "py"), ("real", "py")]
    if "app" in metafunc.fixturenames:
        kinds.insert(1, ("fake", "js4"))
    chosen = [pytest.param(one, id="-".join(one)) for one in kinds]
    if "app" in metafunc.fixturenames:
        chosen += [pytest.param(("real", js), id=f"real-{js}", marks=slow) for js in JAVASCRIPT]
    metafunc.parametrize("kind", chosen, scope="session")


@pytest.fixture
def app(kind: tuple[str, str]) -> str:
    """The app whose functions the test starts."""
    return kind[1]


@pytest.fixture
async def inngest(request: pytest.FixtureRequest, kind: tuple[str, str]) -> AsyncIterator[Inngest]:
    name, app = kind
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        if name == "real":
            server: RealServer = request.getfixturevalue("real_server")
            server.need(app)
            yield Inngest(http, server.url)
            return
        options = FakeOptions(keys=[EVENT_KEY], signing_key=SIGNING_KEY)
        fake = await stack.enter_async_context(FakeInngest(options=options))
        fake.runs.declare(*functions(app))
        yield Inngest(http, fake.url)
