"""What operators change: replay, discard, purge, settings, and the audit of it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from inngest_outbox.console.operations.actions import SessionSignOuts
from inngest_outbox.console.operations.bulk import change_rows
from inngest_outbox.identity.session_revision import SessionRevisions
from inngest_outbox.outbox.audit import ErasedRecords, act_of
from inngest_outbox.outbox.figures import MINUTE_MS, Sample
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.model import Dead, Filter, Named, Retry, Settlement, State
from tests.support.named_rows import named
from tests.support.rows import bury, bury_all, one_of_each
from tests.support.storage import (
    Outbox,
    Storage,
    append_all,
    ask,
    claim,
    claims_nothing,
    deliver,
    event,
    eventually,
    ids,
)


async def test_replayed_rows_are_due_with_nothing_counted_against_them(outbox: Outbox) -> None:
    """A claim that waits wakes for them."""
    dead = await bury(outbox, 3)
    waiting = asyncio.create_task(claim(outbox))
    assert await claims_nothing(outbox)
    others = Named(tuple(dead), State.DEAD, owner="u-2")
    assert await outbox.repairs.replay(others, actor="ada") == []
    replayed = await outbox.repairs.replay(Named(tuple(dead[:2]), State.DEAD), actor="ada")
    assert sorted(replayed) == sorted(dead[:2])
    batch = await waiting
    assert ids(batch) == dead[:2]
    assert all((entry.attempts, entry.sends) == (0, 1) for entry in batch.entries)
    row = await outbox.intake.find(dead[0])
    assert (row.reason, row.detail) == (None, None)
    assert "ada" in row.history[-1].note
    assert (await outbox.inspector.stats()).dead == 1
    await append_all(outbox, 1)
    await outbox.queue.settle(Settlement(batch.claim, delivered=[batch.entries[0].seq]))
    every = await named(outbox.inspector)  # one in each state
    assert await outbox.repairs.replay(every, actor="ada") == dead[2:]
    for state in (State.PENDING, State.DELIVERING, State.SENT):
        assert await outbox.repairs.replay(Named(every.ids, state), actor="ada") == []


async def test_discarded_rows_are_gone(outbox: Outbox) -> None:
    """All but those that are delivering, or those of the state that is named."""
    places = await one_of_each(outbox)
    dead, delivering = places[State.DEAD], places[State.DELIVERING]
    ids = tuple(places.values())
    assert await outbox.repairs.discard(Named(ids, State.DEAD), actor="ada") == [dead]
    assert await outbox.repairs.discard(Named(ids, State.DELIVERING), actor="ada") == []
    assert len(await outbox.inspector.rows(Filter())) == 4
    gone = await outbox.repairs.discard(Named(ids), actor="ada")
    assert sorted(gone) == sorted({*ids} - {dead, delivering})
    assert [row.id for row in await outbox.inspector.rows(Filter())] == [delivering]
    assert await outbox.inspector.payload(dead) is None
    stats = await outbox.inspector.stats()
    assert (stats.pending, stats.sent, stats.delivered, stats.dead) == (0, 0, 0, 0)
    assert stats.delivering == 1


async def test_a_payload_goes_before_its_row_and_such_a_row_is_not_sent_again(
    outbox: Outbox,
) -> None:
    """Delivered events alone lose either, and only once they are old enough."""
    places = await one_of_each(outbox)
    gone = places[State.DELIVERED]
    assert await outbox.repairs.purge_payloads(older_than_seconds=3600) == 0
    assert await outbox.repairs.purge_payloads(older_than_seconds=-1) == 1
    assert await outbox.repairs.purge_payloads(older_than_seconds=-1) == 0
    assert await outbox.inspector.payload(gone) == b""
    kept = {row.id: row.has_payload for row in await outbox.inspector.rows(Filter())}
    assert kept == {one: one != gone for one in places.values()}
    assert await outbox.repairs.replay(Named((gone,), State.DELIVERED), actor="ada") == []
    assert (await outbox.inspector.stats()).delivered == 1
    assert await outbox.repairs.purge(older_than_seconds=3600, actor="retention") == 0
    assert await outbox.repairs.purge(older_than_seconds=-1, actor="retention") == 1
    left = {row.id for row in await outbox.inspector.rows(Filter())}
    assert left == set(places.values()) - {gone}
    acts = [(one.action, one.detail) for one in await outbox.inspector.audit(9)]
    assert acts == [("purge", "delivered rows: 1"), ("replay", "1 given id, state=delivered")]


async def test_the_payloads_of_many_pages_go_and_their_keys_still_replay(outbox: Outbox) -> None:
    """A dead row of a clock that was ahead ends neither that purge nor the one of the rows."""
    ahead, key = event(), IdempotencyKey("k-1", bytes(32))
    in_a_year = ahead.accepted_at_ms + 31_536_000_000
    await bury_all(outbox, msgspec.structs.replace(ahead, accepted_at_ms=in_a_year))
    first = await outbox.intake.append(event(), key=key)
    await asyncio.gather(*(outbox.intake.append(event()) for _ in range(1200)))
    await deliver(outbox, await claim(outbox, ask(2000)))
    assert await outbox.repairs.purge_payloads(older_than_seconds=-1) == 1201
    again = await outbox.intake.append(event(), key=key)
    assert (again.event_id, again.replayed) == (first.event_id, True)
    assert await outbox.repairs.purge(older_than_seconds=-1, actor="retention") == 1201


async def test_operator_actions_are_in_the_audit_newest_first(outbox: Outbox) -> None:
    [dead] = await bury(outbox)
    await outbox.repairs.replay(await named(outbox.inspector), actor="ada")
    await outbox.repairs.discard(
        await named(outbox.inspector, Filter(state=State.PENDING)), actor="grace"
    )
    await outbox.repairs.set_paused(paused=True, actor="edsger", reason="a leak")
    await outbox.repairs.set_paused(paused=False, actor="edsger", reason="it is mended")
    entries = await outbox.inspector.audit(10)
    assert [(entry.actor, entry.action) for entry in entries] == [
        ("edsger", "resume"),
        ("edsger", "pause"),
        ("grace", "discard"),
        ("ada", "replay"),
    ]
    assert all(entry.at > 0 for entry in entries)
    assert [entry.ids for entry in entries] == [(), (), (dead,), (dead,)]
    details = [entry.detail for entry in entries]
    assert details == ["it is mended", "a leak", "1 given id, state=pending", "1 given id"]
    assert len(await outbox.inspector.audit(2)) == 2


async def test_the_audit_and_scopes_survive_a_restart_and_no_number_comes_again(
    storage: Storage,
) -> None:
    async with storage.open() as outbox:
        await outbox.scopes.save_scope("user", "u-1", {"a": 1})
        await outbox.intake.append(event())
        newest = (await outbox.intake.append(event())).event_id
        [before] = await outbox.inspector.rows(Filter(ids=(newest,)))
        await outbox.repairs.discard(Named((newest,)), actor="ada")
    async with storage.open() as outbox:
        later = (await outbox.intake.append(event())).event_id
        [after] = await outbox.inspector.rows(Filter(ids=(later,)))
        assert [entry.action for entry in await outbox.inspector.audit(10)] == ["discard"]
        assert await outbox.scopes.load_scope("user", "u-1") == {"a": 1}
    assert after.seq > before.seq


async def test_only_a_row_of_the_owner_that_was_never_sent_is_discarded_as_such(
    outbox: Outbox,
) -> None:
    await outbox.intake.append(event("u-5"))
    batch = await claim(outbox)
    retry = Retry(batch.entries[0].seq, delay_seconds=60, attempts=1, isolated=False)
    await outbox.queue.settle(Settlement(batch.claim, retry=[retry]))
    waiting = (await one_of_each(outbox))[State.PENDING]
    others = Named((waiting,), owner="u-2", never_sent=True)
    assert await outbox.repairs.discard(others, actor="u-2") == []
    every = await named(outbox.inspector)
    gone = await outbox.repairs.discard(Named(every.ids, never_sent=True), actor="ada")
    assert gone == [waiting]


async def test_all_of_many_discarded_events_are_found_by_their_ids(outbox: Outbox) -> None:
    await asyncio.gather(*(outbox.intake.append(event()) for _ in range(1200)))
    batch = await claim(outbox, ask(1200, max_bytes=10_000_000))
    dead = [Dead(entry.seq, 4, "rejected", "no") for entry in batch.entries]
    await outbox.queue.settle(Settlement(batch.claim, dead=dead))
    wanted = Filter(state=State.DEAD, reason="rejected", limit=100_000)
    rows = await outbox.inspector.rows(wanted)
    told: list[tuple[int, int]] = []
    gone = await change_rows(
        outbox.repairs.discard,
        rows,
        actor="ada",
        act=act_of(wanted),
        told=lambda *counts: told.append(counts),
    )
    assert len(gone) == 1200
    assert told == [(500, 1200), (1000, 1200), (1200, 1200)]
    await outbox.repairs.set_paused(paused=True, actor="grace", reason="upgrade")

    [pause, discard] = await outbox.inspector.audit(10)
    assert (pause.action, pause.detail, pause.ids) == ("pause", "upgrade", ())
    assert (discard.actor, discard.action) == ("ada", "discard")
    assert discard.detail == "state=dead, reason=rejected, limit=100000"
    assert sorted(discard.ids) == sorted(entry.event_id for entry in batch.entries)
    for entry in (batch.entries[0], batch.entries[700], batch.entries[-1]):
        assert await outbox.inspector.audit(10, event=entry.event_id) == [discard]


async def test_the_audit_of_one_event_has_nothing_of_another(outbox: Outbox) -> None:
    first, second = await bury(outbox, 2)
    for one in (first, second):
        await outbox.repairs.replay(Named((one,)), actor="ada")
    await outbox.repairs.discard(Named((first,)), actor="ada")
    for event_id in (first, second, None):
        await outbox.trail.record("show", actor="ada", detail="looked", event_id=event_id)
    assert [one.ids for one in await outbox.inspector.audit(3)] == [(), (second,), (first,)]
    found = await outbox.inspector.audit(10, event=first)
    assert [(one.action, one.ids) for one in found] == [
        ("show", (first,)),
        ("discard", (first,)),
        ("replay", (first,)),
    ]
    beginning = first[:30]
    assert (await outbox.inspector.audit(10, event=beginning))[0].ids == (first,)
    assert await outbox.inspector.audit(10, event=first[1:]) == []
    assert await outbox.inspector.audit(10, event='"') == []


async def test_a_row_that_changed_after_it_was_shown_is_left_alone(outbox: Outbox) -> None:
    first, second = await bury(outbox, 2)
    wanted = Filter(state=State.DEAD)
    rows = await outbox.inspector.rows(wanted)
    await outbox.repairs.replay(Named((first,)), actor="grace")
    gone = await change_rows(outbox.repairs.discard, rows, actor="ada", act=act_of(wanted))
    assert gone == [second]
    assert (await outbox.inspector.audit(1))[0].ids == (second,)


@pytest.mark.parametrize(("owner", "name"), [("dev u-1", "u-1"), ("a.c", "a.c")])
async def test_an_owner_is_erased_where_it_is_named_and_similar_names_stay(
    outbox: Outbox, owner: str, name: str
) -> None:
    kept = [f"user_id={name}1", f"{name}@example.com", f"x.{name}", "abc"]
    named = [name, f"owner=dev {name}, limit=500", f"({name})", f"{name}."]
    for minute, scope_id in enumerate((owner, f"{owner}1")):
        await outbox.scopes.save_scope("user", scope_id, {"a": 1})
        said = f"400 the data of {scope_id} is wrong"
        await outbox.samples.add(Sample(minute * MINUTE_MS, 1, 1, 0, 0, "x", said))
    await outbox.scopes.save_scope("organization", owner, {"a": 1})
    for detail in (*kept, *named):
        await outbox.trail.record("look", actor="ada", detail=detail)
    await outbox.trail.record("look", actor=name, detail="its own")
    before = outbox.scopes.scope_revision
    erased = [await outbox.repairs.erase_records(owner, actor="kim") for _ in range(2)]
    assert erased == [ErasedRecords(1, 5), ErasedRecords(0, 0)]
    await eventually(lambda: outbox.scopes.scope_revision > before)
    for scope, scope_id, left in (
        ("user", owner, None),
        ("user", f"{owner}1", {"a": 1}),
        ("organization", owner, {"a": 1}),
    ):
        assert await outbox.scopes.load_scope(scope, scope_id) == left
    acts = [(one.actor, one.detail) for one in await outbox.inspector.audit(20)]
    assert acts == [
        *[("kim", "everything of one owner")] * 2,
        ("erased", "its own"),
        *[("ada", "erased")] * 4,
        *(("ada", one) for one in reversed(kept)),
    ]
    reasons = [one.reason for one in await outbox.samples.between(0, MINUTE_MS)]
    assert reasons == ["erased", f"400 the data of {owner}1 is wrong"]


async def test_a_sign_out_ends_the_sessions_and_leaves_one_audit_row(outbox: Outbox) -> None:
    revisions = SessionRevisions(outbox.scopes)
    before = {owner: await revisions.current(owner) for owner in ("dev u-1", "shared u-1")}
    sign_outs = SessionSignOuts(outbox.scopes)
    assert await sign_outs.sign_out(["dev u-1", "shared u-1"], actor="ada") == 2
    fresh = SessionRevisions(outbox.scopes)
    after = {owner: await fresh.current(owner) for owner in before}
    assert not set(after.values()) & set(before.values())
    [entry] = await outbox.inspector.audit(10)
    assert (entry.actor, entry.action, entry.detail) == ("ada", "sign-out", "dev u-1, shared u-1")


async def test_a_scope_is_loaded_as_it_was_saved_and_its_save_raises_the_revision(
    outbox: Outbox,
) -> None:
    settings: dict[str, object] = {"a": {"b": [1, None, "ü\x00"]}, "c": 1.5}
    before = outbox.scopes.scope_revision
    assert await outbox.scopes.load_scope("user", "u-1") is None
    await outbox.scopes.save_scope("user", "u-1", settings)
    await eventually(lambda: outbox.scopes.scope_revision > before)
    await outbox.scopes.save_scope("organization", "u-1", {"other": True})
    assert await outbox.scopes.load_scope("user", "u-1") == settings
    await outbox.scopes.save_scope("user", "u-1", {})
    assert await outbox.scopes.load_scope("user", "u-1") == {}
    assert await outbox.scopes.load_scope("organization", "u-1") == {"other": True}


async def test_a_users_session_revision_is_a_scope_of_its_own(outbox: Outbox) -> None:
    await outbox.scopes.save_scope("user", "dev u-1", {"a": 1})
    revisions = SessionRevisions(outbox.scopes)
    assert await revisions.current("dev u-1") == ""
    await revisions.end_all("dev u-1")
    ended = await SessionRevisions(outbox.scopes).current("dev u-1")
    assert ended != ""
    assert await outbox.scopes.load_scope("user", "dev u-1") == {"a": 1}
