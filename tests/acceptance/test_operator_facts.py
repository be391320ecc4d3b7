"""The facts on the operators' pages: what each says of a row, an act and a number, to the word."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from service.dev.fake_inngest.server import FakeInngest
from service.observe.printable import printable
from service.outbox.clock import wall_now_ms
from service.outbox.event import Meta
from service.outbox.figures import MINUTE_MS, Sample
from service.outbox.model import Filter, Named, Retry, Row, Settlement
from tests.support.operator_pages import Visitor, bury, deliverable, served, visitor
from tests.support.storage import SqliteStorage, claim, deliver

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def storage(path: Path) -> SqliteStorage:
    return SqliteStorage(path)


@pytest.fixture
async def rows(storage: SqliteStorage, path: Path) -> dict[str, Row]:
    """An event that was dead a day ago, one that is sent, and one that waits; delivery is paused.

    The dead one was accepted in a minute of trouble; another trouble began after its end.
    """
    now_ms = wall_now_ms()
    old_ms = now_ms - 2 * HOUR_MS
    async with storage.open() as outbox:
        dead = msgspec.structs.replace(deliverable("-u", "@sum/a"), accepted_at_ms=old_ms)
        await bury(outbox, dead)
        sent = deliverable("sent")
        await outbox.intake.append(sent)
        await deliver(outbox, await claim(outbox))
        await outbox.repairs.purge_payloads(older_than_seconds=-1)
        meta = Meta("order-1795", "branch-7")
        waiting = msgspec.structs.replace(deliverable("ada"), meta=meta)
        await outbox.intake.append(waiting)
        for _ in range(2):
            batch = await claim(outbox)
            retry = Retry(batch.entries[0].seq, 0.0, 0, isolated=True, note="HTTP 500")
            await outbox.queue.settle(Settlement(batch.claim, retry=[retry]))
        await outbox.repairs.set_paused(paused=True, actor="kim")
        for at_ms, reason in ((old_ms, "at the acceptance"), (now_ms - MINUTE_MS, "after its end")):
            minute = at_ms - at_ms % MINUTE_MS
            await outbox.samples.add(Sample(minute, 7, 3, 1.5, 2.5, "backing_off", reason))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE outbox_done SET first_sent_at_ms = ?, settled_at_ms = ? WHERE dead = 1",
            (now_ms - 2 * DAY_MS, now_ms - HOUR_MS),
        )
    async with storage.open() as outbox:
        found = await outbox.inspector.rows(Filter(limit=9))
    return {str(row.state): row for row in found}


@pytest.fixture
async def operator(
    storage: SqliteStorage, rows: dict[str, Row], inngest_api: FakeInngest
) -> AsyncIterator[Visitor]:
    del rows
    async with served(storage, inngest_api) as service, visitor(service.url) as one:
        yield one


def facts(page: str) -> dict[str, str]:
    """The terms of the event's facts with their words."""
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page[page.index('<dl class="facts">') :])
    words = [[" ".join(re.sub("<.*?>", " ", one).split()) for one in pair] for pair in pairs]
    return {term.replace("\u2019", "'"): said for term, said in words}


