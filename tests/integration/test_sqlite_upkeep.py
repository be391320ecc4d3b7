"""An SQLite outbox stays small: old rows, free pages, the write-ahead log."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

from service.outbox.sqlite_outbox import SqliteOutbox
from service.outbox.sqlite_upkeep import KEPT_LOG_BYTES
from tests.contract.storage import append_all, ask, claim, deliver, event


async def test_old_delivered_rows_go_and_their_space_comes_back(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    for _ in range(60):
        await asyncio.gather(*(outbox.append(event(size=100_000)) for _ in range(5)))
        await deliver(outbox, await claim(outbox, ask(max_bytes=1 << 30)))
    await outbox.tidy()
    await outbox.tidy()
    full = path.stat().st_size
    assert full > 25_000_000
    kept = await append_all(outbox, 1)
    assert await outbox.purge(older_than_seconds=-1, actor=None) == 300
    await outbox.tidy()
    await outbox.tidy()
    assert path.stat().st_size < full / 3
    assert (await outbox.find(kept[0].id)) is not None
    assert await outbox.audit(10) == []


async def test_an_idle_outbox_cuts_a_large_log_and_a_reader_only_delays_that(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    log = path.with_name("outbox.db-wal")
    await append_all(outbox, 1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM outbox").fetchall()
        for _ in range(6):
            await outbox.append(event(size=1_000_000))
        await outbox.tidy()
        began = time.monotonic()
        await outbox.tidy()
        assert time.monotonic() - began < 0.5
        assert log.stat().st_size > KEPT_LOG_BYTES
    await outbox.tidy()
    assert log.stat().st_size == 0
    await append_all(outbox, 1)
    small = log.stat().st_size
    await outbox.tidy()
    await outbox.tidy()
    assert log.stat().st_size == small > 0


async def test_the_log_stays_bounded_under_constant_load(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    log = tmp_path / "outbox.db-wal"
    largest = 0
    for _ in range(80):
        await asyncio.gather(*(outbox.append(event(size=100_000)) for _ in range(5)))
        await deliver(outbox, await claim(outbox, ask(max_bytes=1 << 30)))
        await outbox.stats()
        largest = max(largest, log.stat().st_size)
    assert largest < 20_000_000
