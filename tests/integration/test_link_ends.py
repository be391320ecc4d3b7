"""Calls of a front whose store says nothing more, at moments when nobody seems to look."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.errors import OutboxUnavailableError
from service.observe.recorder import NullRecorder
from service.outbox.link.messages import PROTOCOL, Closing, Hello, Status
from service.outbox.link.outbox import open_remote_outbox
from service.outbox.link.store_link import LinkPolicy
from service.supervisor import run_supervisor
from tests.support.remote_storage import remote_outbox, unix_socket
from tests.support.storage import PATIENCE_SECONDS, SqliteStorage, event

_QUICK = LinkPolicy(
    patience_seconds=0.2, closing_patience_seconds=0.3, retry_seconds=0.05, silence_seconds=0.1
)


def message(struct: msgspec.Struct) -> bytes:
    body = msgspec.msgpack.encode(struct)
    return len(body).to_bytes(4, "big") + body


async def test_a_call_ends_when_the_store_hangs_after_it_has_said_that_it_closes(
    tmp_path: Path,
) -> None:
    async def close_and_hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(message(Status()))
        with contextlib.suppress(ConnectionError):
            await reader.readexactly(len(message(Hello(PROTOCOL))) + 1)  # a call has begun
            writer.write(message(Closing()))
            await reader.read()
        writer.close()

    with unix_socket(tmp_path / "store") as listening:
        server = await asyncio.start_unix_server(close_and_hang, sock=listening)
        async with (
            run_supervisor(NullRecorder()) as supervisor,
            open_remote_outbox(str(tmp_path / "store"), supervisor, _QUICK) as remote,
        ):
            async with asyncio.timeout(PATIENCE_SECONDS):
                with pytest.raises(OutboxUnavailableError):
                    await remote.intake.append(event())
        server.close()


@pytest.mark.parametrize("fault", ["cancelled", "not encodable"])
async def test_every_call_has_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    async def payload(_: Any, event_id: str) -> object:
        del event_id
        if fault == "cancelled":
            raise asyncio.CancelledError
        return object()

    async with SqliteStorage(tmp_path / "outbox.db").open() as store:
        kind: Any = type(store.inspector)
        monkeypatch.setattr(kind, "payload", payload)
        async with remote_outbox(store) as remote, asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(OutboxUnavailableError):
                await remote.inspector.payload("x")
