"""No statement of the relay, of the counts or of the figures grows with the rows of the outbox.

Neither with those that wait, nor with those that were delivered, nor with dead ones, which an open
transaction keeps in the tables. The pages that a statement touches are counted by EXPLAIN: among
few rows and among many. What the service plans once was planned in an empty outbox, the worst
moment.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from inngest_outbox.outbox.model import (
    ClaimRequest,
    Filter,
    Isolated,
    Named,
    Retry,
    Settlement,
    State,
)
from inngest_outbox.outbox.postgres.database.connection import statements
from inngest_outbox.outbox.postgres.queue import claim_values, settle_values
from inngest_outbox.outbox.postgres.rows import filter_values
from inngest_outbox.outbox.schema import migrate
from tests.support.explained import PlannedOnce, explained, nodes, pages
from tests.support.postgres_rows import (
    analyze,
    append_rows,
    catch_up,
    new_outbox,
    pass_rows_through,
)
from tests.support.postgres_server import PostgresServer, needed_postgres
from tests.support.storage import PostgresStorage, append_all, claim, event

FEW = (4_000, 6_000)  # dead and waiting rows
MORE_PAGES = 150  # what a deeper index and statistics of another moment may add
MOST_APPENDED = 20_000
REQUEST = ClaimRequest(20, 2**20, 60.0, 0.2, Isolated.NONE)
ALONE = ClaimRequest(20, 2**20, 60.0, 0.2, Isolated.FIRST)
SQL = {name: text.decode() for name, text in statements("outbox").items()}
HELD = {"claim": "c-1", "lease_seconds": 60.0}
APPEND_IN_SQL = """
DO $$ BEGIN FOR n IN 1..{0} LOOP
    PERFORM outbox.append('n', '{{}}'); COMMIT;
