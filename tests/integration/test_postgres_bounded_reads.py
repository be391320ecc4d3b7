"""No statement of the relay, of the counts or of the figures grows with the rows of the outbox.

Neither with those that wait, nor with those that were delivered, nor with dead ones, which an open
transaction keeps in the tables. With the number of partitions only what each of them is asked
grows. The pages that a statement touches are counted by EXPLAIN: among few rows, among many, and
with more partitions. What the service plans once was planned in an empty outbox, the worst moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from service.outbox.keys import IdempotencyKey
from service.outbox.model import ClaimRequest, Filter, Isolated, Named, Retry, Settlement, State
from service.outbox.postgres.appends import APPEND, FIND_STORED, Append, columns
from service.outbox.postgres.availability import PROBE
from service.outbox.postgres.claims import CLAIM, CLAIM_EXPRESS, NEXT_DUE, claim_values
from service.outbox.postgres.confirmations import CONFIRM, DELIVERED, MAY_ASK, RESEND, SENT
from service.outbox.postgres.connection import SET_UP
from service.outbox.postgres.counts import READ_CHANGES, READ_FOLDED
from service.outbox.postgres.delivery import LOAD_DELIVERY
from service.outbox.postgres.fold import FOLD
from service.outbox.postgres.inspector import OWNERS, STATS
from service.outbox.postgres.leases import EXPIRE, RELEASE
from service.outbox.postgres.marks import LOOK
from service.outbox.postgres.positions import MAX_NUMBERS, REACH
from service.outbox.postgres.repairs import DISCARD, PURGE, REPLAY
from service.outbox.postgres.rows import (
    COUNT_IN_STATE,
    ROWS,
    ROWS_BY_IDS,
    ROWS_IN_STATE,
    filter_values,
)
from service.outbox.postgres.settlements import SETTLE, settle_values
from service.outbox.schema import migrate
from tests.support.explained import PlannedOnce, explained, nodes, pages
from tests.support.partitions import close_partition
from tests.support.postgres_rows import analyze, append_rows, catch_up, pass_rows_through
from tests.support.postgres_server import PostgresServer, needed_postgres
from tests.support.storage import PostgresStorage, append_all, claim, event

EXPRESS = {
    "CTE express_new": "outbox_ready_express",
    "CTE express_delayed": "outbox_ready_express_delayed",
}
FEW = (4_000, 6_000)  # dead and waiting rows
PARTITIONS = 7
MORE_PAGES = 150  # what a deeper index and statistics of another moment may add
APPENDED = 10
# What is asked of each partition: an id or a key, in two or three pages that may count twice; its
# size.
PER_PARTITION = {"append": 6 * APPENDED, "append with keys": 12 * APPENDED, "stats": 100}
REQUEST = ClaimRequest(20, 2**20, 60.0, 0.2, Isolated.NONE)
ALONE = ClaimRequest(20, 2**20, 60.0, 0.2, Isolated.FIRST)
SPARED = {"spared_from": 0, "spared_to": 0}

Statements = dict[str, tuple[str, dict[str, Any]]]
PLANNED_ONCE: Statements = {
    "look": (LOOK, {"interval_seconds": 0.0}),
    "claim": (CLAIM, claim_values(REQUEST, "c-1", 50_000)),
    "express claim": (CLAIM_EXPRESS, claim_values(REQUEST, "c-1", 50_000, express_turn=True)),
    "isolated claim": (CLAIM, claim_values(ALONE, "c-1", 50_000)),
    "next due": (NEXT_DUE, {"isolated": True, "window": 50_000}),
    "expire": (EXPIRE, {"sent": True}),
    "release": (RELEASE, {"claims": ["c-1"], "sent": False}),
    "confirm": (CONFIRM, {"seqs": [1, 2, 3]}),
    "resend": (RESEND, {"seqs": [1, 2, 3], "note": "n"}),
    "may ask": (MAY_ASK, {"asker": "a", "seconds": 10}),
    "fold": (FOLD, {}),
    "read folded": (READ_FOLDED, {}),
    "delivery record": (LOAD_DELIVERY, {}),
    "probe": (PROBE, {}),
    "purge": (PURGE, {"older_than_ms": 3_600_000, "page": 500, "from_ms": 0, **SPARED}),
    "sent": (SENT, {"limit": 500, "after": 0}),
    "find by ids": (ROWS_BY_IDS, filter_values(Filter(ids=("a", "b"), limit=2))),
    "find": (FIND_STORED, {"ids": ["a"], "owners": ["u-1"], "keys": ["k"]}),
}
PLANNED_EACH_TIME: Statements = {
    "delivered": (DELIVERED, {"limit": 100, "after": 0, "within_ms": None}),
    "list": (ROWS, filter_values(Filter(limit=20))),
    "owners": (OWNERS, {"limit": 20}),
    "stats": (STATS, {"seconds": 5}),
}
_LOOK = {"skipped": 499, "before_seq": None, "numbers": MAX_NUMBERS}
PLANNED_EACH_TIME["reach pending"] = (REACH[State.PENDING], _LOOK)
for _state in (State.DELIVERING, State.SENT, State.DELIVERED, State.DEAD):
    _few = filter_values(Filter(state=_state, limit=20))
    PLANNED_EACH_TIME[f"list {_state}"] = (ROWS_IN_STATE[_state], _few)
    PLANNED_EACH_TIME[f"count {_state}"] = (COUNT_IN_STATE[_state], _few)
    PLANNED_EACH_TIME[f"reach {_state}"] = (REACH[_state], _LOOK)
for _state in (State.SENT, State.DEAD):
    _few = filter_values(Named(("e-1",), _state).filter)
    _act = {"actor": "a", "act": "1", "chosen": "c"}
    PLANNED_EACH_TIME[f"discard {_state}"] = (DISCARD, {**_few, **_act})
    PLANNED_EACH_TIME[f"replay {_state}"] = (REPLAY, {**_few, **_act})
FOLDS = 20
CHANGE = """
INSERT INTO outbox_changes (owners, pending)
SELECT array_agg('u-' || n), array_agg(1) FROM generate_series(1, %(owners)s) AS n
"""
WITH_ROWS = ("append", "append with keys", "settle", "read changes")


def appended(*, keys: bool) -> dict[str, object]:
    """The parameters of an append."""
    done: Any = None
    one = IdempotencyKey("k", b"1") if keys else None
    return columns(
        [
            Append((event(f"u-{n}"),), (one,), None, express=False, done=done, deadline=0.0)
            for n in range(APPENDED)
        ]
    )


@dataclass
class Beside:
    """An outbox beside a transaction that began before all rows of it went through."""

    url: str
    connection: psycopg.Connection[Any]
    pages: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.once = PlannedOnce(self.connection)
        self.measure()
        self.pages.clear()

    def fill(self, gone: int, waiting: int) -> None:
        pass_rows_through(self.url, gone)
        append_rows(self.url, waiting)
        asyncio.run(catch_up(self.url))

    def measure(self) -> None:
        for name, (statement, values) in PLANNED_ONCE.items():
            self._add(name, statement, values)
        self._add("append", APPEND, appended(keys=False))
        self._add("append with keys", APPEND, appended(keys=True))
        [(after,)] = self.connection.execute("SELECT safe_change FROM outbox_mark").fetchall()
        self._add("read changes", READ_CHANGES, {"after": after})
        rows = self.connection.execute(CLAIM, claim_values(REQUEST, "c-0", 50_000)).fetchall()
        first, *rest = [row[0] for row in rows] or [0]
        again = [Retry(first, 1.0, 1, isolated=True)]
        self._add("settle", SETTLE, settle_values(Settlement("c-0", delivered=rest, retry=again)))

    def measure_each_time(self) -> None:
        for name, (statement, values) in PLANNED_EACH_TIME.items():
            found = explained(self.connection, statement, values)
            self.pages.setdefault(name, []).append(pages(found))
            self.connection.rollback()

    def _add(self, name: str, statement: str, values: dict[str, Any]) -> None:
        found = self.once.explained(statement, values)
        self.pages.setdefault(name, []).append(pages(found))
        self.connection.rollback()


@pytest.fixture(scope="module")
def unwatched() -> Iterator[PostgresServer]:
    """A server that renews no figures of a table: no plan is made again because of them."""
    with needed_postgres(settings={"autovacuum": "off"}) as server:
        yield server


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((30_000, 40_000), id="small"),
        pytest.param(
            (8_000_000, 1_000_000),
            id="large",
            marks=[pytest.mark.soak, pytest.mark.timeout(3600)],
        ),
    ],
)
def beside_a_transaction(
    request: pytest.FixtureRequest, unwatched: PostgresServer
) -> Iterator[Beside]:
    with unwatched.database("bounded") as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        with psycopg.connect(url) as idle, psycopg.connect(url) as connection:
            idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            idle.execute("SELECT pg_current_snapshot()")
            beside = Beside(url, connection)
            beside.fill(*FEW)
            beside.measure()
            beside.measure_each_time()
            beside.fill(*request.param)
            beside.measure()
            analyze(url)
            beside.measure_each_time()
            for _ in range(1, PARTITIONS):
                close_partition(url)
                pass_rows_through(url, 500)
            beside.fill(500, request.param[1])
            beside.measure()
            analyze(url)
            beside.measure_each_time()
            yield beside


@pytest.mark.parametrize("name", [*PLANNED_ONCE, *PLANNED_EACH_TIME, *WITH_ROWS])
def test_a_statement_touches_no_more_pages_among_many_rows_or_partitions(
    beside_a_transaction: Beside, name: str
) -> None:
    few, many, divided = beside_a_transaction.pages[name]
    assert many <= few + MORE_PAGES
    assert divided <= many + MORE_PAGES + PER_PARTITION.get(name, 0) * (PARTITIONS - 1)


def test_express_rows_are_found_by_an_index_of_their_own(beside_a_transaction: Beside) -> None:
    """No claim looks for them among the rows that wait: it would cost most while there are none."""
    with psycopg.connect(beside_a_transaction.url) as connection:
        whole = explained(connection, *PLANNED_ONCE["express claim"], how="")
        for part, index in EXPRESS.items():
            [one] = [one for one in nodes(whole) if one.get("Subplan Name") == part]
            assert {each["Index Name"] for each in nodes(one) if "Index Name" in each} == {index}
            assert not {each["Node Type"] for each in nodes(one)} & {"Sort", "Seq Scan"}
        connection.rollback()


async def test_events_arrive_beside_the_open_transaction(beside_a_transaction: Beside) -> None:
    """The newest rows have a share of each claim, so a new event does not wait for a backlog."""
    async with PostgresStorage(beside_a_transaction.url).open(
        max_pending=10**9, max_pending_per_user=10**9
    ) as outbox:
        await append_all(outbox, 10)
        newest = event()
        await outbox.intake.append(newest)
        batch = await claim(outbox, ClaimRequest(100, 2**20, 60.0, 0.5, Isolated.NONE))
        assert newest.id in {entry.event_id for entry in batch.entries}
        assert (
            await outbox.queue.settle(
                Settlement(batch.claim, delivered=[entry.seq for entry in batch.entries])
            )
            == 0
        )


def test_a_fold_touches_no_more_pages_after_many_folds(postgres: PostgresServer) -> None:
    """Beside a transaction that keeps all versions of the counts that the folds wrote."""
    with postgres.database("folded") as url:
        migrate(url)
        with (
            psycopg.connect(url) as idle,
            psycopg.connect(url, autocommit=True) as connection,
        ):
            idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            idle.execute("SELECT pg_current_snapshot()")
            once, touched = PlannedOnce(connection), []
            for _ in range(FOLDS):
                connection.execute(CHANGE, {"owners": 40})
                for _ in range(3):
                    connection.execute(LOOK, {"interval_seconds": 0.0})
                touched.append(pages(once.explained(FOLD, {})))
            [(folded,)] = connection.execute("SELECT pending FROM outbox_meta").fetchall()
    assert folded == 40 * FOLDS
    assert touched[-1] <= touched[1] + MORE_PAGES


def test_no_plan_reads_a_whole_table_of_which_few_rows_are_left(postgres: PostgresServer) -> None:
    """Then an index seems to cost more than the table: nearly all of its entries are dead too."""
    with postgres.database("dead") as url:
        migrate(url)
        with psycopg.connect(url) as idle:
            idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            idle.execute("SELECT pg_current_snapshot()")
            pass_rows_through(url, 30_000)
            append_rows(url, 3)
            analyze(url)
            with psycopg.connect(url) as connection:
                connection.execute(SET_UP, {"backend": connection.info.backend_pid})
                cursor = psycopg.ClientCursor(connection)
                cursor.execute(f"EXPLAIN {CLAIM}", claim_values(REQUEST, "c-1", 50_000))
                claim_plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "on outbox_ready" in claim_plan
    assert "Seq Scan on outbox_ready" not in claim_plan
