"""Events that an application appends in SQL, inside its own transactions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from inngest_outbox.bootstrap.service import run_relay_alone, run_service
from inngest_outbox.bootstrap.store_part import run_store_process
from inngest_outbox.config.settings import Settings
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.identity.user import User
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.limits import FairShare
from inngest_outbox.outbox.model import Filter, Named, Settlement, State
from inngest_outbox.outbox.postgres import inbox
from inngest_outbox.outbox.postgres.database.pool import PostgresPool
from inngest_outbox.outbox.schema import migrate
from inngest_outbox.web.intake.event_batch import BatchRequest, EventBatches
from tests.support.postgres_rows import new_outbox
from tests.support.postgres_server import PostgresServer, needed_postgres
from tests.support.remote_storage import unix_socket
from tests.support.storage import (
    Outbox,
    PostgresStorage,
    append_all,
    ask,
    claim,
    claims_nothing,
    deliver,
    event,
    eventually,
    ids,
)

APPEND = "SELECT outbox.append(%s, %s, %s)"
SAVED = """
CREATE FUNCTION public.saved() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM outbox.append('saved', to_jsonb(NEW)); RETURN NULL; END $$;
CREATE TRIGGER saved AFTER INSERT ON public.document FOR EACH ROW EXECUTE FUNCTION public.saved();
ALTER TABLE public.document ENABLE ALWAYS TRIGGER saved
"""
DAY_MS = 24 * 3600 * 1000
DECLARED = """types:
- {{path: /api/first, name: app/first, body: {{type: object}}, {0}}}
- {{path: /api/mine, name: app/secret, body: {{type: object}}, {0}}}
- {{path: /api/other, name: app/other, body: {{type: object}}}}
"""


@pytest.fixture
async def outbox(postgres_url: str) -> AsyncIterator[Outbox]:
    async with PostgresStorage(postgres_url).open() as opened:
        yield opened


def append(connection: psycopg.Connection, name: str = "app/saved", **data: object) -> str:
    [(event_id,)] = connection.execute(APPEND, (name, Jsonb(data), "u-1")).fetchall()
    return str(event_id)


def call(connection: psycopg.Connection, arguments: str) -> str:
    """The id of an event that `outbox.append` makes."""
    [(event_id,)] = connection.execute(f"SELECT outbox.append({arguments})".encode()).fetchall()
    return str(event_id)


async def row_in(outbox: Outbox, event_id: str, state: State) -> None:
    async def found() -> bool:
        row = await outbox.intake.find(event_id)
        return row is not None and row.state is state and row.seq < 1 << 52

    await eventually(found)


async def drained(connection: psycopg.Connection) -> None:
    """Wait until the service has taken all that was committed."""

    def empty() -> bool:
        return connection.execute("SELECT count(*) FROM outbox.inbox").fetchall() == [(0,)]

    await eventually(empty)


async def test_a_committed_event_wakes_the_relay_and_has_the_wire_form(
    outbox: Outbox, postgres_url: str
) -> None:
    waiting = asyncio.create_task(claim(outbox))
    with psycopg.connect(postgres_url) as connection:
        event_id = append(connection, document="ü")
    batch = await waiting
    [entry] = batch.entries
    assert entry.as_sent.event_id == event_id
    assert {**json.loads(batch.payloads), "id": event_id} == {
        "id": event_id,
        "name": "app/saved",
        "ts": entry.accepted_at_ms,
        "v": "1",
        "user": {"id": "u-1", "email": None, "name": None},
        "data": {"document": "ü"},
    }
    assert entry.event_id == event_id
    assert uuid.UUID(event_id).version == 7
    row = await outbox.intake.find(event_id)
    assert (row.owner, row.user_id) == ("database u-1", "u-1")
    assert await outbox.queue.settle(Settlement(batch.claim, delivered=[entry.seq])) == 0
    stats = await outbox.inspector.stats()
    assert (stats.pending, stats.delivering, stats.delivered) == (0, 0, 1)


async def test_every_argument_reaches_the_event(outbox: Outbox, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        call(
            connection,
            "name => 'n', data => '{}', user_id => 'u-1', issuer => 'authjs',"
            "user_email => 'ada@example.com', user_name => 'Ada', trace => '00-trace', id => 'o-1',"
            "ts => 1795559419447, v => NULL, environment => 'branch',"
            "user_fields => '{\"plan\": 2}',"
            'meta => \'{"sessions": {"a": "b"}, "other": 1}\'',
        )
    batch = await claim(outbox)
    [entry] = batch.entries
    assert entry.as_sent.event_id == "o-1"
    assert {**json.loads(batch.payloads), "id": "o-1"} == {
        "id": "o-1",
        "name": "n",
        "ts": 1795559419447,
        "user": {"plan": 2, "id": "u-1", "email": "ada@example.com", "name": "Ada"},
        "data": {},
        "meta": {"sessions": {"a": "b"}},
    }
    meta = entry.meta
    assert (meta.wire_id, meta.environment, meta.trace) == ("o-1", "branch", "00-trace")


REFUSED = (
    ("'', '{}'", "name of an event"),
    ("NULL, '{}'", "name of an event"),
    ("'Inngest/x', '{}'", "reserved"),
    ("repeat('ü', 4097), '{}'", "longer than 4096"),
    ("'n', '{}', id => repeat('ü', 4097)", "longer than 4096"),
    ("'n', '[]'", "data of an event"),
    ("'n', NULL", "data of an event"),
    ("'n', '{}', issuer => 'a b'", "an issuer"),
    ("'n', '{}', ''", "a user 1 to 255"),
    ("'n', '{}', id => 'a', idempotency_key => 'b'", "not both"),
    ("'n', '{}', idempotency_key => 'ü'", "visible ASCII"),
    ("'n', '{}', trace => E'00-a\\r\\nX: y'", "a trace has"),
    ("'n', '{}', trace => repeat('a', 256)", "a trace has"),
    ("'n', '{}', environment => ''", "an environment has"),
    ("'n', '{}', ts => 1795559419", "ts is in milliseconds"),
    ("'n', '{}', send_at => -1", "send_at is in milliseconds"),
    ("'n', '{}', user_fields => '[]'", "the user of an event"),
    ("'n', '{}', meta => '[]'", "the meta of an event"),
    ("'n', jsonb_build_object('a', repeat('x', 3145728))", "larger than 3 MiB"),
)


def test_a_bad_argument_is_refused_at_once(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for arguments, words in REFUSED:
            with pytest.raises(psycopg.errors.InvalidParameterValue, match=words):
                call(connection, arguments)
        call(connection, "repeat('ü', 4096), '{}', id => repeat('ü', 4096)")


async def test_many_events_are_appended_in_one_call_in_their_order(
    outbox: Outbox, postgres_url: str
) -> None:
    many = "SELECT outbox.append_many(%s)"
    events = [{"name": "n", "data": {"n": n}, "user_id": "u-1"} for n in range(20)]
    events[7] |= {"id": "seven", "user_email": "ada@example.com"}
    events[8] |= {"v": 2, "ts": "1795559419447", "user_name": 5, "user_fields": None}
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        [(made,)] = connection.execute(many, (Jsonb(events),)).fetchall()
        for bad, words in (
            ([{"name": "n"}], "data of an event is a JSON object"),
            ([{"name": "n", "data": {}, "userId": "u"}], "append does not know: userId"),
            ([1], "an event is a JSON object"),
            ([{"name": "n", "data": {}, "ts": "abc"}], "ts and send_at are in milliseconds"),
            ([{"name": "n", "data": {}, "send_at": 1.5}], "ts and send_at are in milliseconds"),
            ({"name": "n", "data": {}}, "the events are not a JSON array"),
            (None, "the events are not a JSON array"),
        ):
            with pytest.raises(psycopg.errors.InvalidParameterValue, match=words):
                connection.execute(many, (Jsonb(bad),))
        for none in (Jsonb([]), None):
            assert connection.execute(many, (none,)).fetchall() == [([],)]
    await eventually(outbox.inspector.stats, lambda stats: stats.pending == 20)
    await row_in(outbox, made[-1], State.PENDING)
    batch = await claim(outbox)
    assert ids(batch) == made
    assert b'"ts":1795559419447,"v":"2"' in batch.payloads


async def test_transactions_that_commit_in_any_order_are_each_delivered_once(
    outbox: Outbox, postgres_url: str
) -> None:
    """One that is rolled back leaves no event."""
    with contextlib.ExitStack() as stack:
        *connections, none = (stack.enter_context(psycopg.connect(postgres_url)) for _ in range(13))
        append(none)
        made = [append(one, number=number) for number, one in enumerate(connections)]
        none.rollback()
        got: list[str] = []
        for number in (7, 0, 11, 3, 5, 1, 10, 2, 9, 4, 8, 6):
            connections[number].commit()
            batch = await claim(outbox)
            await deliver(outbox, batch)
            got += ids(batch)
        assert sorted(got) == sorted(made)
        assert await claims_nothing(outbox)
        assert (await outbox.inspector.stats()).pending == 0


async def test_what_is_prepared_is_delivered_when_it_is_committed(
    outbox: Outbox, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("BEGIN")
        late = append(connection)
        connection.execute("PREPARE TRANSACTION 'late'")
        for number in range(30):
            append(connection, number=number)
            await deliver(outbox, await claim(outbox))
        assert (await outbox.inspector.stats()).delivered == 30
        connection.execute("COMMIT PREPARED 'late'")
    assert ids(await claim(outbox)) == [late]


async def test_appends_of_strict_levels_fail_no_transaction(
    outbox: Outbox, postgres_url: str
) -> None:
    """Beside each other, and beside the service that takes their events."""

    def append_some(number: int) -> None:
        level = "SERIALIZABLE" if number % 2 else "REPEATABLE READ"
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            for n in range(20):
                connection.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
                append(connection, number=number)
                call(connection, f"'n', '{{}}', idempotency_key => 'k-{number}-{n}'")
                connection.execute("COMMIT")

    await asyncio.gather(*(asyncio.to_thread(append_some, number) for number in range(8)))
    await eventually(outbox.inspector.stats, lambda stats: stats.pending == 320)


async def test_triggers_and_replica_sessions_append_too(outbox: Outbox, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.document (name text)")
        connection.execute(SAVED)
        try:
            connection.execute("INSERT INTO public.document VALUES ('a')")
            connection.execute("SET session_replication_role = replica")
            connection.execute("INSERT INTO public.document VALUES ('b')")
        finally:
            connection.execute("DROP TABLE public.document; DROP FUNCTION public.saved")
    payloads: list[str] = []
    while len(payloads) < 2:
        batch = await claim(outbox)
        payloads += [one["data"]["name"] for one in json.loads(b"[%s]" % batch.payloads)]
    assert payloads == ["a", "b"]


async def test_rows_of_another_server_s_numbers_are_found(
    outbox: Outbox, postgres_url: str
) -> None:
    """A dump, or a subscription, brings rows with the transaction numbers of where they were."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        old = append(connection)
        await row_in(outbox, old, State.PENDING)
        connection.execute(
            "INSERT INTO outbox.inbox (xid, accepted_at_ms, event_id, name, owner, data)"
            "VALUES ('3', 1795559419447, 'restored', 'n', 'database', '{}')"
        )
    async with PostgresStorage(postgres_url).open() as restarted:
        await outbox.inbox.__aexit__()
        await row_in(restarted, "restored", State.PENDING)


