"""When a pool runs a statement again, for how long, and what it makes of a loss."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from service.errors import OutboxUnavailableError
from service.outbox.postgres import pool as module
from service.outbox.postgres.executor import LostError
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.timings import PoolTimings

ROWS = [(1,)]
CONFLICT = psycopg.errors.SerializationFailure()


def lost(cause: Exception | None = None) -> LostError:
    error = LostError()
    error.__cause__ = cause
    return error


class World:
    """The connections and the gate of a pool, with answers and a clock that a test decides."""

    statements = 7
    failure = "why"
    returns = 3

    def __init__(self) -> None:
        self.now = 100.0
        self.answers: list[Any] = []
        self.executed: list[tuple[float, str, Any, bool, bool]] = []
        self.takes_seconds = 0.0
        self.made: list[Any] = []
        self.gates: list[float] = []
        self.lost: list[BaseException] = []
        self.steps: list[str] = []

    async def __aenter__(self) -> None:
        self.steps.append("open")

    async def __aexit__(self, *_: object) -> None:
        self.steps.append("closed")

    async def close(self) -> None:
        self.steps.append("no gate")

    async def renew(self) -> None:
        return

    def lose(self, error: BaseException) -> None:
        self.lost.append(error)

    async def pass_gate(self, deadline: float) -> None:
        self.gates.append(deadline)

    async def execute(
        self, deadline: float, statement: str, given: Any, *, planned: bool, heed: bool
    ) -> Any:
        self.executed.append((deadline, statement, given, planned, heed))
        self.now += self.takes_seconds
        answer = self.answers.pop(0) if self.answers else ROWS
        if isinstance(answer, Exception):
            raise answer
        return answer

    def given(self) -> list[Any]:
        """The parameters of each execution."""
        return [given for _, _, given, _, _ in self.executed]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()

    def made(*given: Any) -> World:
        found.made.append(given)
        return found

    monkeypatch.setattr(module, "PostgresExecutor", made)
    monkeypatch.setattr(module, "Availability", made)
    monkeypatch.setattr(module.time, "monotonic", lambda: found.now)
    return found


@pytest.fixture
def pool(world: World) -> PostgresPool:
    return PostgresPool("url", max_connections=3)


async def test_a_statement_has_a_deadline_and_its_parameters(
    pool: PostgresPool, world: World
) -> None:
    assert await pool.run("S", {"a": 1}) == ROWS
    await pool.run("S", within_seconds=0.5, replicated=True)
    assert world.executed == [
        (102.0, "S", {"a": 1}, False, False),
        (100.5, "S", None, False, True),
    ]
    assert world.gates == [102.0, 100.5]


async def test_a_persons_question_has_more_time_and_a_plan_of_its_own(
    pool: PostgresPool, world: World
) -> None:
    assert await pool.ask("S", {"a": 1}) == ROWS
    await pool.ask("S", often=True)
    assert world.executed == [
        (110.0, "S", {"a": 1}, True, False),
        (110.0, "S", None, False, False),
    ]


async def test_the_waits_of_a_pool_are_a_policy(world: World) -> None:
    pool = PostgresPool("url", timings=PoolTimings(0.1, 0.2, 0.3))
    await pool.run("S")
    await pool.ask("S")
    assert [deadline for deadline, *_ in world.executed] == [100.2, 100.3]
    assert world.made == [("url", module.MAX_CONNECTIONS, 0.1), ("url", world.renew)]


@pytest.mark.parametrize(
    ("given", "repeat", "again"),
    [
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1, "b": 2}, {"repeat_with": {"b": 3}}, {"a": 1, "b": 3}),
        (None, {"repeat_with": {"b": 3}}, {"b": 3}),
    ],
)
@pytest.mark.parametrize("method", ["run", "ask"])
async def test_a_statement_whose_connection_broke_runs_again(
    pool: PostgresPool, world: World, method: str, given: Any, repeat: Any, again: Any
) -> None:
    cause = OSError()
    world.answers = [lost(cause), lost()]
    assert await getattr(pool, method)("S", given, **repeat) == ROWS
    assert world.given() == [given, again, again]
    assert world.lost == [cause]
    assert len(world.gates) == 3


@pytest.mark.parametrize("method", ["run", "ask"])
async def test_a_statement_that_must_not_be_repeated_is_not(
    pool: PostgresPool, world: World, method: str
) -> None:
    cause = OSError()
    world.answers = [lost(cause)]
    with pytest.raises(OutboxUnavailableError) as raised:
        await getattr(pool, method)("S", repeat_with=None)
    assert raised.value.__cause__ is cause
    assert (len(world.executed), world.lost) == (1, [cause])


@pytest.mark.parametrize(("seconds", "executions"), [(1.0, 2), (1.9, 2), (2.0, 1), (2.1, 1)])
@pytest.mark.parametrize("error", [lost(OSError()), lost(), CONFLICT])
async def test_a_statement_runs_again_until_its_deadline(
    pool: PostgresPool, world: World, error: Exception, seconds: float, executions: int
) -> None:
    world.answers = [error] * 2
    world.takes_seconds = seconds
    with pytest.raises(OutboxUnavailableError):
        await pool.run("S")
    assert len(world.executed) == executions


async def test_a_conflict_runs_again_as_it_was_even_if_it_must_not_be_repeated(
    pool: PostgresPool, world: World
) -> None:
    """It changed nothing."""
    world.answers = [CONFLICT, CONFLICT]
    assert await pool.run("S", {"a": 1}, repeat_with=None) == ROWS
    await pool.run("S", {"a": 1}, repeat_with={"a": 2})
    assert world.given() == [{"a": 1}] * 4
    assert world.lost == []


async def test_a_late_statement_means_that_the_database_is_lost(
    pool: PostgresPool, world: World
) -> None:
    late = TimeoutError()
    world.answers = [late, late]
    with pytest.raises(OutboxUnavailableError):
        await pool.run("S")
    assert world.lost == [late]
    with pytest.raises(OutboxUnavailableError):
        await pool.ask("S")
    assert world.lost == [late]


async def test_a_pool_closes_its_gate_before_its_connections(
    pool: PostgresPool, world: World
) -> None:
    async with pool as opened:
        assert opened is pool
        assert world.steps == ["open"]
    assert world.steps == ["open", "no gate", "closed"]
    assert (pool.statements, pool.failure, pool.returns) == (7, "why", 3)
