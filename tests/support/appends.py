"""Calls that wait to be stored on PostgreSQL, made without a database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from service.outbox.event import Event
from service.outbox.keys import IdempotencyKey
from service.outbox.postgres.appends import Append
from tests.support.storage import event


def call(
    *events: Event,
    keys: Sequence[IdempotencyKey | None] | None = None,
    fair_share: bool = False,
    within_seconds: float = 2.0,
) -> Append:
    """A call of these events, of one without any; somebody waits for it."""
    given = events or (event(),)
    return Append(
        given,
        keys or [None] * len(given),
        None,
        fair_share=fair_share,
        done=asyncio.get_running_loop().create_future(),
        deadline=time.monotonic() + within_seconds,
    )
