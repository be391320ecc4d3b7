"""Appends of a front process: many in a message, each answered by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from service.errors import IdempotencyKeyReusedError
from service.outbox.keys import IdempotencyKey, Receipt
from service.outbox.link.messages import Appends
from service.outbox.link.store_link import LinkPolicy
from tests.support.remote_storage import Line, front, remote_outbox, scripted_store, unix_socket
from tests.support.storage import PATIENCE_SECONDS, SqliteStorage, event


async def test_events_of_one_turn_share_messages_that_are_bounded(short_path: Path) -> None:
    arrived: asyncio.Queue[Appends] = asyncio.Queue()

    async def take(line: Line) -> None:
        while message := await line.heard():
            assert isinstance(message, Appends)
            arrived.put_nowait(message)

    patient = LinkPolicy(patience_seconds=PATIENCE_SECONDS, silence_seconds=PATIENCE_SECONDS)
    with unix_socket(short_path / "store") as listening:
        async with scripted_store(listening, take), front(short_path / "store", patient) as remote:
            sent = [event() for _ in range(20)] + [event(size=700_000) for _ in range(4)]
            posts = [asyncio.create_task(remote.intake.append(each)) for each in sent]
            messages = [await arrived.get() for _ in range(2)]
            for post in posts:
                post.cancel()
    assert [one.event for each in messages for one in each.events] == sent
    assert all(sum(len(one.event.payload) for one in each.events) < 2**21 for each in messages)


async def test_an_event_that_is_refused_fails_alone(short_path: Path) -> None:
    async with (
        SqliteStorage(short_path / "outbox.db").open() as store,
        remote_outbox(store) as remote,
    ):
        key, other = (IdempotencyKey("k", bytes([n]) * 32) for n in (1, 2))
        await remote.intake.append(event(), key=key)
        found = await asyncio.gather(
            remote.intake.append(event()),
            remote.intake.append(event(), key=other),
            remote.intake.append(event(), key=key),
            return_exceptions=True,
        )
        assert [type(one) for one in found] == [Receipt, IdempotencyKeyReusedError, Receipt]
        assert (await store.inspector.stats()).pending == 2
