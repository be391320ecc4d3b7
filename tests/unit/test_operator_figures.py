from __future__ import annotations

from itertools import product
from typing import Any
from urllib.parse import parse_qsl

import pytest
from msgspec.structs import replace

from inngest_outbox.console.operations.views import moved, payload_text, stats_view
from inngest_outbox.console.pages.charts import DAY, HOUR, charts, thinned
from inngest_outbox.console.pages.desk import gist, notice_of
from inngest_outbox.console.pages.figures import delivery_words, figures
from inngest_outbox.console.pages.filter_form import FilterForm
from inngest_outbox.outbox.figures import Sample, Stats
from inngest_outbox.outbox.model import DeliveryRecord, Filter, Note, State
from tests.support.made_row import made_row

NOW = 1_795_559_419_447
MINUTE_MS = 60_000


def point(age_minutes: int, waiting: int = 0, accepted: float = 0.0, delivered: float = 0.0):
    at_ms = NOW - age_minutes * MINUTE_MS
    return Sample(at_ms, waiting, 0, accepted, delivered, "healthy", "")


def places(piece: str) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in piece.split())
    return [(float(x), float(y)) for x, y in pairs]


def test_the_backlog_runs_from_left_to_right_below_a_round_number() -> None:
    # A sample may be older than the hour, which was read a moment ago, or ahead of this clock.
    hour = [point(age, min(6000, max(0, 6000 - 100 * age))) for age in range(61, -2, -1)]
    chart, _ = charts(hour, HOUR, NOW)
    [line] = chart.lines
    [piece] = line.pieces
    drawn = places(piece)
    assert chart.words == "Waiting over the last hour: 6,000 now, 6,000 at most."
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    assert (drawn[:2], drawn[-2:]) == ([(0.0, 100.0)] * 2, [(1000.0, 0.0)] * 2)
    ticks = [(tick.label, tick.place) for tick in chart.y_ticks]
    assert ticks == [("0", 90.0), ("3,000", 50.0), ("6,000", 10.0)]