async def test_what_is_new_is_taken_where_the_whole_inbox_is_too_much_to_read(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open transaction keeps millions of dead rows in it."""

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        async def ask(pool: PostgresPool, name: str, given: Any = None, **how: Any) -> Any:
            if name == "INBOX_PAGE" and given["from_xid"] == "0":
                raise OutboxUnavailableError
            return await real(pool, name, given, **how)

        return ask

    for way in ("run", "ask"):
        monkeypatch.setattr(PostgresPool, way, refusing(getattr(PostgresPool, way)))
    async with PostgresStorage(postgres_url).open() as outbox:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            appended = append(connection)
        assert ids(await claim(outbox)) == [appended]


async def test_an_application_that_is_killed_right_after_its_commit_leaves_one_event(
    outbox: Outbox, postgres_url: str
) -> None:
    code = (
        "import os, signal, sys, psycopg\n"
        "connection = psycopg.connect(sys.argv[1])\n"
        "connection.execute(\"SELECT outbox.append('app/saved', '{}', 'u-1')\")\n"
        "connection.commit()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, postgres_url)
    assert await process.wait() == -signal.SIGKILL
    assert len((await claim(outbox)).entries) == 1
    assert await claims_nothing(outbox)


async def test_an_event_waits_until_it_may_be_sent(outbox: Outbox, postgres_url: str) -> None:
    now_ms = int(time.time() * 1000)
    with psycopg.connect(postgres_url) as connection:
        times = (now_ms + DAY_MS, now_ms + 700, now_ms - 1000)
        late, soon, past = [
            call(connection, f"'n', '{{}}', 'u-1', send_at => {at}") for at in times
        ]
    claimed: dict[str, float] = {}
    while len(claimed) < 2:
        claimed |= dict.fromkeys(ids(await claim(outbox)), time.time() * 1000)
    assert set(claimed) == {past, soon}
    assert claimed[soon] >= times[1]
    row = await outbox.intake.find(late)
    assert (row.due_in_seconds or 0) > DAY_MS / 1000 - 60


async def test_a_repeat_under_a_key_is_the_same_event(outbox: Outbox, postgres_url: str) -> None:
    keyed = "'n', '{\"a\": 1}', 'u-1', idempotency_key => 'k-1'"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        made = {call(connection, keyed) for _ in range(3)}
        assert len(made) == 1
        await row_in(outbox, next(iter(made)), State.PENDING)
        assert {call(connection, keyed)} == made
        assert call(connection, keyed.replace("u-1", "u-2")) not in made
        await drained(connection)
    assert (await outbox.inspector.stats()).pending == 2
    assert len((await claim(outbox)).entries) == 2
    assert await claims_nothing(outbox)


async def test_other_data_under_a_used_key_end_dead_and_name_the_first(
    outbox: Outbox, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        first = call(connection, "'n', '{\"a\": 1}', 'u-1', idempotency_key => 'k-1'")
        assert call(connection, "'n', '{\"a\": 2}', 'u-1', idempotency_key => 'k-1'") == first
    await eventually(outbox.inspector.stats, lambda stats: stats.dead == 1)
    [dead] = await outbox.inspector.rows(Filter(state=State.DEAD))
    assert dead.id.startswith(f"{first}-")
    assert (dead.reason, dead.owner) == ("idempotency_key_reused", "database u-1")
    assert ids(await claim(outbox)) == [first]
    await outbox.repairs.replay(Named((dead.id,)), actor="ada")
    assert f'"id":"{dead.id}"'.encode() in (await claim(outbox)).payloads
    posted = event("database u-2")
    await outbox.intake.append(posted, key=IdempotencyKey("k-2", bytes(32)))
    with psycopg.connect(postgres_url) as connection:
        other = call(connection, "'n', '{}', 'u-2', idempotency_key => 'k-2'")
    await row_in(outbox, other, State.DEAD)
    row = await outbox.intake.find(other)
    assert posted.id in (row.detail or "")


async def test_an_id_means_the_same_event_here_and_at_the_door_for_a_day(
    outbox: Outbox, postgres_url: str
) -> None:
    by_id = "'n', '{}', 'u-1', id => 'order-1'"
    request = BatchRequest(user=User("database", "u-1"), body=b'{"name":"n","id":"order-1"}')
    await EventBatches(outbox.intake, NullRecorder()).accept(request)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        first = call(connection, by_id)
        await drained(connection)
        assert (await outbox.inspector.stats()).pending == 1
        for pending in (2, 3):  # once as the derived id, then under an id of its own
            age = "UPDATE outbox.events SET accepted_at_ms = accepted_at_ms - %s"
            connection.execute(age, [DAY_MS + 1])
            assert call(connection, by_id) == first
            await drained(connection)
            assert (await outbox.inspector.stats()).pending == pending
    rows = await outbox.inspector.rows(Filter(alias="order-1", owner="database u-1"))
    assert len({row.id for row in rows}) == 3


async def test_an_event_that_can_t_be_sent_ends_dead_and_holds_up_no_other(
    outbox: Outbox, postgres_url: str
) -> None:
    deep = "'{\"a\":' || repeat('[', 600) || repeat(']', 600) || '}'"
    large = "'{\"a\": ' || repeat('9', 400) || '}'"
    bad: dict[str, str] = {}
    with psycopg.connect(postgres_url) as connection:
        for words, data in (("deep", deep), ("range", large)):
            keyed = f"'n', ({data})::jsonb, idempotency_key => '{words}'"
            bad[words] = call(connection, keyed)
            assert call(connection, keyed) == bad[words]
        good = append(connection)
    assert ids(await claim(outbox)) == [good]
    assert (await outbox.inspector.stats()).dead == 4
    for words, event_id in bad.items():
        row = await outbox.intake.find(event_id)
        assert (row.state, row.reason) == (State.DEAD, "invalid")
        assert words in (row.detail or "")


async def test_what_there_is_no_room_for_stays_and_is_taken_later(postgres_url: str) -> None:
    limits = {"max_pending": 100, "max_pending_per_user": 2}
    async with PostgresStorage(postgres_url).open(**limits) as outbox:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            made = [append(connection, number=number) for number in range(4)]
            other = call(connection, "'n', '{}', 'u-2'")
            for number in range(5):  # events without a user have the limit of the whole only
                call(connection, f"'n', '{{\"n\": {number}}}'")

            def left(count: int) -> bool:
                looked = "SELECT count(*) FROM outbox.inbox WHERE left_over"
                return connection.execute(looked).fetchall() == [(count,)]

            await eventually(lambda: left(2))
            await row_in(outbox, other, State.PENDING)
            stats = await outbox.inspector.stats()
            assert stats.pending == 10
            mine = Filter(owner="database u-1", state=State.PENDING)
            assert {row.id for row in await outbox.inspector.rows(mine)} == set(made)
            assert await outbox.inspector.count(mine) == 4
            taken = await claim(outbox)
            assert {*made[:2], other} <= set(ids(taken))
            await deliver(outbox, taken)
            await row_in(outbox, made[3], State.PENDING)
            assert ids(await claim(outbox)) == made[2:]


async def test_no_event_overtakes_a_larger_one_of_its_owner_that_waits_for_room(
    postgres_url: str,
) -> None:
    async with PostgresStorage(postgres_url).open(max_bytes_per_user=1000) as outbox:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            with connection.transaction():
                made = [append(connection, pad="x" * size) for size in (600, 600, 10)]
            looked = "SELECT count(*) FROM outbox.inbox WHERE left_over"
            await eventually(lambda: connection.execute(looked).fetchall() == [(2,)])
        batch = await claim(outbox)
        assert ids(batch) == made[:1]
        await deliver(outbox, batch)
        assert await outbox.repairs.purge(older_than_seconds=-1, actor=None) == 1
        got: list[str] = []
        while len(got) < 2:
            got += ids(await claim(outbox))
        assert got == made[1:]


async def test_owners_that_stay_at_their_limits_hold_up_no_other(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "_LEFT_SECONDS", 0.1)
    async with PostgresStorage(postgres_url).open(max_pending_per_user=1) as outbox:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            for user in range(100, 151):
                made = [call(connection, f"'n', '{{}}', 'u-{user}'") for _ in range(2)]
        batch = await claim(outbox)
        while made[0] not in ids(batch):
            batch = await claim(outbox)
        done = [entry.seq for entry in batch.entries if entry.event_id == made[0]]
        await outbox.queue.settle(Settlement(batch.claim, delivered=done))
        await row_in(outbox, made[1], State.PENDING)


async def test_a_full_outbox_refuses_no_transaction(postgres_url: str) -> None:
    async with PostgresStorage(postgres_url).open(max_pending=3) as outbox:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            made = [append(connection, number=number) for number in range(8)]
        got: list[str] = []
        while len(got) < 8:
            batch = await claim(outbox)
            got += ids(batch)
            assert len(batch.entries) <= 3
            await deliver(outbox, batch)
        assert got == made


async def test_what_waits_in_the_inbox_is_pending_for_everybody(postgres_url: str) -> None:
    """A service that is stopped leaves it there; each filter finds it."""
    async with PostgresStorage(postgres_url).open() as outbox:
        stored = (await outbox.intake.append(event("u-9"))).event_id
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        first = append(connection, name="app/one", number=1)
        second = append(connection, name="app/two", number=2)
        third = call(
            connection,
            """'n', '{"title": "Zoë"}', 'Zoe', id => 'o-1', v => '2',
            environment => 'branch', trace => '00-trace'""",
        )
    now_ms, every = int(time.time() * 1000), [third, second, first, stored]
    before, after = now_ms - DAY_MS, now_ms + DAY_MS
    from inngest_outbox.outbox.postgres.store import open_postgres_operations

    async with open_postgres_operations(postgres_url) as outbox:
        stats = await outbox.inspector.stats()
        assert stats.pending == 4
        assert stats.oldest_pending_seconds is not None
        newest, *rows = await outbox.inspector.rows(Filter(state=State.PENDING))
        assert newest.meta == Meta(None, "branch", trace="00-trace")
        wanted: list[tuple[dict[str, Any], list[str]]] = [
            ({}, every),
            ({"limit": 3}, every[:3]),
            *(({"state": state}, []) for state in State if state is not State.PENDING),
            ({"reason": "rejected"}, []),
            ({"ids": (first, stored)}, [first, stored]),
            ({"ids": (first, stored), "limit": 1}, [first]),
            ({"id_prefix": second[:30]}, [second]),
            ({"owner": "database u-1"}, [second, first]),
            ({"alias": "o-1", "owner": "database Zoe"}, [third]),
            ({"alias": "o-1", "owner": "database u-1"}, []),
            ({"user_id": "Zoe"}, [third]),
            ({"name": "app/one"}, [first]),
            ({"user_part": "zO"}, [third]),
            ({"name_part": "TWO"}, [second]),
            ({"payload_part": "Zoë"}, [third]),
            ({"since_ms": before, "until_ms": after}, every),
            ({"since_ms": after}, []),
            ({"until_ms": before}, []),
            ({"before_seq": rows[0].seq}, [first, stored]),
            ({"after_seq": rows[1].seq}, [third, second]),
        ]
        for given, ids_ in wanted:
            found = await outbox.inspector.rows(Filter(**given))
            assert [row.id for row in found] == ids_, given
            assert await outbox.inspector.count(Filter(**given)) == len(ids_), given
        payload = json.loads(await outbox.inspector.payload(second) or b"")
        assert payload["data"] == {"number": 2}
        gone = await outbox.repairs.discard(
            Named((first,), State.PENDING, owner="database u-1", never_sent=True), actor="ada"
        )
        assert gone == [first]
        assert [one.ids for one in await outbox.inspector.audit(1, event=first)] == [(first,)]
        assert (await outbox.inspector.stats()).pending == 3


async def test_an_event_that_is_appended_beside_a_flood_keeps_its_share(postgres_url: str) -> None:
    small = FairShare(noisy_rows=50)
    async with PostgresStorage(postgres_url).open(fair_share=small) as outbox:
        await append_all(outbox, 60, "flood")
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            late = append(connection)
        await row_in(outbox, late, State.PENDING)
        assert late in ids(await claim(outbox, ask(10)))


async def test_of_two_processes_one_drains_and_the_other_takes_over(postgres_url: str) -> None:
    storage = PostgresStorage(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:

        async def waiting_in_inbox() -> int:
            [(rows,)] = connection.execute("SELECT count(*) FROM outbox.inbox").fetchall()
            return int(rows)

        async with storage.open() as one:
            async with storage.open() as two:
                for number in range(50):
                    append(connection, number=number)
                await eventually(waiting_in_inbox, lambda rows: rows == 0)
                assert (await two.inspector.stats()).pending == 50
            late = append(connection)
            await row_in(one, late, State.PENDING)


async def test_appends_hold_up_neither_settings_nor_posts(
    outbox: Outbox, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url) as connection:
        for number in range(300):
            append(connection, number=number)
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        # One that waited would be refused, for the appends end after it.
        await outbox.scopes.save_scope("user", "u-1", {"a": 1})
        await outbox.intake.append(event())
        await deliver(outbox, await claim(outbox))
        connection.rollback()


def test_a_role_needs_the_right_to_append_and_nothing_else(postgres: PostgresServer) -> None:
    with postgres.database("appending") as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("DROP ROLE IF EXISTS shop; CREATE ROLE shop LOGIN")
            shop_url = url.replace("outbox@", "shop@")
            with (
                psycopg.connect(shop_url, autocommit=True) as shop,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                append(shop)
            owner.execute("GRANT USAGE ON SCHEMA outbox TO shop")
            owner.execute("GRANT EXECUTE ON FUNCTION outbox.append, outbox.append_many TO shop")
            with psycopg.connect(shop_url, autocommit=True) as shop:
                append(shop)
                for forbidden in (
                    "SELECT * FROM outbox.inbox",
                    "SELECT outbox.keyed_id('o', 'k')",
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        shop.execute(forbidden.encode())
            owner.execute("DROP OWNED BY shop; DROP ROLE shop")


async def test_a_publication_for_all_tables_stops_nothing(postgres: PostgresServer) -> None:
    with new_outbox(postgres, "published") as url:
        async with PostgresStorage(url).open() as outbox:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CREATE PUBLICATION every FOR ALL TABLES")
                late = append(connection)
            await append_all(outbox, 3)
            await row_in(outbox, late, State.PENDING)
            await deliver(outbox, await claim(outbox))
            assert (await outbox.inspector.stats()).delivered == 4
            assert await outbox.repairs.purge(older_than_seconds=-1, actor=None) == 4


@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
async def test_an_encrypted_event_is_refused_as_the_last_started_service_says(
    postgres_url: str, tmp_path: Path, short_path: Path, level: str
) -> None:
    """It is one process at one level, a store process at the other."""
    types = tmp_path / "types.yaml"
    types.write_text(DECLARED.format("encrypt: [phone]"))
    given = {"OUTBOX_URL": postgres_url, "EVENT_TYPES_FILE": str(types), "DEV_LOGIN": "true"}
    keyed = Settings.load({**given, "OUTBOX_ENCRYPTION_KEY": "a-key-of-ours"})
    types.with_name("plain.yaml").write_text(DECLARED.format("encrypt: false"))
    plain = Settings.load({**given, "EVENT_TYPES_FILE": str(types.with_name("plain.yaml"))})
    many = "SELECT outbox.append_many(%s)"
    with psycopg.connect(postgres_url) as connection, unix_socket(short_path / "store") as fronts:
        connection.isolation_level = psycopg.IsolationLevel[level.replace(" ", "_")]
        serves = run_service(keyed) if level == "SERIALIZABLE" else run_store_process(keyed, fronts)
        append(connection, "app/secret")
        connection.execute("SELECT 1")  # its transaction stays open over the start
        async with serves, run_relay_alone(plain):
            connection.commit()
            for statement, arguments in (
                (APPEND, ("app/secret", Jsonb({}), "u-1")),
                (many, (Jsonb([{"name": "app/secret", "data": {}}]),)),
            ):
                with pytest.raises(psycopg.errors.InvalidParameterValue, match="is encrypted"):
                    connection.execute(statement, arguments)
                connection.rollback()
            append(connection, "app/other")
            connection.commit()
        async with run_service(plain):
            append(connection, "app/secret")
            connection.commit()


@pytest.mark.slow
async def test_what_a_trigger_of_a_logical_subscriber_appends_is_delivered_once() -> None:
    logical = {"wal_level": "logical"}
    with (
        needed_postgres(settings=logical) as publisher,
        needed_postgres() as subscriber,
        publisher.database("shop") as there,
        subscriber.database("shop") as here,
    ):
        async with PostgresStorage(here).open() as outbox:
            with (
                psycopg.connect(there, autocommit=True) as source,
                psycopg.connect(here, autocommit=True) as target,
            ):
                for each in (source, target):
                    each.execute("CREATE TABLE public.document (name text PRIMARY KEY)")
                target.execute(SAVED)
                source.execute("CREATE PUBLICATION shop FOR TABLE public.document")
                to = f"CONNECTION '{there}' PUBLICATION shop"
                target.execute(f"CREATE SUBSCRIPTION shop {to}".encode())
                try:
                    for n in range(50):
                        source.execute("INSERT INTO public.document VALUES (%s)", [f"d-{n}"])
                    await eventually(outbox.inspector.stats, lambda stats: stats.pending == 50)
                    rows = await outbox.inspector.rows(Filter(limit=100))
                    assert len({row.id for row in rows}) == 50
                finally:
                    target.execute("DROP SUBSCRIPTION shop")
