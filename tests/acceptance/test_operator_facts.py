"""The operators' pages, whole, as in the folder `pages`; and the facts that they tell of rows.

`APPROVE=1 pytest tests/acceptance/test_operator_facts.py -k each_page` approves the pages as they
are: read what that changes.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest

from inngest_outbox.console.pages import desk, lists, overview
from inngest_outbox.dev.fake_inngest.faults import Hang
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.observe.printable import escaped_json
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.figures import MINUTE_MS, Sample
from inngest_outbox.outbox.model import Filter, Named, Retry, Row, Settlement
from inngest_outbox.runs.figures import NAMES, KeptNames, NameView
from inngest_outbox.runs.turn import SCOPE
from tests.support.operator_pages import (
    Visitor,
    bury,
    deliverable,
    served,
    settings,
    visitor,
)
from tests.support.service_here import service_here
from tests.support.storage import SqliteStorage, claim, deliver, eventually

NAME = '@sum/a"<b>\u202e'
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
        dead = msgspec.structs.replace(deliverable("-u", NAME), accepted_at_ms=old_ms)
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


def unasked(storage: SqliteStorage, api: FakeInngest) -> dict[str, str]:
    """Settings without a signing key: Inngest can't be asked for runs, so no name is written."""
    own = {"INNGEST_DEV": "", "INNGEST_BASE_URL": api.url, "INNGEST_EVENT_KEY": "a-key"}
    return settings(storage, api) | own


@pytest.fixture
async def operator(
    storage: SqliteStorage, rows: dict[str, Row], inngest_api: FakeInngest
) -> AsyncIterator[Visitor]:
    del rows
    environment = unasked(storage, inngest_api)
    async with service_here(environment) as service, visitor(service.url) as one:
        yield one


_MOVING = (
    (r"(?s)<(style|script)>.*?</", r"<\1>…</"),
    (r"http://[0-9.:]+", "INNGEST"),
    (r"\b1[0-9]{12}\b", "MS"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"\b[0-9A-HJKMNP-TV-Z]{26}\b", "ULID"),
    (r"[\d-]{10} [\d:]{8} UTC", "TIME"),
    (r"(?<=TIME, )[\d.]+ s", "SOON"),
    (r"(?<=, for 1)\.\d(?= min)", ""),
    (r' <span class="after">\+[\d.]+ s</span>', ""),
    (r'(?<="oldest">)[\d.]+ \w+', "AGE"),
    (r'points="[\d., ]+"', 'points="…"'),
    (r'(<rect class="[\w -]+" x=)"[\d.]+" width="[\d.]+"', r'\1"…" width="…"'),
    (r'(<line class="grid" x1="[\d.]+%" x2.*\n)+', "the ticks of time\n"),
    (r"(?s)(>Until</th>.*?<tbody>\n).*?(?=</tbody>)", r"\1"),
    (r'value="\d+" (.*events")', r'value="…" \1'),
    (r"<strong>\d+ done</strong>, about [\d.]+ \w+ left", "… done"),
)


class Shown:
    """The HTML of pages, the same in each run: rows have their states as ids, times are in hours.

    What is drawn or moves with the clock is left out.
    """

    def __init__(self, operator: Visitor, rows: Mapping[str, Row]) -> None:
        self._operator = operator
        self._names = {row.id: state.upper() for state, row in rows.items()}
        self._seen: list[str] = []

    async def see(self, start: str, path: str, end: str = "</main>") -> None:
        self._add(f"GET {path}", await self._operator.see(path), start, end)

    async def send(
        self, start: str, path: str, *fields: tuple[str, str], end: str = "</main>"
    ) -> None:
        page = await self._operator.send(path, *fields)
        self._add(f"POST {path}?{urlencode(fields)}", page, start, end)

    def _add(self, of: str, page: str, start: str, end: str) -> None:
        """Add a page from `start` on, with its title and its place in the navigation."""
        head, rest = page[: page.index("<main")], page[page.index(start) :]
        place = re.findall(r'<title>.*</title>|<a href="[\w/]*" aria-current.*</a>', head)
        text = "\n".join([f"<!-- {of} -->", *place, rest[: rest.index(end)]])
        text = re.sub(r' datetime="(.{10})T(.{8})Z">\1 \2 UTC</time>', _ago, text)
        for event_id, name in self._names.items():
            text = text.replace(event_id, name)
        for pattern, instead in _MOVING:
            text = re.sub(pattern, instead, text)
        self._seen += [*filter(None, escaped_json(text).split("\n")), ""]

    def compare(self, name: str) -> None:
        """Compare with the approved pages."""
        file = Path(__file__).parent / "pages" / f"{name}.html"
        if os.environ.get("APPROVE"):
            file.write_text("\n".join(self._seen), encoding="utf-8")
        approved = file.read_text(encoding="utf-8").split("\n")
        changes = difflib.unified_diff(approved, self._seen, file.name, "seen", lineterm="", n=2)
        assert not (told := "\n".join(changes)), told