def test_the_axis_of_time_has_round_times() -> None:
    hour, day = charts([], HOUR, NOW)[0], charts([], DAY, NOW)[0]
    assert [tick.label for tick in hour.x_ticks] == ["21:45", "22:00", "22:15", "22:30"]
    labels = "00:00 04:00 08:00 12:00 16:00 20:00"
    assert " ".join(tick.label for tick in day.x_ticks) == labels
    ticks = (*hour.x_ticks, *day.x_ticks)
    assert all(0 <= tick.place <= 100 for tick in ticks)
    # The label of 22:30 would end outside of the picture.
    assert [tick.anchor for tick in ticks] == [*["middle"] * 3, "end", *["middle"] * 6]
    # That of 21:30 would begin outside of the next one.
    [first, *_] = charts([], HOUR, NOW - MINUTE_MS)[0].x_ticks
    assert (first.place, first.anchor) == (1.13, "start")
    half_past = charts([], HOUR, NOW - NOW % MINUTE_MS)[0].x_ticks
    assert [(tick.place, tick.anchor, (NOW - tick.at_ms) // MINUTE_MS) for tick in half_past] == [
        (0.0, "start", 60),
        (25.0, "middle", 45),
        (50.0, "middle", 30),
        (75.0, "middle", 15),
        (100.0, "end", 0),
    ]


def test_a_time_without_samples_is_a_gap() -> None:
    ages = (50, 49, 45, 40, 39, 38)  # of four minutes none, of five one
    chart, _ = charts([point(age, 5) for age in ages], HOUR, NOW)
    pieces, areas = chart.lines[0].pieces, chart.lines[0].areas
    assert [len(places(piece)) for piece in pieces] == [3, 3]
    assert [places(area)[1:-1] for area in areas] == [places(piece) for piece in pieces]
    ends = [(places(area)[0], places(area)[-1]) for area in areas]
    assert ends == [((166.7, 100.0), (250.0, 100.0)), ((333.3, 100.0), (366.7, 100.0))]


def test_both_rates_share_one_scale() -> None:
    _, chart = charts([point(1, 0, 100.0, 200.0), point(0, 0, 1e3, 2e3)], HOUR, NOW)
    by_kind = {line.kind: places(line.pieces[0]) for line in chart.lines}
    assert by_kind == {
        "accepted": [(983.3, 95.0), (1000.0, 50.0)],
        "delivered": [(983.3, 90.0), (1000.0, 0.0)],
    }
    said = "accepted 1,000.0, delivered 2,000.0 now, 2,000.0 at most."
    assert chart.words == f"Events per second over the last hour: {said}"


def test_an_empty_hour_has_axes_and_no_line() -> None:
    backlog, rates = charts([], HOUR, NOW)
    assert all(line.pieces == () for chart in (backlog, rates) for line in chart.lines)
    assert [tick.label for tick in backlog.y_ticks] == ["0", "1", "2"]
    assert [tick.label for tick in rates.y_ticks] == ["0", "0.1", "0.2"]
    assert backlog.words == "Waiting over the last hour: not known yet."
    assert rates.words == "Events per second over the last hour: not known yet."
    backlog, rates = charts([point(0)], HOUR, NOW)
    assert backlog.words == "Waiting over the last hour: 0 now, 0 at most."
    assert rates.words.endswith("accepted 0.0, delivered 0.0 now, 0.0 at most.")


def delivery(state: str = "healthy", reason: str = "", reopens: float = 0.0, **more: Any):
    return DeliveryRecord(state, reason, 1, 0, reopens, 0, **more)


def seen(record: DeliveryRecord, *, pending: int = 0, due: float | None = None, sent: int = 0):
    """An outbox with this delivery: its view, and the figures of a page."""
    stats = Stats(pending, 0, 0, 0, None, due, record, 0, None, sent=sent)
    view = stats_view(stats, serving=True)
    return view, figures(moved(None, view, 0.0))


@pytest.mark.parametrize(
    ("state", "paused_by", "standstill"),
    [
        ("healthy", None, None),
        ("recovering", None, None),
        ("backing_off", None, "when Inngest is back"),
        ("misconfigured", None, "when Inngest agrees"),
        *((state, "ada", "not while paused") for state in ("healthy", "recovering", "backing_off")),
    ],
)
def test_texts_agree_with_each_other(
    state: str, paused_by: str | None, standstill: str | None
) -> None:
    """Whatever of pending, due and sent events there is, also while nobody sends."""
    resume = "after the resume" if paused_by else None
    for reopens, rate in product((0.0, 2.5), (0.0, 2.0)):
        record = delivery(state, "", reopens, paused_by=paused_by, rate=rate)
        soon = "in 2.5 s" if reopens else "at once"
        moving = "2 s" if rate else "not known yet"
        for waiting, drained, retry in (
            ({}, "nothing waits", "with the next event"),
            ({"sent": 4}, standstill or moving, "with the next event"),
            ({"pending": 4}, standstill or "when all are due", "when one is due"),
            ({"pending": 3, "sent": 1}, standstill or "when all are due", "when one is due"),
            ({"pending": 4, "due": 0.0}, standstill or moving, soon),
            ({"pending": 3, "due": 9.0, "sent": 1}, standstill or moving, soon),
        ):
            told = seen(record, **waiting)[1].texts()
            assert (told["drained"], told["retry"]) == (drained, resume or retry)
            assert (told["oldest"], told["database"]) == ("none", "0.0 MiB")


def test_sent_is_shown_where_it_means_something() -> None:
    for confirmation, sent in (
        ("on (self-hosted Inngest)", ["Sent"]),
        ("off (Cloud)", []),
        ("failing (no connection)", []),
    ):
        states = seen(delivery(confirmation=confirmation))[1].states
        labels = ["Pending", "Delivering", *sent, "Delivered", "Dead"]
        assert [one.label for one in states] == labels


def test_a_day_is_drawn_with_a_point_for_five_minutes_and_keeps_its_peaks() -> None:
    day = [point(age, 7 if age == 700 else 1, accepted=2.0) for age in range(1439, -1, -1)]
    day[-701] = replace(day[-701], state="backing_off")
    backlog, rates = charts(day, DAY, NOW)
    drawn = places(backlog.lines[0].pieces[0])
    assert 288 <= len(drawn) <= 289
    assert drawn[-2][0] == 999.3  # a minute ago: five minutes are drawn at their end
    assert backlog.words.endswith("7 at most. Times of trouble with delivery: 1.")
    assert "2.0 at most" in rates.words


def test_troubles_of_delivery_are_bands_in_the_backlog() -> None:
    hour = [point(age, 5) for age in range(59, -1, -1)]
    hour[30:36] = [replace(one, state="backing_off", reason="503") for one in hour[30:36]]
    chart, _ = charts(hour, HOUR, NOW)
    [band] = chart.bands
    assert (band.state, band.x, band.width) == ("backing_off", 516.7, 100.0)
    assert "Times of trouble with delivery: 1." in chart.words
    chart, _ = charts([point(1), replace(point(0), state="paused")], HOUR, NOW)
    assert [(one.state, one.width) for one in chart.bands] == [("paused", 3.0)]  # it began now


def test_each_figure_has_its_own_place() -> None:
    record = delivery(rate=10.0)
    stats = Stats(20_000, 3, 4, 5, 90.0, 7.0, record, 3 * 1024**3, None, sent=2)
    latest = moved(None, stats_view(stats, serving=True), 0.0)
    told = figures(replace(latest, accepted_rate=1500.5, delivered_rate=1200.25))
    assert told.texts() == {
        "pending": "20,000",
        "delivering": "3",
        "sent": "2",
        "delivered": "4",
        "dead": "5",
        "oldest": "1.5 min",
        "accepted_rate": "1,500.5",
        "delivered_rate": "1,200.2",
        "drained": "33.3 min",
        "retry": "at once",
        "database": "3,072.0 MiB",
    }
    least = Stats(1, 0, 0, 0, 0.0, 0.0, delivery(rate=1000.0), 0, None)
    few = figures(moved(None, stats_view(least, serving=True), 0.0)).texts()
    assert [few[one] for one in ("oldest", "drained", "database")] == ["0 s", "0 s", "0.0 MiB"]


@pytest.mark.parametrize(("dead", "alarming"), [(0, []), (1, ["dead"])])
def test_dead_events_alarm_from_the_first_one_on(dead: int, alarming: list[str]) -> None:
    view = stats_view(Stats(9, 9, 9, dead, None, None, delivery(), 0, None), serving=True)
    states = figures(moved(None, view, 0.0)).states
    assert [one.key for one in states if one.alarming] == alarming
    assert [one.label for one in states] == ["Pending", "Delivering", "Delivered", "Dead"]


def test_points_of_one_interval_are_their_mean_rate() -> None:
    at = NOW - NOW % (5 * MINUTE_MS)
    two = [Sample(at + n, 9 - n, n, r, 9 * r, "healthy", "") for n, r in enumerate((1.0, 3.0))]
    assert thinned(two, DAY.interval_ms) == [Sample(at + 1, 9, 1, 2.0, 18.0, "healthy", "")]
    backlog, rates = charts(two, DAY, NOW)
    assert backlog.words == "Waiting over the last day: 8 now, 9 at most."
    assert "accepted 2.0, delivered 18.0 now, 18.0 at most" in rates.words


PLACES = {"": "", "cloud": "", "fake": " to a fake Inngest"}
CONFIRMED = {"": "", "on (OUTBOX_CONFIRM)": "", "off (Cloud)": ""}
FAILING = {"failing (HTTP 401)": " Confirmation is failing (HTTP 401)."}
REASONS = {"": "", "503 busy": " (503 busy)"}
PAUSE = "Nothing is sent until somebody resumes delivery. Posts are still accepted."


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("healthy", "Events are sent as they come."),
        ("recovering", "Inngest takes events again. Batches grow step by step."),
        ("backing_off", "Inngest is in trouble. It is tried again and again. What waits is kept."),
        ("misconfigured", "Inngest refuses the key or the address. It is tried again every 5 s."),
        ("of_another_version", ""),
    ],
)
def test_the_state_of_delivery_is_told_in_words_that_do_not_count_seconds(
    state: str, words: str
) -> None:
    every = product(PLACES.items(), (CONFIRMED | FAILING).items(), REASONS.items(), (0.0, 2.5))
    for (destination, to), (confirmation, fails), (reason, why), reopens in every:
        more = {"destination": destination, "confirmation": confirmation}
        told = delivery_words(seen(delivery(state, reason, reopens, **more))[0])
        assert told == f"Delivery{to} is {state.replace('_', ' ')}{why}. {words}{fails}"
        paused = delivery(state, reason, reopens, paused_by="ada", **more)
        told = delivery_words(seen(paused)[0])
        assert told == f"Delivery{to} is paused (paused by ada). {PAUSE}{fails}"


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("id", "e-1", {"id_prefix": "e-1"}),
        ("id", '"e-1"', {"id_prefix": '"e-1"'}),
        ("user", "u 1", {"user_part": "u 1"}),
        ("user", '"u 1"', {"user_id": "u 1"}),
        ("name", "a/b", {"name_part": "a/b"}),
        ("name", '" a/b "', {"name": " a/b "}),
        *(("name", quotes, {"name_part": quotes}) for quotes in ('"', '""', '"a', 'a"')),
        *(("name", f'"{quotes}"', {"name": quotes}) for quotes in ('"', '""')),
        ("reason", "too", {"reason_part": "too"}),
        ("reason", '"too_large"', {"reason": "too_large"}),
        ("payload", '"x"', {"payload_part": '"x"'}),
        ("since", "2026-11-24T22:30", {"since_ms": NOW - NOW % MINUTE_MS}),
        ("until", "2026-11-24T22:30", {"until_ms": NOW - NOW % MINUTE_MS + MINUTE_MS}),
    ],
)
def test_each_field_of_the_form_filters_and_is_in_its_addresses(
    name: str, value: str, wanted: dict[str, Any]
) -> None:
    for state in ("", *State):
        form = FilterForm.read({name: f" {value} ", "state": state, "seen": "1", "before": "2"})
        of_state = State(state) if state else None
        assert form.filter(limit=7, before_seq=9) == Filter(
            state=of_state, limit=7, before_seq=9, **wanted
        )
        assert (form.is_filtering, FilterForm(state=state).is_filtering) == (True, False)
        query = dict(parse_qsl(form.query(before=5, done=None, skipped=0)))
        assert query == {name: value, "before": "5", **({"state": state} if state else {})}


