"""The facts on the operators' pages: what each says of a row, an act and a number, to the word."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import sqlite3
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from service.console.pages import lists
from service.dev.fake_inngest.faults import Hang
from service.dev.fake_inngest.server import FakeInngest
from service.outbox.clock import wall_now_ms
from service.outbox.event import Meta
from service.outbox.figures import MINUTE_MS, Sample
from service.outbox.model import Filter, Named, Retry, Row, Settlement
from tests.support.operator_pages import Visitor, bury, deliverable, read, served, visitor
from tests.support.storage import SqliteStorage, claim, deliver, eventually

FORMULAS = "=+-@\t\r"  # what a cell of a spreadsheet that runs begins with
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
        sent = deliverable("")
        sent = msgspec.structs.replace(sent, meta=Meta(sent.id))
        await outbox.intake.append(sent)
        await deliver(outbox, await claim(outbox))
        await outbox.repairs.purge_payloads(older_than_seconds=-1)
        meta = Meta("order-1795", "branch-7")
        waiting = msgspec.structs.replace(deliverable("ada"), meta=meta)
        await outbox.intake.append(waiting)
        for note in ("HTTP 429", "HTTP 500"):
            batch = await claim(outbox)
            retry = Retry(batch.entries[0].seq, 0.0, 0, isolated=True, note=note)
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


def told(page: str, rows: dict[str, Row], start: str = "<main") -> list[str]:
    """The lines of a page at 96 columns, the same in each run: rows are named by their states."""
    text = (
        "\n".join(read(page, start))
        .replace("</outbox", "<")
        .replace("</", "<")
        .replace("\u2019", "'")
    )
    for state, row in rows.items():
        text = text.replace(row.id, state.upper()).replace(row.inngest_id or "-", "ULID")
    text = re.sub(r"(?s)(as a table\n).*(Dead events\n)", r"\1\2", text)
    text = re.sub(r"(?m)http://[0-9.:]+|(?<=seen=)\d+|[\d.]+ s$|(?<=, at )[\d :-]+UTC", "N", text)
    wrapped = {"width": 96, "break_long_words": False, "break_on_hyphens": False}
    lines = (textwrap.wrap(line, **wrapped) for line in text.splitlines())  # type: ignore[arg-type]
    return [part for line in lines for part in line]


PAGES = """
Overview - Outbox
Outbox <>
* Overview <> Names <names> Events <events> Audit <audit>
Delivery paused
<>
ops@example.com Sign out <auth/logout?returnTo=/outbox>
Overview
Delivery
Delivery is paused (paused by kim). Nothing is sent until somebody resumes delivery. Posts are
still accepted.
As of 0 h ago; reload for newer figures.
Resume delivery… <resume>
Pending <events?state=pending> | 1
Delivering <events?state=delivering> | 0
Delivered <events?state=delivered> | 1
Dead <events?state=dead> | 1
Oldest pending | N
Accepted per second | 0.0
Delivered per second | 0.0
Drained in | not while paused
Next send | after the resume
Database | 0.1 MiB
The last hour
* Hour <?span=hour#charts-heading> Day <?span=day#charts-heading>
Backlog events that wait delivery in trouble
Events per second delivered accepted
The last hour as a table
Dead events
There are other dead events by now: reload <>.
| Event name | Reason | Events | Latest | Actions
| @sum/a <events?state=dead&name=%22%40sum/a%22&reason=%22rejected%22> | rejected no
<script>alert(1)<script>�reversed | 1 | 1 h ago |
state=dead name="@sum/a" reason="rejected" all=yes Replay… <replay> Discard… <discard>
All dead events <events?state=dead> (1)
Pending events - Outbox
Events
All 3 <events?user=ada&since=2026-01-01> * Pending 1
<events?state=pending&user=ada&since=2026-01-01> Delivering 0
<events?state=delivering&user=ada&since=2026-01-01> Sent 0
<events?state=sent&user=ada&since=2026-01-01> Delivered 1
<events?state=delivered&user=ada&since=2026-01-01> Dead 1
<events?state=dead&user=ada&since=2026-01-01>
Filter these events <#filter>
state=pending user=ada since=2026-01-01
Discard selected… <discard> Discard all that match… <discard>
| | Event | User | Accepted | Reason
| | documents/aws.index PENDING <events/PENDING> | ada | 0 h ago | HTTP 500, 2 sends
Export all that match: CSV <export?state=pending&user=ada&since=2026-01-01&as=csv> JSON
<export?state=pending&user=ada&since=2026-01-01&as=json>
Filter
state=pending
Id or its beginning id:
Event name name:
User user: ada
Text in the payload payload:
Upper and lower case count in payloads, and the audit notes the search.
Accepted from (UTC) since: 2026-01-01
Accepted until (UTC) until:
A part of the text is enough; "in quotes" is the whole text.
Search <events> Clear <events?state=pending>
Event DEAD - Outbox
Events: dead <events?state=dead>
Event DEAD dead
Dead: Inngest refused it (no <script>alert(1)<script>�reversed) after 3 attempts, at N; it stays
until a replay sends it again under the same id or somebody removes it; it may first have been
sent 2 d ago and Inngest forgets an id after 24 h, so another send may run its functions a
second time.
event=DEAD Replay… <replay>
event=DEAD Discard… <discard>
Facts
Event name | @sum/a
User | -u
Owner | dev -u
Inngest's id | ULID <N/event?eventID=ULID> Opens the event and its runs in Inngest.
Attempts | 3 answers that judged this event alone
Sends | 1
Reason | rejected no <script>alert(1)<script>�reversed
Payload | 176 bytes
Timeline
Accepted, and synced to disk 2 h ago
Sent to Inngest for the first time 48 h ago
Delivery was backing off: at the acceptance, for 1 min 2 h ago
Dead: rejected 1 h ago +1 h
Payload
The payload is personal data. The audit names whoever looks at it.
Show the payload <events/DEAD/payload>
Replay 1 event? - Outbox
Replay 1 event?
Dead events become pending again and go out under their old ids, with no attempts counted.
Nothing has been changed yet.
1 event may first have been sent more than 24 h ago, and Inngest forgets an id after 24 h: what
it took then runs a second time.
2 events can't be replayed, as only dead events can.
event=DEAD event=PENDING event=DELIVERED seen=N confirmed=yes
Replay 1 event <replay> Leave them as they are <events?>
Which events
| Event | User | Accepted | Reason
| @sum/a DEAD <events/DEAD> | -u | 2 h ago | rejected no <script>alert(1)<script>�reversed
Discard 2 events? - Outbox
Discard 2 events?
The events are removed for good. Nothing has been changed yet.
2 events may not have reached Inngest, and never will after this.
event=DEAD event=PENDING seen=N confirmed=yes
Discard 2 events <discard> Leave them as they are <events?>
Which events
| Event | User | Accepted | State | Reason
| documents/aws.index PENDING <events/PENDING> | ada | 0 h ago | pending | HTTP 500, 2 sends
| @sum/a DEAD <events/DEAD> | -u | 2 h ago | dead | rejected no
<script>alert(1)<script>�reversed
Resume delivery? - Outbox
Resume delivery?
What waits is sent, oldest first, with a share for new events.
confirmed=yes
Reason (optional, for the audit and your colleagues) reason:
Resume delivery <resume> Leave it as it is <>
Audit - Outbox
Audit
Event id or its beginning event:
Search <audit>
| Act | By | When | What
| pause | kim | 0 h ago |
"""


async def test_each_page_says_this(operator: Visitor, rows: dict[str, Row]) -> None:
    dead, both = rows["dead"].id, [("event", rows[one].id) for one in ("dead", "pending")]
    pages = [
        await operator.see("/outbox"),
        await operator.see("/outbox/events?state=pending&user=ada&since=2026-01-01"),
        await operator.see(f"/outbox/events/{dead}"),
        await operator.send("/outbox/replay", *both, ("event", rows["delivered"].id)),
        await operator.send("/outbox/discard", *both),
        await operator.send("/outbox/resume"),
        await operator.see("/outbox/audit"),
    ]
    lines = [line for page in pages[1:] for line in told(page, rows)]
    assert [*told(pages[0], rows, "<header"), *lines] == PAGES.strip().splitlines()


async def test_an_event_has_its_payload_and_its_senders_words_and_what_troubled_delivery(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    page = await operator.see(f"/outbox/events/{rows['dead'].id}")
    kinds = re.findall(r'<li class="(\w+)"><span class="what">', page)
    assert kinds == ["accepted", "claimed", "trouble", "dead"]
    assert ".timeline .trouble {" in page  # the style of these pages, not of the small ones
    assert "at the acceptance" in page
    assert "after its end" not in page
    assert "Delivery was paused" not in page
    assert "<code>outbox " not in page
    shown = await operator.send(f"/outbox/events/{rows['dead'].id}/payload")
    assert ("a secret document" in shown, "The data is encrypted." in shown) == (True, False)
    page = await operator.see(f"/outbox/events/{rows['pending'].id}")
    assert "Delivery was paused" in page
    assert {
        "Sender\u2019s id | order-1795 the id that Inngest sees",
        "Environment | branch-7",
        "Attempts | 0 answers that judged this event alone",
        "Sends | 2 sent alone, because it may be the cause of trouble",
        "Pending: delivery is paused by kim; it is sent after somebody resumes delivery.",
    } < set(read(page))
    gone = read(await operator.see(f"/outbox/events/{rows['delivered'].id}"))
    assert {"Payload | removed", "User | none", "The payload was removed."} < set(gone)
    left_out = ("Replay…", "Show the payload", "the id that Inngest sees")
    assert [one for one in left_out if one in "".join(gone)] == []
    assert "There are no such events." in read(await operator.see("/outbox/events?state=sent"))


async def test_a_list_says_how_often_a_row_was_sent_and_that_its_payload_is_gone(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    page = await operator.see("/outbox/events")
    assert "<title>All events - Outbox<" in page
    assert ("all that match…" in page, 'name="reason"' in page) == (False, True)
    assert '<span class="pill state-pending">pending</span>' in page
    assert '<span class="detail">HTTP 500, 2 sends</span>' in page
    assert page.count('<span class="detail">payload removed</span>') == 1
    assert '<span class="count">3</span>' in page
    assert page.count('data-label="User">none</td>') == 1
    assert 'href="/outbox/events?state=dead"' in page
    assert f'<option value="{rows["dead"].reason}">' in page
    waiting = rows["pending"]
    accepted = re.findall(r'<time class="ago" datetime="([^"]+):\d\dZ"', page)[0]
    for query, count in ((f"until={accepted}", 3), (f"id=+{waiting.id}+", 1)):
        listed = await operator.see(f"/outbox/events?{query}")
        assert listed.count('aria-label="Select event ') == count
    assert "Replayed 0 events.</p>" in await operator.see("/outbox/events?done=replay&count=0")
    listed = await operator.see("/outbox/events?user=nobody")
    assert '<a class="button" href="/outbox/events?state=">Clear</a>' in listed


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


async def test_a_discard_and_one_event_have_no_rate(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    dead, pending = ("event", rows["dead"].id), ("event", rows["pending"].id)
    assert 'name="perMinute"' not in await operator.send("/outbox/replay", dead)
    asked = await operator.send("/outbox/discard", dead, pending)
    assert '<button class="danger">Discard 2 events</button>' in asked
    assert 'name="perMinute"' not in asked
    too_fast = (("confirmed", "yes"), ("perMinute", "30001"))
    await operator.send("/outbox/replay", dead, *too_fast, expected=400)
    at_a_rate = (("confirmed", "yes"), ("perMinute", "1"))
    assert "Discarded 2 events." in await operator.send(
        "/outbox/discard", dead, pending, *at_a_rate
    )


async def test_an_event_that_is_being_sent_is_not_discarded(
    storage: SqliteStorage, inngest_api: FakeInngest
) -> None:
    inngest_api.faults.add(Hang(), times=None)
    under_way = deliverable("ada")
    async with storage.open() as outbox:
        await outbox.intake.append(under_way)
    async with served(storage, inngest_api) as service, visitor(service.url) as operator:
        asked = await eventually(
            lambda: operator.send("/outbox/discard", ("event", under_way.id)),
            lambda page: "<h1>Nothing to discard</h1>" in page,
        )
        inngest_api.faults.clear()
    assert "1 event can\u2019t be discarded now: being sent." in read(asked)


DRAWN = [
    *("0", "4", "8", "rect band delivery-backing_off", "rect band delivery-paused"),
    *("polygon waiting", "polyline waiting"),
    *("0", "2", "4", "polyline delivered", "polyline accepted"),
]


async def test_the_overview_has_what_waits_now_and_the_newest_minutes_first(
    operator: Visitor,
) -> None:
    page = await operator.see("/outbox?span=week")
    assert "Waiting over the last hour: 1 now, 7 at most." in page
    assert 'preserveAspectRatio="none" y="10%" width="100%" height="80%">' in page
    assert 'text-anchor="middle" data-at="' in page
    assert 'class="card now delivery-paused"' in page
    assert 'role="status" hidden>There are other dead events by now' in page
    drawn = re.findall(r'<(rect|polygon|polyline) class="([\w -]+)"|dy="-4">([\d.]+)<', page)
    assert [" ".join(filter(None, one)) for one in drawn] == DRAWN
    page = await operator.see("/outbox?span=day")
    assert "<td>7</td><td>1.5</td><td>2.5</td><td>3</td>" in page
    minutes = re.findall(r'<th scope="row"><time datetime="([^"]+)"', page)
    assert minutes == sorted(minutes, reverse=True)
    assert len(minutes) >= 2  # the service adds one when a minute ends


async def test_live_figures_tell_dead_events_that_were_removed(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    gone = (("event", rows["dead"].id), ("confirmed", "yes"))
    async with operator._session.get(f"{operator._url}/outbox/live") as stream:
        told = stream.content
        first = (await told.readuntil(b"event: dead\n")).decode()
        assert "event: state\ndata: paused\n\nevent: delivery\ndata: Delivery is paused (" in first
        assert 'event: charts\ndata: <figure class="chart">\n' in first
        await operator.send("/outbox/discard", *gone)
        assert "card alarming" not in await operator.see("/outbox")
        assert b"@sum/a" in await told.readuntil(b"event: dead\n")
        assert b"Nothing was refused for good" in await told.readuntil(b"\n\n")


async def test_the_audit_is_cut_at_its_limit_and_offers_the_rest(
    storage: SqliteStorage, inngest_api: FakeInngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "GROUPED_ROWS", 5)
    monkeypatch.setattr(lists, "_MOST_ACTS", 51)
    async with storage.open() as outbox:
        users = (f"{FORMULAS[n % 6]}ada" for n in range(213))
        many = await bury(outbox, *(deliverable(u, f"n/{n % 12}") for n, u in enumerate(users)))
        await outbox.repairs.discard(Named(tuple(many[12:])), actor="ada")
        for _ in range(51):
            await outbox.repairs.set_paused(paused=True, actor="kim", reason="x" * 10)
        sealed = b'{"data":{"__ENCRYPTED__":true}}'
        unsent = msgspec.structs.replace(deliverable("ada"), payload=sealed)
        await outbox.intake.append(unsent)
    async with served(storage, inngest_api) as service, visitor(service.url) as operator:
        page = await operator.see("/outbox/audit?limit=1")
        assert page.count(">pause<") == 1
        assert 'limit=2">Show more' in page
        newest = await operator.see("/outbox/audit")
        assert (newest.count(">pause<"), 'limit=51">Show more' in newest) == (50, True)
        whole = await operator.see("/outbox/audit?limit=52")
        assert (whole.count('<th scope="row">'), "Show more" in whole) == (51, False)
        one = await operator.see(f"/outbox/audit?event=+{many[50]}")
        assert "201 events" in one
        assert (one.count('href="/outbox/events/'), "and 1 more:" in one) == (200, True)
        assert "Show more" not in one
        assert f'href="/outbox/events/{many[50]}">{many[50]}</a>' in one
        shown = await operator.send(f"/outbox/events/{unsent.id}/payload")
        assert "The data is encrypted." in shown
        await operator.send(f"/outbox/events/{unsent.id}/payload")
        page = await operator.see(f"/outbox/audit?limit=1&event={unsent.id}")
        assert f'href="/outbox/audit?event={unsent.id}&amp;limit=2">Show more' in page
        new = await operator.see(f"/outbox/events/{unsent.id}")
        assert re.search(r"s id</dt><dd><code data-copy>[0-9A-Z]{26}<", new)
        page = await operator.see("/outbox")
        assert ("with 2 more groups" in page, "Of the newest" in page) == (True, False)
        assert "Of the newest 5." in await operator.see("/outbox/events?state=dead")
        table = io.StringIO(await operator.see("/outbox/export?state=dead"))
        cells = {row["user"] for row in csv.DictReader(table)}
        assert cells == {f"'{one}ada" for one in FORMULAS}
        reason = ("reason", "  " + "y" * 300)
        page = await operator.send("/outbox/pause", ("confirmed", "yes"), reason)
        assert "y" * 200 in page
        assert "y" * 201 not in page
