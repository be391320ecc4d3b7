"""What the operators' pages do with a form that no page of theirs makes, and at a stop."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import AsyncGenerator, Sequence
from html import unescape
from itertools import cycle, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web

from inngest_outbox.console.operations.actions import Payloads
from inngest_outbox.console.operations.bulk import Action, Proposal
from inngest_outbox.console.operations.paced import PacedReplay
from inngest_outbox.console.operations.search import Found
from inngest_outbox.console.operations.timeline import Kind
from inngest_outbox.console.operations.views import Movement, moved, stats_view
from inngest_outbox.console.pages import desk as desk_module
from inngest_outbox.console.pages import overview as overview_module
from inngest_outbox.console.pages.changes import Changes
from inngest_outbox.console.pages.charts import Chart, Span, charts
from inngest_outbox.console.pages.desk import Desk
from inngest_outbox.console.pages.event_page import EventPage
from inngest_outbox.console.pages.figures import _DELIVERY as DELIVERY
from inngest_outbox.console.pages.lists import Lists
from inngest_outbox.console.pages.overview import Overview
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.identity.user import Operators, User
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.audit import AuditRecord, new_act
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.figures import DeadGroup, Sample, Stats
from inngest_outbox.outbox.model import DeliveryRecord, Filter, Row, State
from inngest_outbox.runs.figures import KeptNames, NameView
from inngest_outbox.web.pages.page import _OWN as OWN_PAGES
from inngest_outbox.web.server.middleware import error_middleware
from tests.support.clock import Clock
from tests.support.html_page import judge_page, judge_part
from tests.support.made_row import made_row
from tests.support.memory_outbox import HEALTHY_DELIVERY
from tests.support.storage import PATIENCE_SECONDS

KIM = User("dev", "kim", "kim@example.com", email_verified=True)


class Silence:
    """Samples of an outbox of which there is none yet."""

    async def sample(self) -> Movement:
        stats = Stats(0, 0, 0, 0, None, None, HEALTHY_DELIVERY, 0, None)
        return moved(None, stats_view(stats, serving=True), 0)

    async def watch(self) -> AsyncGenerator[Movement, None]:
        await asyncio.Event().wait()
        yield cast("Movement", None)


@pytest.fixture
def overview() -> Overview:
    nothing = cast("Any", None)
    return Overview(desk(), Silence(), nothing, nothing, nothing)


def desk(calm: Any = None) -> Desk:
    async def kim(request: web.Request) -> User:
        del request
        return KIM

    return Desk(kim, Operators(["kim@example.com"]), calm, calm)


@pytest.fixture
def serve(aiohttp_client):
    """A client of these pages."""

    async def serving(*parts: Any) -> Any:
        app = web.Application(middlewares=[error_middleware(NullRecorder())])
        app.add_routes([route for part in parts for route in part.routes()])
        return await aiohttp_client(app)

    return serving


@pytest.fixture
async def client(overview, serve):
    nothing = cast("Any", None)
    return await serve(overview, Changes(desk(), nothing, nothing, nothing, nothing))


async def test_live_figures_that_begin_during_a_stop_end_at_once(client, overview):
    """Their request has arrived before the stop and is still being checked."""
    await overview.close()
    async with asyncio.timeout(PATIENCE_SECONDS), client.get("/outbox/live") as answer:
        assert await answer.read() == b""


class Away(Silence):
    """Samples that end with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def watch(self) -> AsyncGenerator[Movement, None]:
        raise self._error
        yield cast("Movement", None)


@pytest.mark.parametrize(
    ("error", "told"),
    [(OutboxUnavailableError(), 0), (ConnectionResetError(), 0), (ZeroDivisionError(), 1)],
)
async def test_live_figures_end_and_only_a_fault_of_ours_is_told(serve, error, told):
    complaints = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, why: complaints.append(why))
    nothing = cast("Any", None)
    client = await serve(Overview(desk(), Away(error), nothing, nothing, nothing))
    assert await (await client.get("/outbox/live")).read() == b""
    await client.close()
    gc.collect()
    assert len(complaints) == told


