"""Events on the operators' pages, on both stores: found, read, changed many at once, audited."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from inngest_outbox.console.operations import bulk, search
from inngest_outbox.console.pages import desk, lists
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.model import Named, State
from inngest_outbox.outbox.sqlite.repairs import SqliteRepairs
from tests.support.operator_pages import (
    OPERATOR,
    Visitor,
    bury,
    deliverable,
    served,
    visitor,
)
from tests.support.operator_scenes import remember_a_day
from tests.support.service_here import ServiceHere
from tests.support.storage import PostgresStorage, SqliteStorage, Storage, eventually

GONE = "There is no such event, or it has changed since it was shown."
# What the pages do alike on both stores.
ON_SQLITE = pytest.mark.parametrize("storage", ["sqlite"], indirect=True)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "sqlite":
        return SqliteStorage(tmp_path / "outbox.db")
    return PostgresStorage(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def dead(storage: Storage) -> dict[str, list[str]]:
    """Dead events by their reason: 60 that were rejected, of two users, and 3 too large ones."""
    async with storage.open() as outbox:
        users = ("ada", "grace") * 30
        now_ms = int(time.time() * 1000)
        events = (
            msgspec.structs.replace(deliverable(user), accepted_at_ms=now_ms - (61 - age) * 60_000)
            for age, user in enumerate(users)
        )
        rejected = await bury(outbox, *events)
        large = [deliverable("ada", "scans/uploaded") for _ in range(3)]
        return {"rejected": rejected, "too_large": await bury(outbox, *large, reason="too_large")}


@pytest.fixture
async def service(
    storage: Storage, dead: dict[str, list[str]], inngest_api: FakeInngest
) -> AsyncIterator[ServiceHere]:
    del dead
    async with served(storage, inngest_api) as one:
        yield one


@pytest.fixture
async def operator(service: ServiceHere) -> AsyncIterator[Visitor]:
    async with visitor(service.url) as one:
        yield one


def listed(page: str) -> list[str]:
    return re.findall(r'type="checkbox" name="event" value="([^"]+)"', page)


def fields(page: str) -> list[tuple[str, str]]:
    """The hidden fields of the form that asks."""
    form = page[page.index("<form") :]
    found = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)
    return [(name, html.unescape(value)) for name, value in found]


def groups_of(page: str) -> dict[str, list[tuple[str, str]]]:
    """The names of the groups of dead events, with the hidden fields of each one's form."""
    table = page[page.index('<table class="rows groups">') :]
    rows = table[: table.index("</table>")].split("<tr>")[2:]
    name = re.compile('<a href="[^"]*">([^<]*)</a>')
    return {html.unescape(name.search(row)[1]): fields(row) for row in rows}


def link(page: str, words: str) -> str | None:
    found = re.search(rf'href="([^"]+)"[^>]*>{words}<', page)
    return html.unescape(found.group(1)) if found else None


