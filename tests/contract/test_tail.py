"""Following an outbox: each look tells what was accepted and what changed since the one before."""

from __future__ import annotations

from service.operations.tail import Tail
from service.outbox.model import Filter, Retry, Settlement, State
from tests.support.rows import bury
from tests.support.storage import Outbox, append_all, claim, deliver, event


def tail(**wanted: object) -> Tail:
    return Tail(Filter(**wanted))


async def seen(followed: Tail, outbox: Outbox) -> list[tuple[str, str]]:
    return [(one.what, one.row.id) for one in await followed.look(outbox.inspector)]


async def test_it_begins_with_the_newest_rows_as_they_are(outbox: Outbox) -> None:
    [dead] = await bury(outbox)
    first, second = await append_all(outbox, 2)
    begun = await tail().begin(outbox.inspector, 2)
    assert [(one.what, one.row.id) for one in begun] == [
        ("pending", first.id),
        ("pending", second.id),
    ]
    begun = await tail(state=State.DEAD).begin(outbox.inspector, 2)
    assert [(one.what, one.row.id) for one in begun] == [("dead", dead)]
    assert await tail().begin(outbox.inspector, 0) == []


async def test_new_events_and_what_becomes_of_them_are_told_once(outbox: Outbox) -> None:
    followed = tail()
    assert await followed.begin(outbox.inspector, 10) == []
    first, second = await append_all(outbox, 2)
    assert await seen(followed, outbox) == [("accepted", first.id), ("accepted", second.id)]
    assert await seen(followed, outbox) == []
    batch = await claim(outbox)
    assert await seen(followed, outbox) == [("delivering", first.id), ("delivering", second.id)]
    retry = Retry(batch.entries[1].seq, 60.0, 1, isolated=True, note="HTTP 400: no")
    delivered = [batch.entries[0].seq]
    await outbox.queue.settle(Settlement(batch.claim, delivered=delivered, retry=[retry]))
    changes = await followed.look(outbox.inspector)
    assert [(one.what, one.row.id) for one in changes] == [
        ("delivered", first.id),
        ("pending", second.id),
    ]
    assert changes[1].row.history[-1]["note"] == "HTTP 400: no"
    await outbox.repairs.discard(Filter(ids=(second.id,)), actor="ada")
    assert await seen(followed, outbox) == [("gone", second.id)]
    assert await seen(followed, outbox) == []


async def test_an_event_that_is_settled_between_two_looks_is_told_twice(outbox: Outbox) -> None:
    followed = tail()
    await followed.begin(outbox.inspector, 10)
    [one] = await append_all(outbox, 1)
    await deliver(outbox, await claim(outbox))
    assert await seen(followed, outbox) == [("accepted", one.id), ("delivered", one.id)]


async def test_rows_that_were_there_before_are_followed(outbox: Outbox) -> None:
    [dead] = await bury(outbox)
    [waiting] = await append_all(outbox, 1)
    followed = tail()
    await followed.begin(outbox.inspector, 0)
    await outbox.repairs.replay(Filter(), actor="ada")
    assert await seen(followed, outbox) == [("pending", dead)]
    await deliver(outbox, await claim(outbox))
    assert sorted(await seen(followed, outbox)) == sorted(
        [("delivered", dead), ("delivered", waiting.id)]
    )


async def test_only_what_matches_is_told(outbox: Outbox) -> None:
    of_user, dead_only = tail(user_id="u-2"), tail(state=State.DEAD)
    for one in (of_user, dead_only):
        await one.begin(outbox.inspector, 10)
    [dead] = await bury(outbox)
    other = event("u-2")
    await outbox.intake.append(other)
    assert await seen(of_user, outbox) == [("accepted", other.id)]
    assert await seen(dead_only, outbox) == [("dead", dead)]


async def test_more_events_than_a_page_are_told_in_their_order(outbox: Outbox) -> None:
    followed = tail()
    await followed.begin(outbox.inspector, 0)
    events = await append_all(outbox, 1100)
    assert await seen(followed, outbox) == [("accepted", one.id) for one in events]
    assert await seen(followed, outbox) == []
