"""Inngest's REST API is asked at the address that the configuration gives."""

from __future__ import annotations

import pytest

from service.config.settings import Settings
from service.dev.fake_inngest.server import FakeInngest, FakeOptions
from service.inngest.rest_api import make_rest_api
from service.outbox.inngest_id import encode_ulid

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
