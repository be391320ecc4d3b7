"""A request is ready while the commit of its event runs, and leaves as soon as it has passed."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from service.errors import OutboxUnavailableError
from service.inngest.prepared_send import PreparedSend
from service.outbox.sqlite.store import SqliteOutbox
from tests.support.early_relay import early_relay
from tests.support.listening_server import TAKEN
from tests.support.storage import PATIENCE_SECONDS, event


async def test_while_the_commit_runs_there_is_a_connection_and_not_a_byte(
    outbox: SqliteOutbox,
) -> None:
    passed = threading.Event()

    def hold(statement: str) -> None:
        if statement == "COMMIT":
            passed.wait(PATIENCE_SECONDS)

    async with early_relay(outbox) as work:
        server = work.server
        server.answers.append(TAKEN)
        await outbox.writer.between_commits(lambda raw: raw.set_trace_callback(hold))
        sent = event()
        appending = asyncio.ensure_future(outbox.intake.append(sent))
        await server.until(lambda: bool(server.connections))
        assert not appending.done()
        assert server.received == b""
        passed.set()
        await appending
        await server.until(lambda: sent.payload in server.received)
        assert len(server.connections) == 1


async def test_the_request_begins_before_the_event_is_answered(
    outbox: SqliteOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    begin = PreparedSend.begin

    def noted(prepared: PreparedSend) -> bool:
        order.append("begin")
        return begin(prepared)

    monkeypatch.setattr(PreparedSend, "begin", noted)
    async with early_relay(outbox) as work:
        server = work.server
        server.answers.append(TAKEN)
        sent = event()
        appending = asyncio.ensure_future(outbox.intake.append(sent))
        appending.add_done_callback(lambda _: order.append("answer"))
        await appending
        assert order[:2] == ["begin", "answer"]
        await server.until(lambda: sent.payload in server.received)
        assert server.received.count(sent.payload) == 1


async def test_of_an_event_whose_commit_fails_not_a_byte_leaves(outbox: SqliteOutbox) -> None:
    def refuse(action: int, name: str | None, *_: object) -> int:
        is_commit = action == sqlite3.SQLITE_TRANSACTION and name == "COMMIT"
        return sqlite3.SQLITE_DENY if is_commit else sqlite3.SQLITE_OK

    async with early_relay(outbox, keep_seconds=1) as work:
        server = work.server
        await outbox.writer.between_commits(lambda raw: raw.set_authorizer(refuse))
        with pytest.raises((OutboxUnavailableError, sqlite3.DatabaseError)):
            await outbox.intake.append(event())
        await server.until(lambda: bool(server.connections) and server.connections[0].is_closed)
        assert server.received == b""
        await outbox.writer.between_commits(lambda raw: raw.set_authorizer(None))