DONE = {0: "0 events", 1: "1 event", 1200: "1,200 events"}


def test_a_notice_says_what_was_done_and_what_was_left_alone() -> None:
    assert [notice_of({"done": one, "count": "1"}) for one in ("", "nothing")] == ["", ""]
    assert notice_of({"done": "replay"}) == "Replayed 0 events."
    for count, skipped in product(DONE, DONE):
        given = {"count": str(count), "skipped": str(skipped)}
        left = f" {DONE[skipped]} had changed meanwhile: left alone." if skipped else ""
        again = " They go out again under their ids." if count else ""
        said = f"Replayed {DONE[count]}.{again}{left}"
        assert notice_of({"done": "replay", **given}) == said
        assert notice_of({"done": "discard", **given}) == f"Discarded {DONE[count]}.{left}"


NOTES = tuple(Note(NOW, f"HTTP {status}") for status in (429, 500))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sends": 1}, ""),
        ({"sends": 2}, "2 sends"),
        ({"history": NOTES, "sends": 2, "payload_bytes": 0}, "HTTP 500, 2 sends, payload removed"),
        ({"detail": "no", "history": NOTES, "sends": 2, "payload_bytes": 0}, "no"),
    ],
)
def test_a_list_says_beside_a_reason_what_a_row_went_through(
    changes: dict[str, Any], words: str
) -> None:
    assert gist(made_row(**changes)) == words


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"a":"\xff"}', '{\n  "a": "\ufffd"\n}'),
        (b'{"a":1}\xff', '{"a":1}\ufffd'),
        (b'{"a":\n1\x0c', '{"a":\n1\x0c'),
        (b"[" * 9_000, "[" * 9_000),
    ],
)
def test_a_payload_that_is_damaged_is_shown_as_far_as_it_is(payload: bytes, shown: str) -> None:
    assert payload_text(payload) == shown
