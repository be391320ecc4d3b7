"""Finding rows: by state and filters that are met together, by how an id begins, by time."""

from __future__ import annotations

import msgspec
import pytest

from service.console.operations.search import Search, find_ids
from service.outbox.model import Dead, Filter, Settlement, State
from tests.support.rows import one_of_each
from tests.support.storage import Outbox, append_all, claim, event


def named(event_id: str, accepted_at_ms: int = 1_795_559_419_447):
    return msgspec.structs.replace(event(), id=event_id, accepted_at_ms=accepted_at_ms)


async def found(outbox: Outbox, **wanted: object) -> list[str]:
    return [row.id for row in await outbox.inspector.rows(Filter(**wanted))]


async def test_a_row_is_found_by_how_its_id_begins(outbox: Outbox) -> None:
    for event_id in ("019e-aa", "019e-ab", "019f", "ü%_\U0010fffe"):
        await outbox.intake.append(named(event_id))
    assert await found(outbox, id_prefix="019e-a") == ["019e-ab", "019e-aa"]
    assert await found(outbox, id_prefix="019e-ab") == ["019e-ab"]
    assert await found(outbox, id_prefix="ü%") == ["ü%_\U0010fffe"]
    assert await found(outbox, id_prefix="%") == await found(outbox, id_prefix="019e_") == []
    assert await found(outbox, id_prefix="019", state=State.PENDING, limit=2) == ["019f", "019e-ab"]
    assert await found(outbox, id_prefix="019", state=State.DEAD) == []
    assert await found(outbox, id_prefix="019", owner="u-1", user_id="u-2") == []


async def test_a_search_for_a_beginning_of_too_many_ids_says_that_it_is_cut(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.console.operations.search.MOST_OF_PREFIX", 2)
    looking = Search(outbox.inspector, outbox.positions)
    for event_id, is_cut in (("019e-aa", False), ("019e-ab", True), ("019e-ac", True)):
        await outbox.intake.append(named(event_id))
        found = await looking.find(Filter(id_prefix="019e", state=State.DEAD))
        assert (found.rows, found.is_cut) == ([], is_cut)


async def test_given_ids_are_found_whole_or_by_their_beginning(outbox: Outbox) -> None:
    for event_id in ("019e", "019e-ab", "019f-aa", "019f-ab"):
        await outbox.intake.append(named(event_id))
    given = ["019f-ab", "019e", "019e-", "019e-ab", "019f", "x", "019f-a"]
    ids = await find_ids(outbox.inspector, given)
    assert [row.id for row in ids.rows] == ["019f-ab", "019e", "019e-ab"]
    assert ids.unknown == ("x",)
    assert [(one, [row.id for row in rows]) for one, rows in ids.ambiguous] == [
        ("019f", ["019f-ab", "019f-aa"]),
        ("019f-a", ["019f-ab", "019f-aa"]),
    ]
    assert (await find_ids(outbox.inspector, [])).rows == ()


async def test_an_event_is_found_by_its_id_in_inngest(outbox: Outbox) -> None:
    await append_all(outbox, 3)
    row = (await outbox.inspector.rows(Filter()))[1]
    assert row.inngest_id is not None
    of_another_outbox = row.inngest_id[:12] + "ZZZZ" + row.inngest_id[16:]
    found = await find_ids(outbox.inspector, [row.inngest_id, of_another_outbox])
    assert [one.id for one in found.rows] == [row.id]
    assert found.unknown == (of_another_outbox,)


async def test_rows_are_found_by_the_time_of_their_acceptance(outbox: Outbox) -> None:
    for number, at_ms in enumerate((1000, 2000, 3000)):
        await outbox.intake.append(named(f"e-{number}", at_ms))
    assert await found(outbox, since_ms=2000) == ["e-2", "e-1"]
    assert await found(outbox, until_ms=2000) == ["e-0"]
    assert await found(outbox, since_ms=1001, until_ms=3000, state=State.PENDING) == ["e-1"]


async def test_newer_rows_than_one_are_found(outbox: Outbox) -> None:
    first, second, third = await append_all(outbox, 3)
    [middle] = await outbox.inspector.rows(Filter(ids=(second.id,)))
    assert await found(outbox, after_seq=middle.seq) == [third.id]
    assert await found(outbox, before_seq=middle.seq) == [first.id]


async def test_rows_are_found_by_parts_of_their_texts(outbox: Outbox) -> None:
    scan = msgspec.structs.replace(
        named("scan"), name="Scans/uploaded", user_id="grace", payload='{"title":"Zoë"}'.encode()
    )
    for one in (named("other"), scan):
        await outbox.intake.append(one)
    batch = await claim(outbox)
    dead = [Dead(entry.seq, 1, "too_large", "no") for entry in batch.entries[1:]]
    await outbox.queue.settle(Settlement(batch.claim, dead=dead))
    await outbox.intake.append(msgspec.structs.replace(scan, id="new"))
    both = ["new", "scan"]
    assert await found(outbox, name_part="scans/") == await found(outbox, user_part="RAC") == both
    assert await found(outbox, name_part="%") == []
    assert await found(outbox, reason_part="LARGE") == ["scan"]
    assert await found(outbox, payload_part='"Zoë"') == both
    assert await found(outbox, payload_part="zoë") == []
    assert await found(outbox, payload_part="Zoë", state=State.PENDING) == ["new"]


async def test_dead_rows_are_counted_by_name_and_reason(outbox: Outbox) -> None:
    for place, name in enumerate("abac"):
        await outbox.intake.append(msgspec.structs.replace(named(f"{name}-{place}"), name=name))
        batch = await claim(outbox)
        dead = Dead(batch.entries[0].seq, 1, "rejected", f"no {name}")
        await outbox.queue.settle(Settlement(batch.claim, dead=[dead]))
    groups = await outbox.inspector.dead_groups(3)
    assert sorted((one.name, one.rows) for one in groups) == [("a", 1), ("b", 1), ("c", 1)]
    first = (await outbox.inspector.dead_groups(10))[0]
    assert (first.name, first.reason, first.rows, first.detail) == ("a", "rejected", 2, "no a")


async def test_each_state_can_be_listed(outbox: Outbox) -> None:
    places = await one_of_each(outbox)
    for state, event_id in places.items():
        rows = await outbox.inspector.rows(Filter(state=state))
        assert [(row.id, row.state) for row in rows] == [(event_id, state)]
    rows = await outbox.inspector.rows(Filter())
    assert {row.state: row.id for row in rows} == places


async def test_filters_are_met_together(outbox: Outbox) -> None:
    places = await one_of_each(outbox)
    dead, waiting = places[State.DEAD], places[State.PENDING]

    async def listed(**wanted: object) -> list[str]:
        return [row.id for row in await outbox.inspector.rows(Filter(**wanted))]

    assert await listed(ids=(dead, waiting, "unknown")) == [waiting, dead]
    assert await listed(ids=(dead, dead)) == [dead]
    assert await listed(ids=()) == []
    assert await listed(user_id="u-4") == [waiting]
    assert await listed(name="other/event") == [waiting]
    assert await listed(reason="rejected") == [dead]
    assert await listed(reason="rejected", user_id="u-4") == []
    assert await listed(older_than_seconds=3600) == []
    assert len(await listed(older_than_seconds=-60)) == 4
    assert await listed(user_id='it\'s "quoted"; --') == []