async def test_an_event_has_each_fact_under_its_own_name(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    dead, waiting = rows["dead"], rows["pending"]
    page = await operator.see(f"/outbox/events/{dead.id}")
    assert facts(page) == {
        "Event name": "@sum/a",
        "User": "-u",
        "Owner": "dev -u",
        "Inngest's id": f"{dead.inngest_id} Opens the event and its runs in Inngest.",
        "Attempts": "3 answers that judged this event alone",
        "Sends": "1",
        "Reason": f"rejected {html.escape(printable(dead.detail or ''))}",
        "Payload": f"{dead.payload_bytes} bytes",
    }
    assert 'href="/outbox/events?state=dead">Events: dead</a>' in page
    assert re.search(r'<p class="lead">[A-Z]', page)
    shown = await operator.send(f"/outbox/events/{dead.id}/payload")
    assert ("a secret document" in shown, "The data is encrypted." in shown) == (True, False)
    waits = facts(await operator.see(f"/outbox/events/{waiting.id}"))
    assert waits["Sender's id"] == "order-1795 the id that Inngest sees"
    assert (waits["Environment"], waits["Attempts"][0]) == ("branch-7", "0")
    assert waits["Sends"] == "2 sent alone, because it may be the cause of trouble"
    gone = await operator.see(f"/outbox/events/{rows['delivered'].id}")
    assert facts(gone)["Payload"] == "removed"
    assert "Replay…" not in gone


async def test_a_list_says_how_often_a_row_was_sent_and_that_its_payload_is_gone(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    page = await operator.see("/outbox/events")
    assert '<span class="detail">HTTP 500, 2 sends</span>' in page
    assert page.count('<span class="detail">payload removed</span>') == 1
    assert '<span class="count">3</span>' in page
    assert 'href="/outbox/events?state=dead"' in page
    assert f'<option value="{rows["dead"].reason}">' in page
    waiting = rows["pending"]
    accepted = re.findall(r'<time class="ago" datetime="([^"]+):\d\dZ"', page)[0]
    for query, count in ((f"until={accepted}", 3), (f"id=+{waiting.id}+", 1)):
        listed = await operator.see(f"/outbox/events?{query}")
        assert listed.count('aria-label="Select event ') == count


async def test_a_table_runs_no_formula_and_has_both_times(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    async with operator._session.get(f"{operator._url}/outbox/export?state=dead") as answer:
        assert (answer.content_type, answer.charset) == ("text/csv", "utf-8")
        disposition = answer.headers["Content-Disposition"]
        [cells] = csv.DictReader(io.StringIO(await answer.text()))
    assert disposition == 'attachment; filename="events-dead.csv"'
    assert (cells["user"], cells["name"]) == ("'-u", "'@sum/a")
    dead = rows["dead"]
    told = [cells[one] for one in ("state", "attempts", "reason", "detail")]
    assert told == ["dead", str(dead.attempts), dead.reason, dead.detail]
    async with operator._session.get(f"{operator._url}/outbox/export?as=json") as answer:
        assert (answer.content_type, answer.charset) == ("application/json", "utf-8")
        disposition = answer.headers["Content-Disposition"]
    assert disposition == 'attachment; filename="events-all.json"'
    page = await operator.see(f"/outbox/events/{rows['dead'].id}")
    assert cells["accepted"] < cells["settled"]
    assert all(f'datetime="{cells[one]}"' in page for one in ("accepted", "settled"))


async def test_an_event_is_told_what_troubled_delivery_in_its_time(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    page = await operator.see(f"/outbox/events/{rows['dead'].id}")
    assert "at the acceptance" in page
    assert "after its end" not in page
    assert "Delivery was paused" not in page
    assert "<code>outbox " not in page


async def test_an_event_that_waits_has_its_senders_words_and_no_command(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    listed = await operator.see("/outbox/events?state=pending")
    assert ("Discard selected" in listed, "Replay selected" in listed) == (True, False)
    assert ("all that match…" in listed, 'name="reason"' in listed) == (True, False)
    assert ('<span class="pill state-' in listed, ">Clear</a>" in listed) == (False, False)
    listed = await operator.see("/outbox/events")
    assert ("all that match…" in listed, 'name="reason"' in listed) == (False, True)
    assert '<span class="pill state-pending">pending</span>' in listed
    listed = await operator.see("/outbox/events?user=nobody")
    assert '<a class="button" href="/outbox/events?state=">Clear</a>' in listed
    page = await operator.see(f"/outbox/events/{rows['pending'].id}")
    assert "order-1795" in page
    assert "<dd>branch-7</dd>" in page
    assert "Delivery was paused" in page
    assert "it is sent after somebody resumes delivery" in page


async def test_a_dry_run_warns_of_what_may_run_twice_and_of_what_is_lost(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    dead, pending = ("event", rows["dead"].id), ("event", rows["pending"].id)
    late = "1 event may first have been sent more than 24 h ago"
    asked = await operator.send("/outbox/replay", dead)
    assert late in asked
    assert "go out under their old ids, with no attempts counted" in asked
    assert 'name="perMinute"' not in asked  # of one event
    assert '<a class="button" href="/outbox/events?">Leave them' in asked
    asked = await operator.send("/outbox/discard", dead, pending)
    assert late not in asked
    assert "2 events never reached Inngest" in asked
    assert "The events are removed for good. Nothing has been changed yet." in asked
    assert '<button class="danger">Discard 2 events</button>' in asked
    too_fast = (("confirmed", "yes"), ("perMinute", "30001"))
    await operator.send("/outbox/replay", dead, *too_fast, expected=400)
    at_a_rate = (("confirmed", "yes"), ("perMinute", "1"))
    assert "Discarded 2 events." in await operator.send(
        "/outbox/discard", dead, pending, *at_a_rate
    )


async def test_the_overview_has_what_waits_now_and_the_newest_minutes_first(
    operator: Visitor,
) -> None:
    page = await operator.see("/outbox")
    assert "Waiting over the last hour: 1 now, 7 at most." in page
    assert 'action="/outbox/resume"' in page
    assert 'class="card now delivery-paused"' in page
    assert '<a href="/outbox?span=hour#charts-heading" aria-current="true">Hour</a>' in page
    assert '<a href="/outbox?span=day#charts-heading">Day</a>' in page
    assert '<a href="/outbox/events?state=dead">Dead</a></dt><dd data-figure="dead">1<' in page
    assert '<a href="/outbox/events?state=dead">All 1 dead events</a></p>' in page
    page = await operator.see("/outbox?span=day")
    assert page.count("<td>7</td><td>1.5</td><td>2.5</td><td>3</td>") == 2
    minutes = re.findall(r'<th scope="row"><time datetime="([^"]+)"', page)
    assert minutes == sorted(minutes, reverse=True)
    assert len(minutes) == 2


async def test_live_figures_tell_dead_events_that_were_removed(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    gone = (("event", rows["dead"].id), ("confirmed", "yes"))
    async with operator._session.get(f"{operator._url}/outbox/live") as stream:
        told = stream.content
        await told.readuntil(b"event: dead\n")
        await operator.send("/outbox/discard", *gone)
        assert "card alarming" not in await operator.see("/outbox")
        assert b"@sum/a" in await told.readuntil(b"event: dead\n")
        assert b"Nothing was refused for good" in await told.readuntil(b"\n\n")


async def test_the_audit_is_cut_at_its_limit_and_offers_the_rest(
    storage: SqliteStorage, inngest_api: FakeInngest
) -> None:
    async with storage.open() as outbox:
        many = await bury(outbox, *(deliverable("ada", f"n/{n % 12}") for n in range(213)))
        await outbox.repairs.discard(Named(tuple(many[12:])), actor="ada")
        for _ in range(2):
            await outbox.repairs.set_paused(paused=True, actor="kim", reason="x" * 10)
        sealed = b'{"data":{"__ENCRYPTED__":true}}'
        unsent = msgspec.structs.replace(deliverable("ada"), payload=sealed)
        await outbox.intake.append(unsent)
    async with served(storage, inngest_api) as service, visitor(service.url) as operator:
        page = await operator.see("/outbox/audit?limit=1")
        assert page.count(">pause<") == 1
        assert 'limit=2">Show more' in page
        whole = await operator.see("/outbox/audit?limit=3")
        assert (whole.count('<th scope="row">'), "Show more" in whole) == (3, False)
        one = await operator.see(f"/outbox/audit?event=+{many[50]}")
        assert "201 events" in one
        assert (one.count('href="/outbox/events/'), "and 1 more:" in one) == (200, True)
        shown = await operator.send(f"/outbox/events/{unsent.id}/payload")
        assert "The data is encrypted." in shown
        new = await operator.see(f"/outbox/events/{unsent.id}")
        assert re.search(r"s id</dt><dd><code data-copy>[0-9A-Z]{26}<", new)
        assert "with 2 more groups" in await operator.see("/outbox")
        reason = ("reason", "  " + "y" * 300)
        page = await operator.send("/outbox/pause", ("confirmed", "yes"), reason)
        assert "y" * 200 in page
        assert "y" * 201 not in page
