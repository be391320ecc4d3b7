"""Where Inngest is: the REST API's address, and where `serve --fake-inngest` starts no fake."""

from __future__ import annotations

import asyncio
import contextlib
import os
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import InngestAddress
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.errors import ConfigurationError
from inngest_outbox.processes import development_inngest
from inngest_outbox.processes.development_inngest import open_inngest
from tests.support.storage import PATIENCE_SECONDS

NOWHERE = InngestAddress("http://127.0.0.1:9", "http://127.0.0.1:9", "key", None)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process's variables, without those of Inngest's."""
    for name in [name for name in os.environ if name.startswith("INNGEST_")]:
        monkeypatch.delenv(name)
    return monkeypatch


NAMES = (
    *("INNGEST_DEV", "INNGEST_BASE_URL", "INNGEST_ENV", "INNGEST_SIGNING_KEY"),
    "INNGEST_SIGNING_KEY_FALLBACK",  # the SDK's alone
)
PRODUCTION = {
    "APP_ENV": "production",
    "HOST": "0.0.0.0",
    "SESSION_SECRET": "s" * 16,
    "INNGEST_EVENT_KEY": "key",
}


@pytest.mark.parametrize("variable", [None, *NAMES])
@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("given", [{}, PRODUCTION])
@pytest.mark.parametrize("flag", [False, True])
async def test_a_fake_is_started_only_by_the_flag_in_development_where_no_other_inngest_is(
    environment: pytest.MonkeyPatch,
    variable: str | None,
    given: dict[str, str],
    *,
    flag: bool,
    answers: bool,
) -> None:
    environment.setenv("INNGEST_BLANK", " ")
    if variable:
        environment.setenv(variable, "http://127.0.0.1:9")
        environment.setenv("INNGEST_TWO", "2")
    said: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        server = NOWHERE.event_api_origin
        if answers:
            server = (await stack.enter_async_context(FakeInngest())).url
        address = InngestAddress(server, server, "key", None)
        settings = Settings.load(given).with_known_inngest(address)
        opening = open_inngest(settings, fake=flag, say=said.append)
        if flag and given:
            with pytest.raises(ConfigurationError, match="can't be used in production"):
                await stack.enter_async_context(opening)
            return
        known = await stack.enter_async_context(opening)
    fake = known.fake_inngest_url
    told = (
        [f"No fake Inngest: {variable}, INNGEST_TWO is set."]
        if variable
        else [f"No fake Inngest: a dev server answers at {server}."]
        if answers
        else [f"Events go to a fake Inngest: see them at {fake}/fake-inngest/events"]
    )
    assert said == (told if flag else [])
    assert (known is settings) is (not flag or bool(variable) or answers)


@pytest.mark.usefixtures("environment")
async def test_the_fake_has_its_own_port_or_beside_another_fake_a_free_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeInngest() as other:
        taken = urlsplit(other.url).port
        monkeypatch.setattr(development_inngest, "FAKE_INNGEST_PORT", taken)
        nowhere = Settings.load({}).with_known_inngest(NOWHERE)
        async with open_inngest(nowhere, fake=True, say=str) as known:
            assert known.fake_inngest_url not in (None, other.url)

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
