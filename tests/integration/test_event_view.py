from __future__ import annotations

import msgspec
import pytest
from structlog.testing import capture_logs

from inngest_outbox.console.operations.search import SearchPolicy
from inngest_outbox.identity.user import User
from inngest_outbox.observe.printable import masked
from inngest_outbox.outbox.model import ClaimRequest, Dead, Retry, Settlement, State
from inngest_outbox.web.events.event_view import EventView, event_view
from tests.support.followed_events import event, followed_events
from tests.unit.test_name_runs import T, row


@pytest.fixture
async def followed(tmp_path):
    async with followed_events(tmp_path, with_runs=False) as made:
        yield made


@pytest.fixture
async def client(followed, aiohttp_client):
    return await aiohttp_client(followed.app)


async def test_the_owner_of_a_dead_event_sees_the_code_and_the_servers_words(followed, client):
    outbox = followed.outbox
    await outbox.intake.append(event())
    batch = await outbox.queue.claim(ClaimRequest(1, 1000, 30))
    dead = Dead(batch.entries[0].seq, 3, "rejected", "name must not be empty")
    await outbox.queue.settle(Settlement(batch.claim, dead=[dead]))
    view = await (await client.get("/api/events/e-1")).json()
    assert (view["state"], view["deliveredAt"]) == ("dead", None)
    assert view["reason"] == "rejected: name must not be empty"
    assert view["final"] is True


def namesake(event_id):
    """An event of the user of another issuer, with the id of the user who asks."""
    return msgspec.structs.replace(
        event(event_id), owner=User("https://issuer.example", "u-1").owner
    )


async def test_an_event_is_seen_by_its_owner_and_by_an_operator_only(followed, client):
    await followed.outbox.intake.append(event())
    await followed.outbox.intake.append(event("e-2", "kim"))
    await followed.outbox.intake.append(namesake("e-3"))
    with capture_logs() as logs:
        for method, path in (("GET", "e-3"), ("GET", "e-3/stream"), ("DELETE", "e-3")):
            assert (await client.request(method, f"/api/events/{path}")).status == 404
        for path in ("e-2", "e-2/stream", "e-1", "e-1/stream"):
            async with client.get(f"/api/events/{path}", headers={"X-User": "kim"}) as seen:
                assert seen.status == 200
            refused = await client.get(f"/api/events/{path}", headers={"X-User": "u-2"})
            told = await refused.json()
            assert (refused.status, told["error"]) == (404, "There is no such event.")
    look = {"event": "operator_action", "log_level": "info", "action": "show_event"}
    looks = [line for line in logs if line["event"] == "operator_action"]
    assert looks == [{**look, "actor": masked("kim"), "event_id": "e-1"}] * 2  # not of kim's own


async def test_a_list_has_ones_own_events_the_newest_first_in_pages(followed, client):
    own = [event(f"e-{number}") for number in range(5)]
    for one in (
        event("old", "u-2"),
        namesake("older"),
        *own,
        event("new", "u-2"),
        namesake("newer"),
    ):
        await followed.outbox.intake.append(one)
    first = await (await client.get("/api/events?limit=3")).json()
    cursor = first["nextCursor"]
    second = await (await client.get(f"/api/events?limit=3&cursor={cursor}")).json()
    assert [one["id"] for one in first["events"]] == ["e-4", "e-3", "e-2"]
    assert [one["id"] for one in second["events"]] == ["e-1", "e-0"]
    assert (cursor, second["nextCursor"]) == ("5", None)


async def test_a_page_has_50_events_unless_it_is_asked_for_another_number(followed, client):
    for number in range(51):
        await followed.outbox.intake.append(event(f"e-{number}"))
    page = await (await client.get("/api/events")).json()
    assert [one["id"] for one in page["events"]] == [f"e-{number}" for number in range(50, 0, -1)]
    assert page["nextCursor"]


@pytest.mark.parametrize(
    ("state", "inngest_id", "delivered_at", "final"),
    [
        (State.PENDING, None, None, (False, False)),
        (State.DELIVERING, None, None, (False, False)),
        (State.SENT, "a-1", None, (False, False)),
        (State.DELIVERED, "a-1", T, (False, True)),  # where its runs can't be asked for
        (State.DEAD, None, None, (True, True)),
    ],
)
def test_an_event_shows_its_own_tries_times_and_reason(state, inngest_id, delivered_at, final):
    stored = msgspec.structs.replace(row("a", 1, T), state=state, attempts=3, sends=5)
    for runs_follow, is_final in zip((True, False), final, strict=True):
        view = event_view(stored, runs_follow=runs_follow)
        told = ("a-1", inngest_id, "a", state, 3, T - 100, delivered_at, None)
        assert view == EventView(*told, None, (), no_run=False, id_used=False, final=is_final)
        assert view.runs == ()
    for reason, detail, words in (
        ("rejected", "no name", "rejected: no name"),
        *(("rejected", nothing, "rejected") for nothing in (None, "")),
        (None, "no name", None),
    ):
        one = msgspec.structs.replace(stored, reason=reason, detail=detail)
        assert event_view(one, runs_follow=False).reason == words
    unknown = msgspec.structs.replace(stored, state=State.DELIVERED, inngest_id=None)
    assert event_view(unknown, runs_follow=True).final  # nothing can be asked about it


