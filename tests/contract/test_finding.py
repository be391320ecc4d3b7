"""Rows are found by filters, in windows that end early, from a moment, and among one owner's."""

from __future__ import annotations

import msgspec
import pytest

from inngest_outbox.console.operations.bulk import find_all
from inngest_outbox.console.operations.search import (
    Counted,
    Found,
    Listing,
    Search,
    SearchPolicy,
    find_ids,
    list_rows,
)
from inngest_outbox.outbox.model import Dead, Filter, Settlement, State
from tests.support.calls import aged
from tests.support.rows import bury_all, one_of_each
from tests.support.storage import Outbox, append_all, claim, deliver, event


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
    monkeypatch.setattr("inngest_outbox.console.operations.search.MOST_OF_PREFIX", 2)
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
    assert [row.id for row in (await find_ids(outbox.inspector, ["019e"])).rows] == ["019e"]


async def test_an_event_is_found_by_its_id_in_inngest(outbox: Outbox) -> None:
    await append_all(outbox, 3)
    row = (await outbox.inspector.rows(Filter()))[1]
    of_another_outbox = row.inngest_id[:12] + "ZZZZ" + row.inngest_id[16:]
    found = await find_ids(outbox.inspector, [row.inngest_id, of_another_outbox])
    assert [one.id for one in found.rows] == [row.id]
    assert found.unknown == (of_another_outbox,)


async def test_rows_are_found_by_the_time_of_their_acceptance_and_by_their_number(
    outbox: Outbox,
) -> None:
    for number, at_ms in enumerate((1000, 2000, 3000)):
        await outbox.intake.append(named(f"e-{number}", at_ms))
    assert await found(outbox, since_ms=2000) == ["e-2", "e-1"]
    assert await found(outbox, until_ms=2000) == ["e-0"]
    assert await found(outbox, since_ms=1001, until_ms=3000, state=State.PENDING) == ["e-1"]
    [middle] = await outbox.inspector.rows(Filter(ids=("e-1",)))
    assert await found(outbox, after_seq=middle.seq) == ["e-2"]
    assert await found(outbox, before_seq=middle.seq) == ["e-0"]


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


async def test_each_state_can_be_listed_has_windows_and_meets_other_filters(
    outbox: Outbox,
) -> None:
    places = await one_of_each(outbox)
    for state, event_id in places.items():
        [row] = await outbox.inspector.rows(Filter(state=state))
        assert (row.id, row.state) == (event_id, state)
        reach = await outbox.positions.reach(state, 1)
        assert (reach.seq, reach.accepted_at_ms) == (row.seq, row.accepted_at_ms)
        below = await outbox.positions.reach(state, 1, row.seq)
        assert below is None or below.seq < row.seq
        assert await outbox.positions.reach(state, 2) is None
        assert await outbox.inspector.count(Filter(state=state)) == 1
    rows = await outbox.inspector.rows(Filter())
    assert {row.state: row.id for row in rows} == places
    dead, waiting = places[State.DEAD], places[State.PENDING]
    assert await found(outbox, ids=(dead, waiting, "unknown")) == [waiting, dead]
    assert await found(outbox, ids=(dead, dead)) == [dead]
    assert await found(outbox, ids=()) == []
    assert await found(outbox, user_id="u-4") == [waiting]
    assert await found(outbox, name="other/event") == [waiting]
    assert await found(outbox, reason="rejected") == [dead]
    assert await found(outbox, reason="rejected", user_id="u-4") == []
    assert await found(outbox, user_id='it\'s "quoted"; --') == []


SMALL = SearchPolicy(first_window=3, window=3, budget_seconds=60.0)


async def append_at(outbox: Outbox, *times: int) -> list[str]:
    events = [msgspec.structs.replace(event(), accepted_at_ms=at) for at in times]
    for each in events:
        await outbox.intake.append(each)
    return [each.id for each in events]


async def test_a_window_ends_at_its_last_row_or_nowhere(outbox: Outbox) -> None:
    await append_all(outbox, 5)
    rows = await outbox.inspector.rows(Filter())
    for state in (None, State.PENDING):
        reach = await outbox.positions.reach(state, 2)
        assert (reach.seq, reach.accepted_at_ms) == (rows[1].seq, rows[1].accepted_at_ms)
        below = await outbox.positions.reach(state, 2, reach.seq)
        assert below.seq == rows[3].seq
        assert await outbox.positions.reach(state, 6) is None
    assert await outbox.positions.reach(State.DEAD, 1) is None


async def test_a_moment_is_found_among_the_rows(outbox: Outbox) -> None:
    assert await outbox.positions.seq_at(1_000) <= 1
    ids = await append_at(outbox, 1_000, 2_000, 3_000, 4_000)
    rows = {row.id: row.seq for row in await outbox.inspector.rows(Filter())}
    assert await outbox.positions.seq_at(0) == rows[ids[0]]
    assert await outbox.positions.seq_at(2_500) == rows[ids[2]]
    assert await outbox.positions.seq_at(9_000) == rows[ids[3]] + 1


