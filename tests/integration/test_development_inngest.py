"""Where Inngest is: the REST API's address, and where `serve --fake-inngest` starts no fake."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from service.config.settings import Settings
from service.config.values import InngestAddress
from service.dev.fake_inngest.server import FakeInngest, FakeOptions
from service.errors import ConfigurationError
from service.inngest.rest_api import make_rest_api
from service.outbox.inngest_id import encode_ulid
from service.processes import development_inngest
from service.processes.development_inngest import open_inngest
from tests.support.storage import PATIENCE_SECONDS

NOWHERE = InngestAddress("http://127.0.0.1:9", "http://127.0.0.1:9", "key", None)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process's variables, without those of Inngest's."""
    for name in [name for name in os.environ if name.startswith("INNGEST_")]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    "name",
    [
        *("INNGEST_DEV", "INNGEST_BASE_URL", "INNGEST_ENV", "INNGEST_SIGNING_KEY"),
        "INNGEST_SIGNING_KEY_FALLBACK",  # the SDK's alone
    ],
)
async def test_any_variable_of_inngests_keeps_the_fake_away(
    environment: pytest.MonkeyPatch, name: str
) -> None:
    environment.setenv("INNGEST_TWO", "2")
    environment.setenv(name, "http://127.0.0.1:9")
    said: list[str] = []
    settings = Settings.load({})
    async with open_inngest(settings, fake=True, say=said.append) as known:
        assert known.fake_inngest_url is None
    assert said == [f"No fake Inngest: {name}, INNGEST_TWO is set."]


async def test_a_blank_variable_counts_as_none(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("INNGEST_DEV", " ")
    said: list[str] = []
    async with open_inngest(Settings.load({}), fake=True, say=said.append):
        assert not any("is set" in one for one in said)


@pytest.mark.usefixtures("environment")
async def test_the_fake_has_its_own_port_or_beside_another_fake_a_free_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeInngest() as other:
        taken = urlsplit(other.url).port
        monkeypatch.setattr(development_inngest, "FAKE_INNGEST_PORT", taken)
        nowhere = Settings.load({}).with_known_inngest(NOWHERE)
        said: list[str] = []
        async with open_inngest(nowhere, fake=True, say=said.append) as known:
            assert known.fake_inngest_url not in (None, other.url)
        page = f"{known.fake_inngest_url}/fake-inngest/events"
        assert said == [f"Events go to a fake Inngest: see them at {page}"]

    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    waits: list[float] = []
    soon = SimpleNamespace(
        timeout=lambda s: asyncio.timeout(waits.append(s) or 0), open_connection=hangs
    )
    monkeypatch.setattr(development_inngest, "asyncio", soon)
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        open_inngest(nowhere, fake=True, say=str) as known,
    ):
        assert known.fake_inngest_url == other.url
    assert waits == [1]


@pytest.mark.usefixtures("environment")
async def test_without_the_flag_nothing_is_started_or_said() -> None:
    said: list[str] = []
    settings = Settings.load({})
    async with open_inngest(settings, fake=False, say=said.append) as known:
        assert known is settings
    assert said == []


async def test_production_refuses_the_flag_whatever_is_set(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("INNGEST_EVENT_KEY", "key")
    given = {"APP_ENV": "production", "SESSION_SECRET": "s" * 16, "INNGEST_EVENT_KEY": "key"}
    for host in ("127.0.0.1", "0.0.0.0"):
        production = Settings.load({**given, "HOST": host})
        with pytest.raises(ConfigurationError, match="can't be used in production"):
            async with open_inngest(production, fake=True, say=str):
                pass


KEY = "signkey-test-00112233445566778899aabbccddeeff"


@pytest.mark.parametrize(
    "variables",
    [
        ("INNGEST_BASE_URL",),
        ("INNGEST_EVENT_API_BASE_URL",),
        ("INNGEST_API_BASE_URL", "INNGEST_EVENT_API_BASE_URL"),
        ("INNGEST_DEV",),
    ],
)
async def test_each_way_to_name_a_server_of_ones_own_is_asked(http, variables):
    async with FakeInngest(options=FakeOptions(signing_key=KEY)) as api:
        given = dict.fromkeys(variables, api.url)
        settings = Settings.load({**given, "INNGEST_EVENT_KEY": "k", "INNGEST_SIGNING_KEY": KEY})
        events = make_rest_api(settings, http, timeout_seconds=30)
        assert events is not None
        assert await events.page(encode_ulid((1 << 128) - 1), 1) == []
    assert api.questions.requests == 1
