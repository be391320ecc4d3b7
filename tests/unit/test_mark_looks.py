"""What a process makes of a look at the marks of PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from service.outbox.postgres.express import ExpressRows
from service.outbox.postgres.marks import LOOK, PostgresMarks


class Pool:
    def __init__(self, express: ExpressRows) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.found = (False, False, 1, 1)
        self.stored_meanwhile = False
        self._express = express

    async def run(self, statement: str, given: Any) -> list[tuple[Any, ...]]:
        self.asked.append((statement, given))
        if self.stored_meanwhile:
            self._express.stored()
        return [self.found]


@pytest.mark.parametrize("found", [False, True])
@pytest.mark.parametrize("meanwhile", [False, True])
@pytest.mark.parametrize("over", [False, True, None])
async def test_a_look_finds_leases_that_are_over_and_express_rows(
    *, over: bool | None, found: bool, meanwhile: bool
) -> None:
    express = ExpressRows()
    pool: Any = Pool(express)
    pool.found, pool.stored_meanwhile = (over, found, 1, 1), meanwhile
    assert await PostgresMarks(pool, express).look(0.5) is bool(over)
    assert pool.asked == [(LOOK, {"interval_seconds": 0.5})]
    assert express.may_wait is (found or meanwhile)
