"""Old delivered rows are purged in pages, now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import structlog

from inngest_outbox.errors import OutboxBusyError, OutboxUnavailableError
from inngest_outbox.outbox.retention import run_retention
from inngest_outbox.outbox.sqlite.repairs import PAUSE_SECONDS, PurgedPage, SqlitePurger
from tests.support.virtual_time import in_virtual_time, now


class Pages(SqlitePurger):
    """A purger that removes so many rows in each page, or fails."""

    def __init__(self, removed: Sequence[int | Exception]) -> None:
        self._removed = removed
        self.asked: list[tuple[int, float]] = []
        self.began: list[float] = []
        self.ended: list[tuple[int, str | None]] = []

    async def purge_page(self, after_seq: int, older_than_seconds: float) -> PurgedPage:
        page = len(self.asked)
        self.asked.append((after_seq, older_than_seconds))
        self.began.append(now())
        removed = self._removed[page]
        if isinstance(removed, Exception):
            raise removed
        is_last = page + 1 == len(self._removed)
        return PurgedPage(None if is_last else 10 * (page + 1), removed)

    async def purge_ended(self, removed: int, actor: str | None) -> None:
        self.ended.append((removed, actor))


@in_virtual_time
async def test_the_pages_follow_each_other_with_a_pause_after_each_that_removed_rows() -> None:
    pages = Pages([3, 0, 2])
    assert await pages.purge(older_than_seconds=60.0, actor="ada") == 5
    assert pages.asked == [(0, 60.0), (10, 60.0), (20, 60.0)]
    assert pages.began == [0.0, PAUSE_SECONDS, PAUSE_SECONDS]
    assert now() == 2 * PAUSE_SECONDS
    assert pages.ended == [(5, "ada")]


@in_virtual_time
async def test_a_page_that_removes_nothing_lets_others_run_and_is_not_noted() -> None:
    pages, ran = Pages([0]), list[str]()
    asyncio.get_running_loop().call_soon(ran.append, "other")
    assert await pages.purge(older_than_seconds=60.0, actor="ada") == 0
    assert (ran, pages.ended) == (["other"], [])


@pytest.mark.parametrize(("first", "noted"), [(1, [(1, "ada")]), (0, [])])
@in_virtual_time
async def test_what_was_removed_before_it_makes_way_is_noted(
    first: int, noted: list[tuple[int, str]]
) -> None:
    pages = Pages([first, OutboxBusyError()])
    with pytest.raises(OutboxBusyError):
        await pages.purge(older_than_seconds=60.0, actor="ada")
    assert pages.ended == noted


class Repairs:
    """Purges at which virtual times, and what each does; the last cancels."""

    def __init__(self, results: Sequence[int | Exception]) -> None:
        self._results = [*results, asyncio.CancelledError()]
        self.times: list[float] = []
        self.asked: set[tuple[float, str | None]] = set()
        self.payloads: list[float] = []

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        self.times.append(now())
        self.asked.add((older_than_seconds, actor))
        result = self._results[len(self.times) - 1]
        if isinstance(result, BaseException):
            raise result
        return result

    async def purge_payloads(self, *, older_than_seconds: float) -> int:
        self.payloads.append(older_than_seconds)
        return 4 * (len(self.payloads) - 1)


def kept(
    retention_seconds: float,
    results: Sequence[int | Exception],
    payload_seconds: float | None = None,
) -> Repairs:
    repairs = Repairs(results)

    @in_virtual_time
    async def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            await run_retention(repairs, retention_seconds, payload_seconds)

    run()
    return repairs


@pytest.mark.parametrize(
    ("retention", "pause"), [(2.0, 1.0), (50.0, 5.0), (6000.0, 600.0), (86_400.0, 600.0)]
)
def test_it_purges_ten_times_in_a_retention_or_every_ten_minutes(
    retention: float, pause: float
) -> None:
    repairs = kept(retention, [1, 0])
    assert repairs.times == [0.0, pause, 2 * pause]
    assert repairs.asked == {(retention, None)}


@pytest.mark.parametrize(("retention", "pause"), [(2.0, 1.0), (86_400.0, 5.0)])
def test_a_purge_that_fails_is_tried_again_soon_and_logged(retention: float, pause: float) -> None:
    with structlog.testing.capture_logs() as lines:
        repairs = kept(retention, [OutboxUnavailableError("the disk is full"), 0])
    assert repairs.times[1] == pause
    reason = "the disk is full"
    assert lines == [{"event": "purge_failed", "log_level": "warning", "reason": reason}]


@pytest.mark.parametrize("payload_seconds", [None, 0.0, 59.0, 60.0])
def test_only_a_purge_that_removed_rows_or_payloads_is_logged(
    payload_seconds: float | None,
) -> None:
    with structlog.testing.capture_logs() as lines:
        repairs = kept(60.0, [0, 7], payload_seconds)
    purges = [payload_seconds] * 2 if payload_seconds in (0.0, 59.0) else []
    assert repairs.payloads == purges
    said = [("purged", 7)] + ([("payloads_purged", 4)] if purges else [])
    assert lines == [{"event": name, "log_level": "info", "rows": rows} for name, rows in said]