async def test_a_search_goes_through_windows_until_its_page_is_full(outbox: Outbox) -> None:
    wanted = [(await append_all(outbox, 1, "rare"))[0].id]
    await append_all(outbox, 7, "common")
    wanted.insert(0, (await append_all(outbox, 1, "rare"))[0].id)
    search = Search(outbox.inspector, outbox.positions, SMALL)
    found = await search.find(Filter(user_id="rare", limit=10))
    assert [row.id for row in found.rows] == wanted
    assert (found.next_seq, found.paused_at_ms) == (None, None)
    first = await search.find(Filter(user_id="rare", limit=1))
    assert [row.id for row in first.rows] == wanted[:1]
    second = await search.find(Filter(user_id="rare", limit=1, before_seq=first.next_seq))
    assert [row.id for row in second.rows] == wanted[1:]


async def test_a_search_in_time_begins_and_ends_there(outbox: Outbox) -> None:
    minute = 60_000
    ids = await append_at(outbox, *(hour * 60 * minute for hour in range(1, 9)))
    search = Search(outbox.inspector, outbox.positions, SMALL)
    wanted = Filter(since_ms=3 * 60 * minute, until_ms=5 * 60 * minute + 1, limit=10)
    found = await search.find(wanted)
    assert [row.id for row in found.rows] == [ids[4], ids[3], ids[2]]


# Rows of the owner are gone through where more rows than a window are in the state.
AMONG_OWN = SearchPolicy(first_window=2, window=3, budget_seconds=60.0)
HASTY = SearchPolicy(first_window=3, window=3, budget_seconds=0.0)
AMONG_STATE = SearchPolicy(first_window=2, window=50, budget_seconds=60.0)
NEVER_MS = 2**52


async def all_pages(search: Search, **wanted: object) -> list[str]:
    """The ids of all pages; some pages may be short or empty."""
    found: list[str] = []
    before = None
    while True:
        page = await search.find(Filter(before_seq=before, **wanted))
        found += [row.id for row in page.rows]
        assert before is None or page.next_seq is None or page.next_seq < before
        before = page.next_seq
        if before is None:
            return found


async def test_a_window_of_an_owner_ends_at_the_owner_s_rows(outbox: Outbox) -> None:
    own = []
    for _ in range(3):
        own += await append_all(outbox, 1, "mine")
        await append_all(outbox, 2, "other")
    rows = {row.id: row for row in await outbox.inspector.rows(Filter(owner="mine"))}
    seqs = [rows[each.id].seq for each in own]
    reach = await outbox.positions.reach(None, 2, owner="mine")
    assert (reach.seq, reach.accepted_at_ms) == (seqs[1], own[1].accepted_at_ms)
    below = await outbox.positions.reach(None, 1, seqs[1], "mine")
    assert below.seq == seqs[0]
    assert await outbox.positions.reach(None, 4, None, "mine") is None
    assert await outbox.positions.reach(None, 1, None, "nobody") is None


@pytest.mark.parametrize("policy", [AMONG_OWN, AMONG_STATE])
async def test_an_owner_s_rows_are_found_in_any_state(outbox: Outbox, policy: SearchPolicy) -> None:
    wanted: dict[State | None, list[str]] = {State.PENDING: [], State.DEAD: [], State.SENT: []}
    wanted[State.DELIVERED] = [one.id for one in await append_all(outbox, 4, "mine")]
    await deliver(outbox, await claim(outbox))
    for _ in range(3):
        dead = [event("mine"), event("other")]
        await bury_all(outbox, *dead)
        wanted[State.DEAD].append(dead[0].id)
    for _ in range(5):
        wanted[State.PENDING] += [one.id for one in await append_all(outbox, 1, "mine")]
        await append_all(outbox, 1, "other")
    wanted[None] = wanted[State.DELIVERED] + wanted[State.DEAD] + wanted[State.PENDING]
    search = Search(outbox.inspector, outbox.positions, policy)
    for state, ids in wanted.items():
        found = await all_pages(search, owner="mine", state=state, limit=2)
        assert found == ids[::-1], state
        assert await all_pages(search, owner="mine", state=state, name="no", limit=2) == []
        assert await all_pages(search, owner="nobody", state=state, limit=2) == []


async def test_a_search_among_an_owner_s_rows_pauses(outbox: Outbox) -> None:
    rare = event("mine", name="rare")
    await outbox.intake.append(rare)
    await append_all(outbox, 7, "mine")
    search = Search(outbox.inspector, outbox.positions, HASTY)
    wanted = Filter(owner="mine", name="rare", state=State.PENDING)
    first = await search.find(wanted)
    assert (first.rows, first.paused_at_ms is None) == ([], False)
    assert first.next_seq is not None
    assert await all_pages(search, owner="mine", name="rare") == [rare.id]


