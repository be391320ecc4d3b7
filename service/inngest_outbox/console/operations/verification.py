"""Proving afterwards that Inngest holds what was delivered.

The invariant: a row is missing only when Inngest answered and did not show its event. Where it gave
no answer, the row is unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence

import msgspec

from inngest_outbox.console.operations.bulk import PAGE, pages
from inngest_outbox.console.operations.search import Search
from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.held import find_held
from inngest_outbox.inngest.rest_api import RestApi
from inngest_outbox.outbox.inngest_id import decode_ulid
from inngest_outbox.outbox.model import Filter, Row, State

NO_RUN = "none"


class Verification(msgspec.Struct, frozen=True, rename="camel"):
    """Inngest's answers about delivered rows: how many were asked for, and the ids by answer.

    `runs` counts the held events by what became of their runs, null where that was not asked.
    `reason` is why some are unknown.
    """

    checked: int
    held: int
    missing: list[str]
    unknown: list[str]
    runs: dict[str, int] | None = None
    reason: str | None = None


async def verify(
    search: Search, reader: RestApi, wanted: Filter, *, with_runs: bool
) -> Verification:
    """Ask for every delivered row that matches `wanted`; its limit does not count.

    With `with_runs` each held event costs a request of its own.
    """
    held: list[Row] = []
    missing: list[str] = []
    unknown: list[str] = []
    reason = None
    async for rows in _pages(search, wanted):
        try:
            shown = await find_held(reader, {_ulid(row): row.as_sent for row in rows})
        except InngestApiError as error:
            reason = str(error)
            unknown += [row.id for row in rows]
            continue
        held += [row for row in rows if _ulid(row) in shown]
        missing += [row.id for row in rows if _ulid(row) not in shown]
    runs = await _runs(reader, held) if with_runs else None
    checked = len(held) + len(missing) + len(unknown)
    return Verification(checked, len(held), missing, unknown, runs, reason)


async def _pages(search: Search, wanted: Filter) -> AsyncIterator[list[Row]]:
    delivered = msgspec.structs.replace(wanted, state=State.DELIVERED, limit=PAGE)
    if wanted.ids is not None:
        for page in pages(wanted.ids):
            yield (await search.find(msgspec.structs.replace(delivered, ids=page))).rows
        return
    while True:
        found = await search.find(delivered)
        yield found.rows
        if found.next_seq is None:
            return
        delivered = msgspec.structs.replace(delivered, before_seq=found.next_seq)


async def _runs(reader: RestApi, held: Sequence[Row]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in held:
        try:
            environment = row.meta.environment
            ids = await reader.run_ids(row.at_inngest or "", environment)
            runs = [run for run_id in ids if (run := await reader.run(run_id, environment))]
        except InngestApiError:
            counts["unknown"] += 1
            continue
        counts.update([run.status.lower() for run in runs] or [NO_RUN])
    return dict(counts)


def _ulid(row: Row) -> int:
    return decode_ulid(row.at_inngest or "")