async def test_live_charts_are_drawn_every_20_seconds(serve, monkeypatch):
    clock = Clock()
    delivery = msgspec.structs.replace(HEALTHY_DELIVERY, state="backing_off")
    stats = [Stats(0, 0, 0, dead, None, None, delivery, 0, None) for dead in (0, 1200)]
    none, many = (moved(None, stats_view(one, serving=True), 0) for one in stats)

    class Ticking(Silence):
        async def watch(self) -> AsyncGenerator[Movement, None]:
            for seconds, latest in ((0.0, none), (19.9, none), (0.1, many), (10.0, many)):
                clock.now += seconds
                yield latest

    monkeypatch.setattr(overview_module, "time", SimpleNamespace(monotonic=clock))
    calm = cast("Any", Calm())
    client = await serve(Overview(desk(calm), Ticking(), calm, calm, calm))
    told = await (await client.get("/outbox/live?span=day")).text()
    assert [told.count(f"event: {name}\n") for name in ("figures", "charts", "dead")] == [4, 2, 2]
    judge_part("".join(re.findall("data: (.*<.*)", told)))
    assert told.count("Waiting over the last day: ") == 2
    assert "event: state\ndata: backing_off\n" in told  # a class of the page


async def test_a_form_that_is_too_large_is_refused(client):
    answer = await client.post("/outbox/pause", data=b"a" * (256 * 1024 + 1))
    assert (answer.status, (await answer.json())["code"]) == (413, "body_too_large")


class Calm:
    """An outbox in which nothing has happened."""

    async def nothing(self, *_: object) -> tuple[()]:
        return ()

    async def no_one(self, *_: object) -> None:
        return None

    async def load_delivery(self) -> DeliveryRecord:
        return DeliveryRecord("backing_off", "", 1, 0, 0.0, 0)

    async def drawn(self, span: Span) -> tuple[tuple[Chart, Chart], Sequence[Sample]]:
        return charts([], span, 1_795_559_400_000), []

    dead_groups = rows = nothing

    async def between(self, *_: object) -> list[Sample]:
        return []

    current = no_one

    async def load_scope(self, *_: object) -> object:
        """A name that missed its runs when a service looked last, an hour ago."""
        missed = NameView(name="a/b", expected=True, no_run_since=1)
        return msgspec.to_builtins(KeptNames(wall_now_ms() - 3_600_000, (missed,)))


async def buried(_: int) -> list[DeadGroup]:
    return [DeadGroup("a/b", "rejected", 1200, 1, "")]


async def half_done() -> PacedReplay:
    return PacedReplay(new_act("all"), "ada", Filter(), 0, 1200, total=2400, done=1200)


@pytest.mark.parametrize("state", ["healthy", "recovering", "backing_off", "misconfigured"])
@pytest.mark.parametrize("paused_by", [None, "ada"])
async def test_the_overview_offers_a_pause_unless_delivery_is_paused(serve, state, paused_by):
    record = msgspec.structs.replace(HEALTHY_DELIVERY, state=state, paused_by=paused_by)

    class Seen(Silence):
        async def sample(self) -> Movement:
            stats = Stats(0, 0, 0, dead, None, None, record, 0, None)
            return moved(None, stats_view(stats, serving=True), 0)

    async def load_delivery() -> DeliveryRecord:
        return record

    calm = cast("Any", Calm())
    calm.load_delivery = load_delivery
    client = await serve(Overview(desk(calm), Seen(), calm, calm, lambda: None))
    name, word = ("paused", "Resume") if paused_by else (state, "Pause")
    for dead in (0, 1, 1200):
        page = await (await client.get("/outbox")).text()
        form = re.findall('<form class="pause" method="post" action="(.*)">\n<button>(.*)</', page)
        assert form == [(f"/outbox/{word.lower()}", f"{word} delivery\u2026")]
        assert f'<section class="card now delivery-{name}"' in page
        assert f'<span class="pill delivery-{name}">{name.replace("_", " ")}</span>' in page
        assert page.count(
            '<div class="card alarming"><dt><a href="/outbox/events?state=dead">'
        ) == (dead > 0)


EVENTS = {0: "", 1: "1 event", 1200: "1,200 events"}
JOURNAL = {"bucket": "b", "restoredDead": 1, "mayRunTwice": 2}


