"""A process that closes and drops partitions again and again, as a service's purge does.

`python -m tests.support.partition_dropper URL`: with a retention of seconds, until it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from service.errors import OutboxUnavailableError
from service.outbox.postgres.partitions import PartitionPolicy, PostgresPartitions
from service.outbox.postgres.pool import PostgresPool

_POLICY = PartitionPolicy(share=0.5, least_seconds=0, least_rows=1)
_RETENTION_SECONDS = 2.0
_PAUSE_SECONDS = 0.2


async def drop_again_and_again(url: str) -> None:
    """Never returns."""
    async with PostgresPool(url) as pool:
        partitions = PostgresPartitions(pool, _POLICY)
        while True:
            with contextlib.suppress(OutboxUnavailableError):
                await partitions.drop_expired(_RETENTION_SECONDS)
            await asyncio.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    asyncio.run(drop_again_and_again(sys.argv[1]))