async def test_lists_are_paged_to_their_end_and_filtered(
    operator: Visitor, dead: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await operator.see("/outbox/events?state=dead")
    older = link(first, "Older")
    assert older is not None
    second = await operator.see(older)
    assert link(second, "Older") is None
    assert listed(first) + listed(second) == [*dead["rejected"], *dead["too_large"]][::-1]
    assert link(second, "Newest") == "/outbox/events?state=dead"
    assert ("By name and reason" in first, "By name and reason" in second) == (True, False)
    assert 'Dead <span class="count">63</span>' in first
    assert '<a href="/outbox/events?">All <span class="count">63</span>' in first
    # Filters are met together, and stay in the form.
    assert "No event matches." in await operator.see(f"/outbox/events?name={'x' * 20_000}")
    [large, *_] = dead["too_large"]
    page = await operator.see(f"/outbox/events?id={large[:-2]}")
    assert (listed(page).count(large), "More ids begin so" in page) == (1, False)
    assert "More ids begin so" in await operator.see("/outbox/events?id=0")
    with monkeypatch.context() as bounded:
        bounded.setattr(search, "MOST_OF_PREFIX", 2)
        page = await operator.see("/outbox/events?id=0&state=sent")
    among = "No event matches among the newest whose ids begin so.</p>"
    assert (among in page, "More ids begin so" in page) == (True, True)
    contained = await operator.see("/outbox/events?state=dead&name=SCANS&reason=large&user=da")
    assert sorted(listed(contained)) == sorted(dead["too_large"])
    assert "By name and reason" not in contained
    options = re.findall(r'<datalist id="([\w-]+)">(.*?)</datalist>', contained)
    assert [(of, re.findall(r'value="([^"]+)"', one)) for of, one in options] == [
        ("known-names", ["documents/aws.index", "scans/uploaded"]),
        ("known-reasons", ["rejected", "too_large"]),
    ]
    exact = "user=%22ada%22&reason=%22too_large%22&name=%22scans/uploaded%22"
    assert listed(await operator.see(f"/outbox/events?{exact}")) == listed(contained)
    for nothing in (exact.replace("ada", "grace"), "until=2001-01-01T00:00"):
        assert "No event matches." in await operator.see(f"/outbox/events?{nothing}")


@ON_SQLITE
async def test_a_search_that_takes_long_says_how_far_it_went_and_goes_on(
    storage: Storage,
    dead: dict[str, list[str]],
    inngest_api: FakeInngest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = search.SearchPolicy(first_window=20, window=20, budget_seconds=0.0)
    monkeypatch.setattr(search, "SearchPolicy", lambda: short)
    async with served(storage, inngest_api) as service, visitor(service.url) as operator:
        nothing = await operator.see("/outbox/events?state=dead&user=nobody")
        page = first = await operator.see("/outbox/events?state=dead&user=grace")
        found = listed(page)
        while older := link(page, "Search older events"):
            page = await operator.see(older)
            found += listed(page)
        table = io.StringIO(await operator.see("/outbox/export?state=dead&user=grace"))
        accepted = {row["id"]: row["accepted"] for row in csv.DictReader(table)}
    assert [*accepted] == found  # an export takes the time it needs
    assert found == dead["rejected"][1::2][::-1]
    reached = f'<time datetime="{accepted[dead["rejected"][-17]]}">'  # the last of 20 dead events
    assert f"No event matches among those accepted since {reached}" in nothing
    assert [f"Searched back to {reached}" in page for page in (first, nothing)] == [True, False]


async def test_an_event_has_its_story_and_looks_at_payloads_are_audited(
    operator: Visitor, dead: dict[str, list[str]]
) -> None:
    [event_id, *_] = dead["rejected"]
    page = await operator.see(f"/outbox/events/{event_id}")
    assert "a secret document" not in page
    shown = await operator.send(f"/outbox/events/{event_id}/payload")
    assert "a secret document" in shown
    audit = await operator.see(f"/outbox/audit?event={event_id}")
    assert "looked at the payload" in audit
    assert OPERATOR in audit
    found = await operator.see("/outbox/events?reason=large&payload=a+secret+doc")
    assert sorted(listed(found)) == sorted(dead["too_large"])
    assert "No event matches." in await operator.see("/outbox/events?payload=A+secret&before=99")
    exported = await operator.see("/outbox/export?payload=secret&as=json")
    assert len(json.loads(exported)) == 63
    for chosen in (("event", event_id), ("all", "yes")):
        await operator.send("/outbox/discard", ("payload", "secret"), chosen)
    audit = await operator.see("/outbox/audit")
    assert audit.count("searched the payloads") == 4
    assert "secret" not in audit
    # What matches is exported without payloads.
    rows = list(csv.DictReader(io.StringIO(await operator.see("/outbox/export?reason=large"))))
    assert sorted(row["id"] for row in rows) == sorted(dead["too_large"])
    assert {row["name"] for row in rows} == {"scans/uploaded"}
    assert "secret" not in exported


async def test_a_group_of_dead_events_has_one_action(
    operator: Visitor,
    dead: dict[str, list[str]],
    inngest_api: FakeInngest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path, most, found in (
        ("/outbox", 64, ["60", "3"]),
        ("/outbox", 62, ["59", "3"]),
        ("/outbox/events?state=dead", 62, ["59", "3"]),
        ("/outbox/events?state=dead", 64, ["60", "3"]),
    ):
        for module in (desk, lists):
            monkeypatch.setattr(module, "GROUPED_ROWS", most)
        page = await operator.see(path)
        groups = re.findall(r'<td class="figure" data-label="Events">(\d+)</td>', page)
        assert (groups, "Of the newest 62." in page) == (found, most == 62)
    asked = await operator.send("/outbox/replay", *groups_of(page)["scans/uploaded"])
    assert "Replay 3 events?" in asked
    await operator.send("/outbox/replay", *fields(asked))
    await eventually(
        lambda: sum(inngest_api.ledger.times(one) for one in dead["too_large"]),
        lambda count: count == 3,
    )


@ON_SQLITE
async def test_a_group_of_any_name_is_changed_as_a_browser_posts_it(
    storage: Storage, inngest_api: FakeInngest
) -> None:
    names = ("a\nb\rc\r\nd", "n" * 30_000)
    async with storage.open() as outbox:
        await bury(outbox, *(deliverable("ada", name) for name in (*names, *names, "a b c d")))
    async with served(storage, inngest_api) as service, visitor(service.url) as operator:
        for name in names:
            chosen = groups_of(await operator.see("/outbox"))[printable(name)]
            asked = await operator.send("/outbox/discard", *as_a_browser(chosen))
            assert link(asked, "Leave them as they are").startswith("/outbox/events?state=dead")
            done = await operator.send("/outbox/discard", *as_a_browser(fields(asked)))
            assert "Discarded 2 events." in done
        assert groups_of(await operator.see("/outbox")).keys() == {"a b c d"}


def as_a_browser(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The fields as a browser posts them: each end of a line becomes that of the network."""
    return [(name, re.sub("\r\n|\r|\n", "\r\n", value)) for name, value in fields]


async def test_a_replay_at_a_rate_goes_on_by_itself_until_it_is_stopped(
    operator: Visitor, dead: dict[str, list[str]], inngest_api: FakeInngest
) -> None:
    asked = await operator.send("/outbox/replay", ("state", "dead"), ("all", "yes"))
    refused = (*fields(asked), ("perMinute", "0"))
    await operator.send("/outbox/replay", *refused, expected=400)
    page = await operator.send("/outbox/replay", *fields(asked), ("perMinute", "240"))
    left = r"<strong>([1-5]?\d) done</strong>, about 1\d(\.\d)? s left\.</p>\n"
    assert re.search(rf'{left}<progress max="63" value="\1"', page)
    await operator.send("/outbox/replay", *fields(asked), ("perMinute", "1"), expected=400)
    assert "<p>Replaying 63 events at 240 a minute, by" in await operator.see("/outbox/events")

    async def arrived() -> int:
        ids = (one for group in dead.values() for one in group)
        return sum(inngest_api.ledger.times(one) for one in ids)

    await eventually(arrived, lambda count: count >= 8)
    assert "The replay has ended." in await operator.send("/outbox/replay/stop")
    page = await operator.see("/outbox")
    assert "Replaying" not in page
    assert (await operator.see("/outbox/audit")).count(">replay<") == 1


@ON_SQLITE
async def test_a_replay_at_a_rate_goes_on_after_a_restart(
    storage: Storage, dead: dict[str, list[str]], inngest_api: FakeInngest
) -> None:
    chosen = (("state", "dead"), ("reason", "too_large"), ("all", "yes"))
    async with served(storage, inngest_api) as service, visitor(service.url) as operator:
        asked = await operator.send("/outbox/replay", *chosen)
        await operator.send("/outbox/replay", *fields(asked), ("perMinute", "60"))
    async with served(storage, inngest_api) as service, visitor(service.url) as operator:
        await eventually(
            lambda: sum(inngest_api.ledger.times(one) for one in dead["too_large"]),
            lambda count: count == 3,
        )
        await eventually(lambda: operator.see("/outbox"), lambda page: "Replaying" not in page)
    async with storage.open() as outbox:
        assert await outbox.scopes.load_scope("watch", "paced-replay") == {}


@ON_SQLITE
async def test_what_names_nothing_is_refused_and_an_operator_signs_out(operator: Visitor) -> None:
    for path, fields, words in (
        ("events/none/payload", (), "There is no such event."),
        ("replay", (("event", "none"),), GONE),
        ("replay", (("all", "yes"), ("state", "sent"), ("confirmed", "yes")), GONE),
        ("discard", (("state", "dead"), ("all", "no")), "No event was selected."),
    ):
        refused = await operator.send(f"/outbox/{path}", *fields, expected=404)
        assert json.loads(refused)["error"] == words
    for query, words in (
        ("state=none", "There is no such state."),
        ("since=soon", "A time of the filter is not a date and time."),
        ("before=-1", "before is not a whole number."),
        ("before=%C2%B2", "before is not a whole number."),
        (f"before={2**63}", "before is not a whole number."),
    ):
        async with operator._session.get(f"{operator._url}/outbox/events?{query}") as answer:
            told = await answer.json()
            refused_so = (answer.status, told["code"], told["error"])
        assert refused_so == (400, "invalid_field", words)
    for action, wanted in (
        ("replay", ("name", f'"{"n" * 200_000}"')),
        ("discard", ("state", "sent")),
    ):
        page = await operator.send(f"/outbox/{action}", wanted, ("all", "yes"))
        assert f"<h1>Nothing to {action}</h1>" in page
    await operator.send("/auth/logout?returnTo=/outbox", expected=401)


async def test_all_that_match_are_replayed_after_a_dry_run(
    operator: Visitor, dead: dict[str, list[str]], inngest_api: FakeInngest
) -> None:
    chosen = (("state", "dead"), ("reason", "rejected"), ("user", "ada"), ("all", "yes"))
    asked = await operator.send("/outbox/replay", *chosen)
    assert "Replay 30 events?" in asked
    assert "and 10 more." in asked
    named = [("event", one) for one in dead["rejected"][:21]]
    by_id = fields(await operator.send("/outbox/discard", *named))
    assert [field for field in by_id if field[0] == "event"] == named
    assert inngest_api.ledger.times(dead["rejected"][0]) == 0
    done = await operator.send("/outbox/replay", *fields(asked))
    assert "Replayed 30 events." in done
    await eventually(
        lambda: sum(inngest_api.ledger.times(one) for one in dead["rejected"]),
        lambda count: count == 30,
    )
    audit = await operator.see("/outbox/audit")
    assert "reason contains rejected" in audit
    assert all(one in audit for one in dead["rejected"][::2])


@ON_SQLITE
async def test_what_was_not_in_the_dry_run_is_not_changed(
    operator: Visitor, dead: dict[str, list[str]]
) -> None:
    # All that match are meant, whichever of them are selected.
    selected = ("event", dead["rejected"][0])
    asked = await operator.send("/outbox/discard", selected, ("state", "dead"), ("all", "yes"))
    not_yet = [(name, "no" if name == "confirmed" else value) for name, value in fields(asked)]
    assert "<h1>Discard 63 events?" in await operator.send("/outbox/discard", *not_yet)
    long_ago = [(name, "1" if name == "seen" else value) for name, value in fields(asked)]
    await operator.send("/outbox/discard", *long_ago, expected=404)
    assert "Discarded 63 events." in await operator.send("/outbox/discard", *fields(asked))


@ON_SQLITE
async def test_events_that_another_operator_took_meanwhile_and_those_beyond_the_most_are_told(
    operator: Visitor, dead: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as changed:
        changed.setattr(bulk, "MAX_ROWS", 62)
        asked = await operator.send("/outbox/discard", ("state", "dead"), ("all", "yes"))
    assert "Discard 62 events?" in asked
    discard = SqliteRepairs.discard

    async def late(repairs: SqliteRepairs, wanted: Named, **how: Any) -> list[str]:
        await discard(repairs, Named((dead["too_large"][0],), State.DEAD), actor="another")
        return await discard(repairs, wanted, **how)

    asked = await operator.send("/outbox/discard", ("state", "dead"), ("all", "yes"))
    assert "More events match" not in asked
    monkeypatch.setattr(SqliteRepairs, "discard", late)
    done = await operator.send("/outbox/discard", *fields(asked))
    assert "Discarded 62 events. 1 event had changed meanwhile: left alone.</p>" in done


@ON_SQLITE
async def test_delivery_is_paused_and_resumed_with_a_reason(operator: Visitor) -> None:
    said = ("reason", "we move the database")
    asked = await operator.send("/outbox/pause", ("confirmed", "no"), said)
    assert "<h1>Pause delivery?</h1>" in asked
    with capture_logs() as logged:
        page = await operator.send("/outbox/pause", ("confirmed", "yes"), said)
    assert [one["action"] for one in logged if one["event"] == "operator_action"] == ["pause"]
    assert '"status">Delivery was paused. Posts are still accepted.</p>' in page
    assert f"paused by {OPERATOR}: we move the database" in page
    assert 'action="/outbox/resume"' in page
    moved = ("reason", "it is moved")
    page = await operator.send("/outbox/resume", ("confirmed", "yes"), moved)
    assert '"status">Delivery was resumed.</p>' in page
    assert 'action="/outbox/pause"' in page
    audit = await operator.see("/outbox/audit")
    assert "it is moved" in audit
    assert "we move the database" in audit


async def test_charts_have_the_day_before_the_start(
    storage: Storage, inngest_api: FakeInngest
) -> None:
    async with storage.open() as outbox:
        await remember_a_day(outbox, int(time.time() * 1000))
    async with served(storage, inngest_api) as service, visitor(service.url) as operator:
        hour, day = await operator.see("/outbox"), await operator.see("/outbox?span=day")
    assert "Times of trouble with delivery: 2." in hour
    assert "delivery in trouble" in hour
    assert "Waiting over the last day" in day
    rows = [page.count('<th scope="row"><time') for page in (hour, day)]
    assert 12 <= rows[0] <= 13
    assert 24 <= rows[1] <= 25
