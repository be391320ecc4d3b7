"""An outbox that is restored from a backup gives new events ULIDs that no other event has."""

from __future__ import annotations

import msgspec

from service.outbox.event import Meta
from service.outbox.model import Filter
from service.outbox.schema import migrate
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PostgresStorage, event

AT_MS = 1_795_559_419_447


async def ulids(url: str, appended: int) -> dict[int, str]:
    """The ULIDs by number, after so many more events of one moment."""
    async with PostgresStorage(url).open() as outbox:
        for _ in range(appended):
            one = msgspec.structs.replace(event(), accepted_at_ms=AT_MS, meta=Meta())
            receipt = await outbox.intake.append(one)
            row = await outbox.intake.find(one.id)
            assert row is not None
            assert row.inngest_id == receipt.inngest_id
        rows = await outbox.inspector.rows(Filter())
        return {row.seq: row.inngest_id or "" for row in rows}


async def test_a_copy_of_an_outbox_gives_the_next_numbers_other_ulids(
    postgres: PostgresServer,
) -> None:
    with postgres.database("original") as original:
        migrate(original)
        before = await ulids(original, 3)
        with postgres.database("restored", template="original") as restored:
            there, here = await ulids(original, 2), await ulids(restored, 2)
            assert there.items() & here.items() == before.items()
            assert there.keys() == here.keys()
            assert await ulids(restored, 0) == here


async def test_a_second_start_on_the_same_server_goes_on_with_its_ulids(
    postgres_url: str,
) -> None:
    one, two = await ulids(postgres_url, 1), await ulids(postgres_url, 1)
    [first, second] = sorted(two.values())
    assert first in one.values()
    assert first[:-2] == second[:-2]