async def test_a_row_that_was_committed_out_of_order_is_found_since_its_time(
    outbox: Outbox,
) -> None:
    early, late = event("mine"), event("mine")
    late = msgspec.structs.replace(late, accepted_at_ms=early.accepted_at_ms + 1_000)
    for one in (late, early):
        await outbox.intake.append(one)
    policy = SearchPolicy(first_window=1, window=1, late_rows=0)
    search = Search(outbox.inspector, outbox.positions, policy)
    found = await search.find(Filter(since_ms=late.accepted_at_ms))
    assert [row.id for row in found.rows] == [late.id]


async def test_rows_are_counted_up_to_a_limit_or_until_a_pause(outbox: Outbox) -> None:
    await append_all(outbox, 2, "rare")
    await append_all(outbox, 7, "mine")
    patient, hasty = (
        Search(outbox.inspector, outbox.positions, policy) for policy in (AMONG_OWN, HASTY)
    )
    assert await patient.count(Filter(limit=9)) == Counted(9, is_bounded=False)
    assert await patient.count(Filter(limit=8)) == Counted(8, is_bounded=True)
    assert await patient.count(Filter(user_id="rare")) == Counted(2, is_bounded=False)
    assert await hasty.count(Filter(user_id="mine")) == Counted(3, is_bounded=True)
    assert await patient.count(Filter(state=State.DEAD)) == Counted(0, is_bounded=False)
    assert await patient.count(Filter(state=State.PENDING, user_id="mine")) == Counted(
        7, is_bounded=False
    )


async def test_a_listing_says_of_how_many_it_is_a_part(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append_all(outbox, 8)
    patient, hasty = (
        Search(outbox.inspector, outbox.positions, policy) for policy in (AMONG_OWN, HASTY)
    )
    whole = await list_rows(patient, patient, Filter(limit=8))
    assert (whole.words, whole.found.next_seq) == ("8 of 8", None)
    part = await list_rows(patient, patient, Filter(limit=2))
    assert (part.words, part.found.next_seq) == ("2 of 8", part.found.rows[1].seq)
    for limit, words in ((6, "6 of 6"), (2, "2 of 6")):
        wanted = Filter(limit=limit, before_seq=part.found.next_seq)
        assert (await list_rows(patient, patient, wanted)).words == words
    assert (await list_rows(patient, hasty, Filter(limit=2))).words == "2 of more than 5"
    paused = await list_rows(hasty, patient, Filter(limit=9))
    assert (paused.words, paused.found.paused_at_ms is None) == ("3 of more than 3", False)
    many = Found(part.found.rows * 600)
    assert Listing(many, 1_202, is_bounded=False).words == "1,200 of 1,202"
    monkeypatch.setattr("inngest_outbox.console.operations.search.MAX_COUNTED", 4)
    for limit, words in ((2, "2 of more than 4"), (6, "6 of more than 6")):
        assert (await list_rows(patient, patient, Filter(limit=limit))).words == words


async def test_all_rows_are_found_however_long_it_takes(outbox: Outbox) -> None:
    ids = [one.id for one in await append_all(outbox, 8)]
    search = Search(outbox.inspector, outbox.positions, HASTY)
    told: list[tuple[int, int]] = []
    for wanted, those, pauses in (
        (Filter(limit=99), ids[::-1], [3, 6]),
        (Filter(limit=7), ids[:0:-1], [3, 6]),
        (Filter(limit=4), ids[:3:-1], [3]),
        (Filter(limit=3), ids[:4:-1], []),
        (Filter(ids=(ids[0], ids[5]), limit=99), [ids[5], ids[0]], []),
    ):
        told.clear()
        found = await find_all(search, wanted, lambda *how_far: told.append(how_far))
        assert [row.id for row in found] == those
        assert told == [(count, found[count - 1].accepted_at_ms) for count in pauses]
    told.clear()
    nobodys = Filter(user_id="nobody")
    assert await find_all(search, nobodys, lambda *how_far: told.append(how_far)) == []
    assert [count for count, _ in told] == [0, 0]


async def test_newer_rows_are_not_gone_through_for_rows_of_some_age(outbox: Outbox) -> None:
    old = aged(7_200)
    await outbox.intake.append(old)
    ids = [old.id, *(one.id for one in await append_all(outbox, 8))]
    patient, hasty = (
        Search(outbox.inspector, outbox.positions, policy) for policy in (AMONG_OWN, HASTY)
    )
    found = await hasty.find(Filter(until_ms=old.accepted_at_ms + 3_600_000, limit=5))
    assert ([row.id for row in found.rows], found.next_seq) == ([old.id], None)
    assert await all_pages(patient, until_ms=NEVER_MS, limit=5) == ids[::-1]
    assert await all_pages(patient, until_ms=old.accepted_at_ms, limit=5) == []