@pytest.mark.parametrize("state", ["ok", "away", "unread"])
@pytest.mark.parametrize("missing", EVENTS)
async def test_the_overview_warns_of_a_journal_that_lacks_something(serve, state, missing):
    shown: dict[str, Any] = {}
    calm = cast("Any", Calm())
    calm.dead_groups, calm.current = buried, half_done
    client = await serve(Overview(desk(calm), Silence(), calm, calm, lambda: shown))
    reasons, refusals = (None, "S3 is away"), ((), ("1 runs",), ("1 runs", "2 run"))
    for (reason, refused), restored in zip(product(reasons, refusals), cycle(EVENTS), strict=False):
        given = {"state": state, "missing": missing, "reason": reason}
        shown |= {**JOURNAL, **given, "refused": refused, "restored": restored}
        answer = await client.get("/outbox")
        page = await answer.text()
        judge_page(page, "/outbox", answer.headers["Content-Security-Policy"])
        lacks = f"lacks {EVENTS[missing]}" if missing else f"is {state}"
        words = f"The journal b {lacks}" + (f": {reason}" if reason else "")
        warnings = [words] if missing or state != "ok" else []
        assert re.findall('<p class="warning">(.*)</p>', page) == [*warnings, *refused]
        back = "came back from the journal at the start, 1 of them dead; 2 may run twice.</p>"
        came = [f"<p>{EVENTS[restored]} {back}"] if restored else []
        assert re.findall("<p>.* came back .*", page) == came
    assert "Nothing is kept yet: the first minute is still running." in page
    anchors = ["start", "middle", "middle", "middle", "end"]  # each within the picture
    assert re.findall(r'text-anchor="(\w+)"', page) == anchors * 2
    assert "<strong>rejected</strong>" in page
    assert "by ada: <strong>1,200 done</strong>, about 1 min left.</p>" in page
    assert '<progress max="2400" value="1200"' in page


AT_INNGEST = "01KB08Z4Q0XW5M7T3Y8S000017"
LINK = f"https://inngest.example/{AT_INNGEST}"
OPENS = "<br><small>Opens the event and its runs in Inngest.</small>"
SEEN = "<small>the id that Inngest sees</small>"
ALONE = " <small>sent alone, because it may be the cause of trouble</small>"
ACTIONS = {State.DELIVERING: [], State.DEAD: ["replay", "discard"]}


@pytest.mark.parametrize("state", State)
async def test_the_page_of_an_event_has_the_facts_of_its_row(serve, state):
    shown, calm = made_row(state), cast("Any", Calm())

    async def found(wanted: Filter) -> list[Row]:
        return [shown] if wanted.ids == ("e-1",) else []

    calm.rows = found
    payloads = Payloads(calm, calm, NullRecorder())
    page_of = EventPage(calm, calm, payloads, desk(calm), lambda _: LINK if has_link else None)
    client = await serve(page_of)
    others = product(("branch/a", None), (True, False), (1200, 0), ("rejected", None), ("no", None))
    wires, sends = (None, "", "e-1", "order-1"), (0, 1, 1200)
    for (wire_id, sent, has_link), (environment, isolated, size, reason, detail) in zip(
        product(wires, sends, (True, False)), cycle(others), strict=False
    ):
        shown = made_row(
            state,
            sends=sent,
            isolated=isolated,
            attempts=1200,
            payload_bytes=size,
            reason=reason,
            detail=detail,
            inngest_id=AT_INNGEST,
            meta=Meta(wire_id, environment),
        )
        page = await (await client.get("/outbox/events/e-1")).text()
        opens = f'<a class="id" href="{LINK}" rel="noreferrer">{AT_INNGEST}</a>{OPENS}'
        facts = {
            "Event name": "documents/aws.index",
            "User": "u-1",
            "Owner": "dev u-1",
            "Inngest\u2019s id": opens
            if sent and has_link
            else f"<code data-copy>{AT_INNGEST}</code>",
            "Sender\u2019s id": f"<code>{wire_id or 'none'}</code> {SEEN}",
            "Environment": environment,
            "Attempts": "1,200 <small>answers that judged this event alone</small>",
            "Sends": f"{sent:,}{ALONE if isolated else ''}",
            "Reason": f"<strong>{reason}</strong>" + (f"<br>{detail}" if detail else ""),
            "Payload": "1,200 bytes" if size else "removed",
        }
        gone = {"Sender\u2019s id": wire_id in (None, "e-1"), "Environment": environment is None}
        gone["Reason"] = reason is None
        told = {name: fact for name, fact in facts.items() if not gone.get(name)}
        assert dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page)) == told
        actions = re.findall('<form method="post" action="/outbox/([a-z]+)"><input', page)
        assert actions == ACTIONS.get(state, ["discard"])
        asks = "<button>Show the payload</button>" in page
        assert (asks, "The payload was removed." in page) == (size > 0, not size)
    assert (await client.get("/outbox/events/e-2")).status == 404


