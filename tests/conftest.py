from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.stand_in.event_api import EventApi


@pytest.fixture
async def inngest_api() -> AsyncIterator[EventApi]:
    async with EventApi() as api:
        yield api