END LOOP; END $$
"""
SEEN = "UPDATE outbox.turns SET seen = pg_current_snapshot() WHERE name = 'inbox'"

Statements = dict[str, tuple[str, dict[str, Any]]]
PLANNED_ONCE: Statements = {
    "look": ("LOOK", {"interval_seconds": 0.0}),
    "claim": ("CLAIM", {**claim_values(REQUEST, fair_share_turn=True), **HELD}),
    "isolated claim": ("CLAIM", {**claim_values(ALONE, fair_share_turn=False), **HELD}),
    "next due": ("NEXT_DUE", {"isolated": True}),
    "expire": ("RELEASE", {"claims": [], "sent": True, "over": True}),
    "release": ("RELEASE", {"claims": ["c-1"], "sent": False, "over": False}),
    "confirm": ("CONFIRM", {"seqs": [1, 2, 3]}),
    "resend": ("RESEND", {"seqs": [1, 2, 3], "note": "n"}),
    "take turn": ("TAKE_TURN", {"turn": "inbox", "holder": "a", "seconds": 10}),
    "fold": ("FOLD", {}),
    "read counts": ("READ_COUNTS", {}),
    "delivery record": ("LOAD_DELIVERY", {}),
    "probe": ("PROBE", {}),
    "purge": ("PURGE", {"now_ms": 2**62, "older_than_ms": 3_600_000, "page": 500, "from_ms": 0}),
    "sent": ("SENT", {"limit": 500, "after": 0}),
    "find by ids": ("ROWS_BY_IDS", {"ids": ["a", "b"], "limit": 2}),
    "find": ("FIND_STORED", {"ids": ["a"], "owners": ["u-1"], "keys": ["k"]}),
    "find in the inbox": ("ARRIVED", filter_values(Filter(ids=("a",)))),
}
_LOOK = {"skipped": 499, "before": None, "in_owner": None}
_ACT = {"actor": "a", "act": "1", "chosen": "c"}
PLANNED_EACH_TIME: Statements = {
    "list": ("ROWS events", filter_values(Filter(limit=20))),
    "list the inbox": ("ARRIVED", filter_values(Filter(limit=20))),
    "owners": ("OWNERS", {"limit": 20}),
    "stats": ("STATS", {"soon_ms": 5_000}),
    "reach pending": ("REACH_PENDING", _LOOK),
}
for _state in (State.DELIVERING, State.SENT, State.DELIVERED, State.DEAD):
    _few = filter_values(Filter(state=_state, limit=20))
    PLANNED_EACH_TIME[f"list {_state}"] = (f"ROWS {_state}", _few)
    PLANNED_EACH_TIME[f"count {_state}"] = (f"COUNT {_state}", _few)
    PLANNED_EACH_TIME[f"reach {_state}"] = (f"REACH {_state}", _LOOK)
for _state in (State.SENT, State.DEAD):
    _few = filter_values(Named(("e-1",), _state).filter)
    PLANNED_EACH_TIME[f"discard {_state}"] = ("DISCARD", {**_few, **_ACT})
    PLANNED_EACH_TIME[f"replay {_state}"] = ("REPLAY", {**_few, **_ACT})
WITH_ROWS = ("settle", "read changes", "idle poll")


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
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(APPEND_IN_SQL.format(min(gone, MOST_APPENDED)).encode())
            connection.execute("DELETE FROM outbox.inbox")
            connection.execute(SEEN)
        asyncio.run(catch_up(self.url))

    def measure(self) -> None:
        for name, (statement, values) in PLANNED_ONCE.items():
            self._add(name, statement, values)
        [(after, seen)] = self.connection.execute(
            "SELECT safe_change, pg_snapshot_xmax(seen)::text FROM outbox.mark, outbox.turns "
            "WHERE name = 'inbox'"
        ).fetchall()
        self._add("read changes", "READ_CHANGES", {"after": after})
        self._add(
            "idle poll",
            "INBOX_PAGE",
            {"open": ["3", "4"], "xid": "0", "no": 0, "from_xid": seen, "from_no": 0},
        )
        given = {**claim_values(REQUEST, fair_share_turn=False), **HELD, "claim": "c-0"}
        rows = self.connection.execute(SQL["CLAIM"].encode(), given).fetchall()
        first, *rest = [row[0] for row in rows] or [0]
        again = [Retry(first, 1.0, 1, isolated=True)]
        owned = {row[0]: (row[-2], len(row[-1])) for row in rows}
        settlement = Settlement("c-0", delivered=rest, retry=again)
        self._add("settle", "SETTLE", settle_values(settlement, owned))

    def measure_each_time(self) -> None:
        for name, (statement, values) in PLANNED_EACH_TIME.items():
            found = explained(self.connection, SQL[statement], values)
            self.pages.setdefault(name, []).append(pages(found))
            self.connection.rollback()

    def _add(self, name: str, statement: str, values: dict[str, Any]) -> None:
        found = self.once.explained(SQL[statement], values)
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
        pytest.param((30_000, 40_000), id="small", marks=pytest.mark.slow),
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
            yield beside


@pytest.mark.parametrize("name", [*PLANNED_ONCE, *PLANNED_EACH_TIME, *WITH_ROWS])
def test_a_statement_touches_no_more_pages_among_many_rows(
    beside_a_transaction: Beside, name: str
) -> None:
    few, many = beside_a_transaction.pages[name]
    assert many <= few + MORE_PAGES


@pytest.mark.slow
async def test_a_purge_of_payloads_reads_windows_of_the_rows_that_have_none(
    unwatched: PostgresServer,
) -> None:
    """The first one of a process begins at the oldest row: it must end in a statement's time."""
    with new_outbox(unwatched, "emptied") as url:
        pass_rows_through(url, 12_000)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE outbox.events SET payload = ''")
            connection.execute(
                "UPDATE outbox.events SET payload = '{}' "
                "WHERE seq = (SELECT seq FROM outbox.done ORDER BY settled_at_ms DESC LIMIT 1)"
            )
            connection.execute("ANALYZE")
            values = {"now_ms": 2**62, "older_than_ms": -1000, "page": 500, "from_ms": 0}
            plan = explained(connection, SQL["PURGE_PAYLOADS"], values)
        read = [step["Actual Rows"] * step["Actual Loops"] for step in nodes(plan)]
        assert max(read) <= 6_000
        async with PostgresStorage(url).open() as outbox:
            assert await outbox.repairs.purge_payloads(older_than_seconds=-1) == 1


@pytest.mark.parametrize("name", ["APPEND", "INBOX_DROP", "INBOX_LEAVE"])
def test_rows_of_the_inbox_are_looked_up_whatever_its_figures_say(
    beside_a_transaction: Beside, name: str
) -> None:
    """By its figures a table of dead rows is small, and all of its index a cheap read."""
    values: dict[str, Any] = {key: [] for key in re.findall(r"%\((\w+)\)", SQL[name])}
    values |= {"rows": 0, "since": 0, "xids": ["5", "6"], "nos": [1, 2]}
    with psycopg.connect(beside_a_transaction.url) as connection:
        found = PlannedOnce(connection).explained(SQL[name], values)
        connection.rollback()
    assert pages(found) <= MORE_PAGES


def test_rows_of_a_fair_share_are_found_by_an_index_of_their_own(
    beside_a_transaction: Beside,
) -> None:
    """No claim looks for them among the rows that wait: it would cost most while there are none."""
    with psycopg.connect(beside_a_transaction.url) as connection:
        name, values = PLANNED_ONCE["claim"]
        whole = PlannedOnce(connection).explained(SQL[name], values, how="")
        for part, index in {
            "fair_share": "ready_fair_share",
            "again": "ready_fair_share_delayed",
        }.items():
            [one] = [one for one in nodes(whole) if one.get("Subplan Name") == f"CTE {part}"]
            used = {each["Index Name"] for each in nodes(one) if "Index Name" in each}
            assert used - {"watermarks_pkey"} == {index}
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
        seqs = [entry.seq for entry in batch.entries]
        assert await outbox.queue.settle(Settlement(batch.claim, delivered=seqs)) == 0