LEADS = {
    "replay": "Dead events become pending again and go out under their old ids, with no attempts "
    "counted. Nothing has been changed yet.",
    "discard": "The events are removed for good. Nothing has been changed yet.",
}
RISKS = {
    "replay": "may first have been sent more than 24 h ago, and Inngest forgets an id after 24 h: "
    "what it took then runs a second time.",
    "discard": "may not have reached Inngest, and never will after this.",
}
REFUSALS = {
    "replay": "can\u2019t be replayed, as only dead events can.",
    "discard": "can\u2019t be discarded now: being sent.",
}
REPEAT = "More events match than one change takes. Repeat it for the rest."


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("count", [0, 1, 20, 21])
async def test_a_dry_run_says_what_would_change_and_what_not(serve, action, count):
    shown: Any = None

    class Proposed:
        async def propose(self, *_: object, **__: object) -> Proposal:
            return shown

    calm = cast("Any", Calm())
    client = await serve(Changes(desk(calm), cast("Any", Proposed()), calm, calm, calm))
    rows = [made_row(State.DEAD, id=f"e-{at}") for at in range(count)]
    words = f"{action.capitalize()} {count:,} event{'s' if count != 1 else ''}"
    of_replay = action is Action.REPLAY
    for risk, left_out, has_more in product((0, 1, 1200), (0, 1, 1200), (False, True)):
        late, lost = (risk, 0) if of_replay else (0, risk)
        shown = Proposal(action, Filter(), rows, 7, left_out, has_more, late, lost)
        answer = await client.post(f"/outbox/{action}", data={"event": "e-0", "name": "n"})
        if not count and not left_out:
            assert answer.status == 404
            continue
        page = await answer.text()
        assert f"<h1>{f'{words}?' if count else f'Nothing to {action}'}</h1>" in page
        leads = [LEADS[action]] if count else []
        assert re.findall('<p class="lead">(.*)</p>', page) == leads
        told = ((EVENTS[risk], RISKS[action]), (EVENTS[left_out], REFUSALS[action]))
        warnings = [f"{events} {why}" for events, why in told if events]
        assert re.findall('<p class="warning">(.*)</p>', page) == [*warnings, *[REPEAT] * has_more]
        assert ('name="perMinute"' in page) == (of_replay and count > 1)
        button = f'<button class="{"primary" if of_replay else "danger"}">{words}</button>'
        assert (button in page, "<button class=" in page[page.index("<h1>") :]) == (count > 0,) * 2
        assert page.count('<th scope="row"') == min(count, 20)
        assert re.findall(r"and (\d+) more\.", page) == (["1"] if count == 21 else [])
        hidden = re.findall(r'type="hidden" name="(\w+)" value="(.*)"', page)
        fields = {"filter": "name=n", "event": "e-0", "seen": "7", "confirmed": "yes"}
        assert dict(hidden) == fields
        assert '<a class="button" href="/outbox/events?name=n">Leave them as they are</a>' in page


PAUSED_MS = 1_795_559_400_000
SINCE = '<time datetime="2026-11-24T22:30:00Z">2026-11-24 22:30:00 UTC</time>'


@pytest.mark.parametrize("state", ["", *State])
@pytest.mark.parametrize("user", ["", "u"])
async def test_a_list_says_what_it_shows_and_what_may_follow(serve, state, user):
    shown = Found([])

    async def find(wanted: Filter) -> Found:
        assert (wanted.state, wanted.user_part) == (state or None, user or None)
        return shown

    async def stats() -> Stats:
        return Stats(1, 2, 3, 1200, None, None, HEALTHY_DELIVERY, 0, None, sent=5)

    calm, asked = cast("Any", Calm()), list[int]()
    calm.find, calm.stats, calm.dead_groups = find, stats, lambda n: asked.append(n) or buried(n)
    client = await serve(Lists(desk(calm), calm, calm, calm, calm, calm))
    given = "&".join(
        f"{name}={value}" for name, value in (("state", state), ("user", user)) if value
    )
    actions = {"": ["replay", "discard"], "dead": ["replay", "discard"], "delivering": []}
    acts = actions.get(state, ["discard"])
    ends = ({}, {"next_seq": 5}, {"next_seq": 5, "paused_at_ms": PAUSED_MS}, {"is_cut": True})
    for count, end, before in product((0, 2), ends, (None, 9)):
        rows = [made_row(State(state or "dead"), id=f"e-{at}") for at in range(count)]
        shown = Found(rows, **end)
        page = await (await client.get(f"/outbox/events?{given}&before={before or ''}")).text()
        among = {"paused_at_ms": f" among those accepted since {SINCE}"}
        among["is_cut"] = " among the newest whose ids begin so"
        of = next((words for name, words in among.items() if name in end), "")
        is_any = user or before or of
        nothing = f"No event matches{of}." if is_any else "There are no such events."
        assert re.findall('<p class="empty">(.*)</p>', page) == ([] if count else [nothing])
        pages = page[page.index('<nav class="pages"') : page.index('<form class="filters')]
        links = [(f"/outbox/events?{given}", "Newest")] if before else []
        if "next_seq" in end:
            words = "Search older events" if "paused_at_ms" in end else "Older"
            links.append((f"/outbox/events?{given}&before=5".replace("?&", "?"), words))
        assert re.findall('<a class="button" href="(.*?)".*?>(.*?)<', unescape(pages)) == links
        quiet = [f"Searched back to {SINCE}."] if "paused_at_ms" in end and count else []
        quiet += ["More ids begin so: give more of the id."] if "is_cut" in end else []
        assert re.findall('<span class="quiet">(.*?)</span>', pages) == quiet
        assert ("Export all that match:" in pages) == (count > 0)
        assert page.count('aria-label="Select event ') == (count if acts else 0)
        of = ("selected", "all that match") if state or user else ("selected",)
        buttons = [f"{act.capitalize()} {which}\u2026" for which in of for act in acts]
        told = re.findall(r'formaction="/outbox/\w+"[^>]*>(\w+ \w+.*?)<', page)
        assert told == (buttons if count else [])
        is_grouped = (state, user, before) == ("dead", "", None)
        assert ("By name and reason" in page, "1,200</td>" in page) == (is_grouped,) * 2
        assert (len(asked), asked.pop()) == (1, 20_000 if is_grouped else 2_000)
        assert ('id="reason"' in page) == (state in ("", "dead"))
        assert (">Clear</a>" in page) == bool(user)


