"""Rows are verified in pages; what Inngest does not answer is unknown, never missing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec import structs

from inngest_outbox.console.operations.search import Search, SearchPolicy
from inngest_outbox.console.operations.verification import Verification, verify
from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.held import HeldEvent
from inngest_outbox.inngest.runs import EventRun
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.inngest_id import decode_ulid, encode_ulid
from inngest_outbox.outbox.model import Filter, State
from tests.support.listed_outbox import ListedOutbox
from tests.support.made_row import made_row

BASE = decode_ulid("01KB08Z4Q0XW5M7T3Y8S000000")
ONE = encode_ulid(BASE + 1)


def outbox(count: int, **changes: object) -> ListedOutbox:
    """Delivered rows e-1, e-2 …, and one that waits."""
    return ListedOutbox(
        made_row(
            State.DELIVERED if seq <= count else State.PENDING,
            **{"id": f"e-{seq}", "seq": seq, "inngest_id": encode_ulid(BASE + seq), **changes},
        )
        for seq in range(1, count + 2)
    )


class Inngest:
    """It holds all rows but the 7th, and gives no answer about those in `silent`."""

    def __init__(self, silent: range = range(0), environment: str | None = None) -> None:
        self._silent, self._environment = silent, environment

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> Sequence[HeldEvent]:
        assert environment == self._environment
        newest = decode_ulid(before) - BASE - 1
        if newest in self._silent:
            raise InngestApiError("no answer")
        numbers = (seq for seq in range(newest, newest - limit, -1) if seq != 7)
        return [HeldEvent(encode_ulid(BASE + seq), f"e-{seq}") for seq in numbers]

    async def run_ids(self, ulid: str, environment: str | None = None) -> Sequence[str]:
        assert environment == self._environment
        seq = decode_ulid(ulid) - BASE
        if seq == 4:
            raise InngestApiError
        known = {1: ["Completed", "gone", "Failed"], 2: [], 3: ["gone"], 6: ["Completed", "silent"]}
        return known.get(seq, ["Running"])

    async def run(self, run_id: str, environment: str | None = None) -> EventRun | None:
        assert environment == self._environment
        if run_id == "silent":
            raise InngestApiError
        return None if run_id == "gone" else EventRun(run_id, run_id.upper())


async def verified(
    rows: ListedOutbox, inngest: Inngest, *, with_runs: bool = False, **wanted: object
) -> Verification:
    search = Search(rows, rows)  # type: ignore[arg-type]
    return await verify(search, inngest, Filter(**wanted), with_runs=with_runs)  # type: ignore[arg-type]


async def test_all_pages_are_asked_for_and_one_without_an_answer_is_unknown() -> None:
    rows = outbox(1_100)
    found = await verified(rows, Inngest(), limit=3, state=State.PENDING)
    assert found == Verification(1_100, 1_099, ["e-7"], [])
    assert max(one.limit for one in rows.asked) == 501  # a row more says that another page follows
    found = await verified(rows, Inngest(range(101, 601)), with_runs=True)
    unknown = [f"e-{seq}" for seq in range(600, 100, -1)]
    runs = {"running": 594, "completed": 1, "failed": 1, "none": 2, "unknown": 2}
    assert found == Verification(1_100, 599, ["e-7"], unknown, runs, "no answer")


async def test_given_ids_are_asked_for_in_pages() -> None:
    rows = outbox(1_100)
    ids = (*(f"e-{seq}" for seq in range(1, 702)), "e-1101")  # the last is not delivered
    assert await verified(rows, Inngest(), ids=ids) == Verification(701, 700, ["e-7"], [])
    assert [len(one.ids or ()) for one in rows.asked] == [500, 202]
    unknown = [f"e-{seq}" for seq in range(500, 0, -1)]
    found = await verified(rows, Inngest(range(1, 501)), ids=ids)
    assert found == Verification(701, 201, [], unknown, None, "no answer")


async def test_pages_of_a_search_that_pauses_are_all_asked_for() -> None:
    rows = outbox(10)
    sent = {"seq": 1, "inngest_id": encode_ulid(BASE + 7), "meta": Meta(answered_id=ONE)}
    rows.rows_in_it[0] = made_row(State.DELIVERED, id="e-1", user_id="u-2", **sent)
    hasty = SearchPolicy(first_window=2, window=2, budget_seconds=0.0)
    search = Search(rows, rows, hasty)  # type: ignore[arg-type]
    found = await verify(search, Inngest(), Filter(user_id="u-2"), with_runs=False)  # type: ignore[arg-type]
    assert found == Verification(1, 1, [], [])


@pytest.mark.parametrize("environment", [None, "branch/a"])
async def test_runs_are_counted_by_their_words(environment: str | None) -> None:
    meta, inngest = Meta(environment=environment), Inngest(environment=environment)
    rows = outbox(8, meta=meta)
    answered = {"inngest_id": encode_ulid(BASE + 5), "meta": structs.replace(meta, answered_id=ONE)}
    rows.rows_in_it[0] = structs.replace(rows.rows_in_it[0], **answered)
    found = await verified(rows, inngest, with_runs=True)
    runs = {"completed": 1, "failed": 1, "none": 2, "unknown": 2, "running": 2}
    assert found == Verification(8, 7, ["e-7"], [], runs)