async def test_a_list_whose_search_takes_long_goes_on_at_the_cursor(tmp_path, aiohttp_client):
    hasty = SearchPolicy(first_window=2, window=2, budget_seconds=0.0)
    async with followed_events(tmp_path, with_runs=False, searching=hasty) as followed:
        client = await aiohttp_client(followed.app)
        await followed.outbox.intake.append(event("rare", name="a/c"))
        for number in range(4):
            await followed.outbox.intake.append(event(f"e-{number}"))
        pages, query = [], "name=a/c"
        while True:
            page = await (await client.get(f"/api/events?{query}")).json()
            pages.append([one["id"] for one in page["events"]])
            if page["nextCursor"] is None:
                break
            query = f"name=a/c&cursor={page['nextCursor']}"
    assert pages == [[], [], ["rare"]]


async def test_a_list_is_narrowed_by_state_and_name(followed, client):
    await followed.outbox.intake.append(event("e-1", name="ü" * 300))
    await followed.outbox.intake.append(event("e-2", name="a/c"))
    for query, expected in (
        ("state=pending&name=a/c", ["e-2"]),
        ("state=dead", []),
        ("name=", []),
        ("since=99999999999999", []),
        ("since=1795559419447", ["e-2", "e-1"]),
        ("since=1795559419448", []),
        ("state=dead&name=a/c", []),
        ("state=pending&cursor=2", ["e-1"]),
        ("name=a/c&cursor=2", []),
        *((f"since=1795559419448&{other}", []) for other in ("cursor=9", "name=a/c")),
        *((f"since=1795559419447&{other}", ["e-2"]) for other in ("limit=1", "name=a/c")),
        ("limit=100", ["e-2", "e-1"]),
        ("limit=001", ["e-2"]),
        (f"name={'ü' * 300}", ["e-1"]),
        (f"name={'ü' * 299}", []),
    ):
        page = await (await client.get(f"/api/events?{query}")).json()
        assert [one["id"] for one in page["events"]] == expected


_STATE = "state is one of pending, delivering, sent, delivered, dead."
_LIMIT = "limit is a whole number from 1 to 100."
_SINCE = f"since is a whole number from 0 to {2**53 - 1}."


async def test_a_query_that_makes_no_sense_is_refused(client):
    for query, error in (
        ("state=lost", _STATE),
        ("state=", _STATE),
        *((f"limit={text}", _LIMIT) for text in ("0", "101", "-1", "%2B1", "1.0", "x", "", "0001")),
        *((f"limit={text}", _LIMIT) for text in ("%201", "1_0", "%D9%A1", "%C2%B2")),
        ("cursor=x", f"cursor is a whole number from 1 to {2**53 - 1}."),
        ("since=-1", _SINCE),
        (f"since={'9' * 5000}", _SINCE),
    ):
        answer = await client.get(f"/api/events?{query}")
        told = await answer.json()
        assert (answer.status, told["code"], told["error"]) == (400, "invalid_field", error)


async def test_an_event_that_was_never_sent_is_taken_back_by_its_owner(followed, client):
    await followed.outbox.intake.append(event())
    for another in ("u-2", "kim"):  # nor does an operator
        refused = await client.delete("/api/events/e-1", headers={"X-User": another})
        assert (refused.status, (await refused.json())["error"]) == (404, "There is no such event.")
    assert await followed.outbox.intake.find("e-1") is not None
    assert (await client.delete("/api/events/e-1")).status == 204
    for gone in (client.get, client.delete):
        assert (await gone("/api/events/e-1")).status == 404
    cron = msgspec.structs.replace(event("e-2"), owner="key cron")
    await followed.outbox.intake.append(cron)
    machine = {"X-Issuer": "key", "X-User": "cron"}
    assert (await client.delete("/api/events/e-2", headers=machine)).status == 204
    acts = await followed.outbox.inspector.audit(10)
    told = {(act.action, act.ids, act.actor) for act in acts}
    assert told == {("discard", ("e-1",), "u-1"), ("discard", ("e-2",), "key cron")}


async def test_an_event_that_has_left_is_not_taken_back(followed, client):
    await followed.outbox.intake.append(event())
    batch = await followed.outbox.queue.claim(ClaimRequest(1, 1000, 30))
    back = Retry(batch.entries[0].seq, delay_seconds=60, attempts=0, isolated=False)
    for settled in ((), (back,)):
        await followed.outbox.queue.settle(Settlement(batch.claim, retry=settled))
        answer = await client.delete("/api/events/e-1")
        assert (answer.status, (await answer.json())["code"]) == (409, "event_left")


async def test_of_two_requests_that_take_back_one_event_the_later_finds_none(followed, client):
    discard = followed.rows.discard

    async def late(*wanted, **by):
        await discard(*wanted, **by)  # as the other one
        return await discard(*wanted, **by)

    followed.rows.discard = late
    await followed.outbox.intake.append(event())
    answer = await client.delete("/api/events/e-1")
    assert (answer.status, (await answer.json())["code"]) == (404, "not_found")