@pytest.mark.parametrize("event", ["", "e-1"])
async def test_the_audit_shows_its_latest_acts_and_offers_more(serve, event):
    there: list[AuditRecord] = []

    async def audit(limit: int, *, event: str | None) -> list[AuditRecord]:
        assert event == (given or None)
        return there[:limit]

    calm, given = cast("Any", Calm()), event
    calm.audit = audit
    client = await serve(Lists(desk(calm), calm, calm, calm, calm, calm))
    acts = [AuditRecord("a", 1, "ada", "replay", f"act {at}", ()) for at in range(1_001)]
    for count, limit in product((0, 1, 50, 51, 1_000, 1_001), ("", 0, 1, 50, 999, 1_000, 5_000)):
        there, most = acts[:count], min(1_000, int(limit or 50))
        page = await (await client.get(f"/outbox/audit?event=+{event}+&limit={limit}")).text()
        shown = [one.detail for one in there[:most]]
        assert re.findall('<td class="outcome">(.*)', page) == shown
        more = [str(min(1_000, 2 * most))] if count > most < 1_000 else []
        found = re.findall('href="(.*)limit=(.*)">Show more</a>', unescape(page))
        assert found == [(f"/outbox/audit?event={event}&", one) for one in more]
        nothing = (
            "No act changed such an event." if event else "No operator has changed anything yet."
        )
        assert re.findall('<p class="empty">(.*)</p>', page) == ([] if count else [nothing])
        assert (">Clear</a>" in page) == bool(event)
    for count, words in (
        (1, "1 event"),
        (200, "200 events"),
        (201, "201 events"),
        (1_400, "1,400 events"),
    ):
        ids = [f"e-{at}" for at in range(count)]
        there = [AuditRecord("a", 1, "ada", "discard", "all", tuple(ids))]
        page = await (await client.get(f"/outbox/audit?event={event}")).text()
        assert re.findall("<summary>(.*)</summary>", page) == [words]
        assert (
            re.findall(r'<li><a class="id" href="/outbox/events/(.*)">\1</a></li>', page)
            == ids[:200]
        )
        rest = [f"{count - 200:,}"] if count > 200 else []
        assert re.findall("<li>and (.*) more: <code>outbox audit --json</code> lists", page) == rest


@pytest.mark.parametrize("folder", [Path(desk_module.__file__).parent / "templates", OWN_PAGES])
def test_each_class_of_the_style_is_one_of_the_pages(folder):
    style = re.sub(r"\{[^{}]*\}", "", (folder / "page.css").read_text("utf-8"))
    texts = [one.read_text("utf-8") for kind in ("*.html", "*.js") for one in folder.glob(kind)]
    states = {f"state-{one}" for one in State} | {f"delivery-{one}" for one in DELIVERY}
    known = set(re.findall(r"[a-z][\w-]+", "".join(texts))) | states | {*Kind, "waiting"}
    assert set(re.findall(r"\.([a-z][\w-]*)", style)) - known == set()