def _ago(found: re.Match[str]) -> str:
    at_ms = datetime.fromisoformat(f"{found[1]}T{found[2]}Z").timestamp() * 1000
    return f">{(wall_now_ms() - at_ms) / HOUR_MS:.0f} h ago</time>"


WELL = NameView(
    name="a/well",
    expected=True,
    sampled=3,
    with_run=2,
    held_median_seconds=0.04,
    held_p95_seconds=0.21,
    start_median_seconds=1.5,
    start_p95_seconds=3.0,
    outcomes={"completed": 2, "failed": 1, "cancelled": 1},
    per_second=31.5,
    dead=1200,
)
WITH_KEY = (
    "Only a function with the key reads it; <code>OUTBOX_SHOW_DECRYPTED</code> lets operators look."
)
MAIN, LIST, FILTER = "<main", '<div class="list">', '<form class="filters'
CHARTS = '<section aria-labelledby="charts'


async def test_each_page_says_this(operator: Visitor, rows: dict[str, Row]) -> None:
    path = {state: f"/outbox/events/{row.id}" for state, row in rows.items()}
    dead, pending = (("event", rows[one].id) for one in ("dead", "pending"))
    same = {"state": "dead", "name": f'"{rows["dead"].name}"', "since": "2026-01-01T00:00"}
    shown = Shown(operator, rows)
    await shown.see("<!doctype", "/outbox", "</html>")
    await shown.see(LIST, "/outbox/events")
    await shown.see(LIST, "/outbox/events?state=dead", FILTER)
    await shown.see(MAIN, f"/outbox/events?{urlencode(same)}")
    await shown.see(MAIN, "/outbox/events?state=delivering&user=%22%3C%E2%80%AE&before=1")
    for state in ("dead", "pending"):
        await shown.see(MAIN, path[state])
    await shown.send(MAIN, "/outbox/replay", *same.items(), ("all", "yes"), end="<h2>")
    await shown.send(MAIN, "/outbox/discard", dead, pending)
    await shown.send(MAIN, "/outbox/pause")
    await shown.send(MAIN, "/outbox/resume")
    await shown.send('<h2 id="payload-heading', f"{path['dead']}/payload")
    await shown.see(MAIN, f"/outbox/audit?limit=1&event={rows['dead'].id}")
    await shown.see(MAIN, "/outbox/audit?event=%22%3C%E2%80%AE")
    await shown.see(MAIN, "/outbox/audit")
    shown.compare("paused")


