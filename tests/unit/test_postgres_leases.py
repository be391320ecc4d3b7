"""Which claims a process on PostgreSQL holds, and which it has lost, with a pool that answers."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.postgres import leases as module
from service.outbox.postgres.leases import EXPIRE, RELEASE, PostgresLeases


class Pool:
    """Counts three rows for each statement; fails where `error` is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.error: Exception | None = None

    async def run(self, statement: str, given: Any) -> list[tuple[int]]:
        self.asked.append((statement, given))
        if self.error:
            raise self.error
        return [(3,)]

    def released(self) -> list[tuple[set[str], bool]]:
        """The claims that were released since the last call, and whether as sent."""
        asked, self.asked = self.asked, []
        assert all(statement == RELEASE for statement, _ in asked)
        return [(set(given["claims"]), given["sent"]) for _, given in asked]


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.fixture
def leases(pool: Pool) -> PostgresLeases:
    given: Any = pool
    return PostgresLeases(given)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is: its only element."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


async def test_what_a_process_holds_is_released_as_sent(leases: PostgresLeases, pool: Pool) -> None:
    for claim in ("a", "b", "c"):
        leases.hold(claim, 30.0)
    leases.forget("b")
    leases.forget("never held")
    assert await leases.release_held() == 3
    assert pool.released() == [({"a", "c"}, True)]
    await leases.release_held()
    assert pool.released() == [(set(), True)]


async def test_a_claim_whose_lease_is_over_is_not_held(
    leases: PostgresLeases, pool: Pool, clock: list[float]
) -> None:
    leases.hold("short", 10.0)
    leases.hold("long", 10.5)
    clock[0] += 10.0
    leases.hold("new", 10.0)
    await leases.release_held()
    assert pool.released() == [({"long", "new"}, True)]


async def test_a_lost_claim_is_released_once_as_not_sent(
    leases: PostgresLeases, pool: Pool
) -> None:
    assert await leases.release_lost() == 0
    assert pool.asked == []
    leases.hold("a", 30.0)
    leases.lose("a")
    leases.lose("b")
    assert await leases.release_lost() == 3
    assert pool.released() == [({"a", "b"}, False)]
    assert await leases.release_lost() == 0
    await leases.release_held()
    assert pool.released() == [(set(), True)]


async def test_a_lost_claim_stays_lost_while_it_can_t_be_released(
    leases: PostgresLeases, pool: Pool
) -> None:
    leases.lose("a")
    pool.error = OutboxUnavailableError()
    with pytest.raises(OutboxUnavailableError):
        await leases.release_lost()
    pool.error = None
    pool.released()
    await leases.release_lost()
    assert pool.released() == [({"a"}, False)]


async def test_what_is_lost_during_a_release_is_released_by_the_next(
    leases: PostgresLeases, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases.lose("a")
    run = pool.run

    async def lose_another(statement: str, given: Any) -> list[tuple[int]]:
        leases.lose("b")
        return await run(statement, given)

    monkeypatch.setattr(pool, "run", lose_another)
    await leases.release_lost()
    monkeypatch.setattr(pool, "run", run)
    await leases.release_lost()
    assert pool.released() == [({"a"}, False), ({"b"}, False)]


async def test_leases_end_as_sent(leases: PostgresLeases, pool: Pool) -> None:
    assert await leases.expire() == 3
    assert pool.asked == [(EXPIRE, {"sent": True})]
