from __future__ import annotations

import psycopg

from service.outbox.postgres.marks import LOOK
from service.outbox.schema import migrate
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PostgresStorage, append_all, claim


async def test_the_first_event_of_a_new_outbox_is_claimed_however_late_it_comes(
    postgres: PostgresServer,
) -> None:
    with postgres.database("fresh_sequences") as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            for _ in range(4):
                connection.execute(LOOK, {"interval_seconds": 0.0})
        async with PostgresStorage(url).open() as outbox:
            [appended] = await append_all(outbox, 1)
            batch = await claim(outbox)
    assert [entry.event_id for entry in batch.entries] == [appended.id]