async def test_each_page_says_this_of_nothing_and_of_much(
    storage: SqliteStorage, inngest_api: FakeInngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = unasked(storage, inngest_api)
    async with service_here(environment) as service, visitor(service.url) as operator:
        shown = Shown(operator, {})
        await shown.see(MAIN, "/outbox", CHARTS)
        await shown.see(LIST, "/outbox/events")
        await shown.see(MAIN, "/outbox/audit")
        await shown.see(MAIN, "/outbox/names")
        shown.compare("empty")
    names = ("a/well", "a/well", "a/well", "b/large", "b/large")
    since = {"expected": True, "ran": 1, "no_run_since": wall_now_ms() - 3 * HOUR_MS}
    at_once = {"sampled": 20, "held_median_seconds": 0.0, "held_p95_seconds": 0.0}
    lost = [NameView(name=NAME, dead=1, **since), NameView(name="c/lost", **since, **at_once)]
    kept = KeptNames(wall_now_ms(), (NameView(name="b/other", expected=True), WELL, *lost))
    async with storage.open() as outbox:
        await bury(outbox, *(deliverable(f"u-{n}", name) for n, name in enumerate(names)))
        await outbox.scopes.save_scope(SCOPE, NAMES, msgspec.to_builtins(kept))
    for module in (desk, lists):
        monkeypatch.setattr(module, "GROUPED_ROWS", 4)
    monkeypatch.setattr(overview, "_GROUPS_SHOWN", 1)
    monkeypatch.setattr(lists, "PAGE_ROWS", 2)
    alike = (("state", "dead"), ("name", '"a/well"'), ("all", "yes"))
    async with service_here(environment) as service, visitor(service.url) as operator:
        shown = Shown(operator, {})
        await shown.see(MAIN, "/outbox")
        await shown.see(CHARTS, "/outbox?span=day", '<div id="charts">')
        await shown.see(LIST, "/outbox/events?state=dead", FILTER)
        assert '<option value="c/lost">' in await operator.see("/outbox/events?state=sent")
        await operator.send("/outbox/pause", ("confirmed", "yes"), ("reason", "moving"))
        await shown.see(MAIN, "/outbox/names")
        yes, large = ("confirmed", "yes"), ("name", "B/LARGE")
        await shown.send(MAIN, "/outbox/discard", large, ("all", "yes"), yes, end='<p class="to-')
        await shown.send(MAIN, "/outbox/replay", *alike, yes, ("perMinute", "1"), end="<h1>")
        again = (*alike, yes, ("perMinute", "2"))
        assert "under way: stop it first" in await operator.send(
            "/outbox/replay", *again, expected=400
        )
        await shown.send(MAIN, "/outbox/replay/stop", end="<h1>")
        shown.compare("full")


async def test_a_table_runs_no_formula_and_has_both_times(
    operator: Visitor, rows: dict[str, Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with operator._session.get(f"{operator._url}/outbox/export?state=dead") as answer:
        assert (answer.content_type, answer.charset) == ("text/csv", "utf-8")
        disposition = answer.headers["Content-Disposition"]
        [cells] = csv.DictReader(io.StringIO(await answer.text()))
    assert disposition == 'attachment; filename="events-dead.csv"'
    assert (cells["user"], cells["name"]) == ("'-u", f"'{NAME}")
    dead = rows["dead"]
    told = [cells[one] for one in ("state", "attempts", "reason", "detail")]
    assert told == ["dead", str(dead.attempts), dead.reason, dead.detail]
    table = list(csv.DictReader(io.StringIO(await operator.see("/outbox/export"))))
    settled = {row["state"]: row["settled"] for row in table}
    assert (settled["pending"], settled["dead"]) == ("", cells["settled"])
    async with operator._session.get(f"{operator._url}/outbox/export?as=json") as answer:
        assert (answer.content_type, answer.charset) == ("application/json", "utf-8")
        disposition = answer.headers["Content-Disposition"]
    assert disposition == 'attachment; filename="events-all.json"'
    monkeypatch.setattr(lists, "MAX_ROWS", 2)
    for query in ("as=json", "as=json&id=0"):
        async with operator._session.get(f"{operator._url}/outbox/export?{query}") as answer:
            assert [row["id"] for row in await answer.json()] == [row["id"] for row in table[:2]]
            disposition = answer.headers["Content-Disposition"]
        assert disposition == 'attachment; filename="events-all-part.json"'
    page = await operator.see(f"/outbox/events/{rows['dead'].id}")
    removed = await operator.send(f"/outbox/events/{rows['delivered'].id}/payload")
    assert ("The payload was removed." in removed, "<pre" in removed) == (True, False)
    assert cells["accepted"] < cells["settled"]
    assert all(f'datetime="{cells[one]}"' in page for one in ("accepted", "settled"))


async def test_a_discard_and_one_event_have_no_rate(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    dead, pending = ("event", rows["dead"].id), ("event", rows["pending"].id)
    too_fast = (("confirmed", "yes"), ("perMinute", "30001"))
    told = await operator.send("/outbox/replay", dead, *too_fast, expected=400)
    assert msgspec.json.decode(told)["error"] == "A rate is between 1 and 30,000 a minute."
    at_a_rate = (("confirmed", "yes"), ("perMinute", "30000"))
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
        await operator.send("/outbox/pause", ("confirmed", "yes"))
        for path, story in ((f"/{under_way.id}", True), ("?state=delivering", False)):
            page = await operator.see(f"/outbox/events{path}")
            assert ("Delivery was paused: paused by ops@" in page) is story
            acts = re.findall('<input type="checkbox"|action="/outbox/(?:replay|discard)"', page)
            assert (under_way.id in page, acts) == (True, [])
        inngest_api.faults.clear()
    assert "1 event can\u2019t be discarded now: being sent.</p>" in asked


async def test_the_overview_has_what_waits_now_and_the_newest_minutes_first(
    operator: Visitor,
) -> None:
    page = await operator.see("/outbox?span=week")
    assert "Waiting over the last hour: 1 now, 7 at most." in page
    ticks = re.findall(
        r'<line class="grid" x1="(\S+)%" x2="\1%" y1="10%" y2="90%"/><text x="\1%" y="100%" '
        r'dy="-3" text-anchor="(?:start|middle|end)" data-at="\d+">\d\d:\d\d</text>',
        page,
    )
    assert len(ticks) == page.count("data-at=") >= 8
    assert float(ticks[0]) < 25 <= float(ticks[1])
    [(x, width)] = re.findall(r'<rect class="band delivery-paused" x="(\S+)" width="(\S+)"', page)
    assert (float(x) > 900, float(width) < 100) == (True, True)
    assert re.search(r'<polygon class="waiting" points="([\d.]+),100 \1,.*[\d.]+,100"', page)
    page = await operator.see("/outbox?span=day")
    drawn = re.findall(r'<polyline class="\w+" points="[^"]+"', page)
    assert len(set(drawn)) == len(drawn) >= 6  # no line crosses the time that nobody looked
    assert "<td>7</td><td>1.5</td><td>2.5</td><td>3</td>" in page
    minutes = re.findall(r'<th scope="row"><time datetime="([^"]+)"', page)
    assert minutes == sorted(minutes, reverse=True)
    assert len(minutes) >= 2  # the service adds one when a minute ends


async def test_live_figures_tell_dead_events_that_were_removed(
    operator: Visitor, rows: dict[str, Row]
) -> None:
    gone = (("event", rows["dead"].id), ("confirmed", "yes"))
    await operator.send("/outbox/pause", ("confirmed", "yes"), ("reason", "a\u202eb\nc"))
    async with operator._session.get(f"{operator._url}/outbox/live") as stream:
        told = stream.content
        first = (await told.readuntil(b"event: dead\n")).decode()
        words = "Delivery is paused (paused by ops@example.com: a\ufffdb c). Nothing"
        assert f"event: state\ndata: paused\n\nevent: delivery\ndata: {words}" in first
        assert 'event: charts\ndata: <figure class="chart">\n' in first
        await operator.send("/outbox/discard", *gone)
        assert "card alarming" not in await operator.see("/outbox")
        assert b"@sum/" in await told.readuntil(b"event: dead\n")
        assert b"Nothing was refused for good" in await told.readuntil(b"\n\n")


async def test_an_act_names_its_events_and_groups_are_cut_where_they_are_many(
    storage: SqliteStorage, inngest_api: FakeInngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with storage.open() as outbox:
        events = (deliverable(f"{FORMULAS[n % 6]}ada", f"n/{n % 12}") for n in range(24))
        many = await bury(outbox, *events, reason="=sum")
        await outbox.repairs.discard(Named(tuple(many[12:])), actor="ada")
        sealed = b'{"data":{"__ENCRYPTED__":true}}'
        unsent = msgspec.structs.replace(deliverable("ada"), payload=sealed, meta=Meta(""))
        await outbox.intake.append(unsent)
    async with served(storage, inngest_api) as service, visitor(service.url) as operator:
        one = await operator.see(f"/outbox/audit?event={many[20]}")
        assert ("12 events" in one, one.count('href="/outbox/events/')) == (True, 12)
        shown = await operator.send(f"/outbox/events/{unsent.id}/payload")
        assert f"The data is encrypted. {WITH_KEY}</p>" in shown
        for path, shown, more in (
            ("/outbox", 10, "and 2 more groups.</p>"),
            ("/outbox/events?state=dead", 12, ""),
            ("/outbox/events?state=dead", 11, "and 1 more group.</p>"),
        ):
            page = await operator.see(path)
            assert page.count('<tr><th scope="row" class="who">') == shown
            assert (more in page, "more group" in page) == (True, bool(more))
            assert "Of the newest" not in page
            monkeypatch.setattr(lists, "_GROUPS_SHOWN", 11 + (path == "/outbox"))
        table = io.StringIO(await operator.see("/outbox/export?state=dead"))
        cells = {(row["user"], row["reason"]) for row in csv.DictReader(table)}
        assert cells == {(f"'{one}ada", "'=sum") for one in FORMULAS}
        said = (("confirmed", "yes"), ("reason", "  " + "y" * 300))
        page = await operator.send("/outbox/pause", *said)
        assert re.findall("y{200,}", page) == ["y" * 200]
