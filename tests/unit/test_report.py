"""What is counted and logged of each request and of confirmations, and that nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import structlog

from inngest_outbox.inngest.send_result import SendResult, Signal
from inngest_outbox.outbox.model import Batch, Dead, Entry, Retry, SentEntry, Settlement
from inngest_outbox.relay.confirmation import ResendReason
from inngest_outbox.relay.outcome import Outcome
from inngest_outbox.relay.report import ConfirmationReport, Report
from tests.support.figures import Figures

DAY_MS = 24 * 3600 * 1000
NOW_MS = 20_000 * DAY_MS
BATCH = Batch(
    "c", (Entry(1, "e-1", NOW_MS - 2500, "u"), Entry(2, "e-2", NOW_MS - 500, "u")), b"{},{}"
)
LINE = {
    "event": "send",
    "log_level": "info",
    "claim": "c",
    "events": 2,
    "first": "e-1",
    "outcome": "passed",
    "status": 200,
    "delivered": 0,
    "sent": 0,
    "retry": 0,
    "dead": None,
    "reason": None,
    "ms": 1234.6,
}


class Reported:
    """A report at NOW_MS, and its figures."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.figures = Figures()
        self.report: Any = Report(self.figures, wall_ms=lambda: NOW_MS, clock=lambda: self.seconds)

    def of(self, name: str, *what: Any) -> list[Any]:
        """The lines that this call logs."""
        with structlog.testing.capture_logs() as lines:
            getattr(self.report, name)(*what)
        return list(lines)

    def answered(self, settlement: Settlement, result: SendResult, **done: Any) -> list[Any]:
        outcome = replace(Outcome(settlement, Signal.PASSED), **done)
        return self.of("ended", BATCH, result, outcome, 1.23456)


OK = SendResult(200, ("01J",))
SENT = [
    ("count", "sends", 1, ("outcome", "passed")),
    ("count", "delivered", 0),
    ("observe", "send_seconds", 1.23456),
    ("observe", "send_events", 2),
]


def test_a_request_whose_events_wait_for_a_confirmation() -> None:
    one = Reported()
    retry = [Retry(2, 0.0, 0, isolated=False)]
    assert one.answered(Settlement("c", sent=[1], retry=retry), OK) == [
        {**LINE, "sent": 1, "retry": 1}
    ]
    assert one.figures.got == SENT


def test_a_request_that_delivered_tells_the_age_of_the_oldest_event() -> None:
    one = Reported()
    assert one.answered(Settlement("c", delivered=[1, 2]), OK) == [{**LINE, "delivered": 2}]
    assert one.figures.got[1] == ("count", "delivered", 2)
    assert one.figures.got[4:] == [("observe", "delivery_latency_seconds", 2.5)]
    of_the_future = Batch("c", (Entry(1, "e-1", NOW_MS + 5000, "u"),), b"{}")
    done = Outcome(Settlement("c", delivered=[1]), Signal.PASSED)
    one.report.ended(of_the_future, OK, done, 0.1)
    assert one.figures.got[-1] == ("observe", "delivery_latency_seconds", 0)


def test_a_dead_event_is_an_error_with_its_reason() -> None:
    one = Reported()
    dead = [Dead(2, 3, "rejected", "bad name")]
    refused = SendResult(400, ("01J", ""))
    lines = one.answered(
        Settlement("c", dead=dead), refused, signal=Signal.REFUSED, reason="400 bad name"
    )
    told = {"attempts": 3, "reason": "rejected", "detail": "bad name", "event_id": "e-2"}
    answer = {"outcome": "refused", "status": 400, "dead": 1, "reason": "400 bad name"}
    assert lines == [{"event": "dead", "log_level": "error", **told}, {**LINE, **answer}]
    assert one.figures.got[0] == ("count", "sends", 1, ("outcome", "refused"))
    assert one.figures.got[-1] == ("count", "dead", 1, ("reason", "rejected"))


def test_a_wrong_clock_is_shown_always_and_logged_once_a_minute() -> None:
    one, logged = Reported(), []
    times = (0.0, 5.0), (0.0, -5.26), (60.0, 9.0), (60.5, 9.0), (61.0, 9.0), (120.5, 9.0)
    for seconds, skew in (*times, (121.0, 4.5), (121.0, 5.5)):
        one.seconds = seconds
        lines = one.answered(Settlement("c"), replace(OK, skew_seconds=skew))
        logged += [line["seconds"] for line in lines if line["event"] == "clock_skew"]
        assert one.figures.got[-1] == ("gauge", "clock_skew_seconds", skew)
        assert {line["log_level"] for line in lines} <= {"info", "warning"}
    assert logged == [-5.3, 9.0, 5.5]


def first_sent(*milliseconds_ago: int | None) -> Batch:
    entries = (
        Entry(seq, f"e-{seq}", 0, "u", first_sent_at_ms=None if ago is None else NOW_MS - ago)
        for seq, ago in enumerate(milliseconds_ago)
    )
    return Batch("c", tuple(entries), b"")


def test_events_whose_ids_inngest_may_have_forgotten_are_counted_and_the_first_named() -> None:
    one = Reported()
    assert one.of("begins", first_sent(None, 0, DAY_MS)) == []
    lines = one.of("begins", first_sent(None, *[DAY_MS + 1] * 21, DAY_MS))
    named = [f"e-{seq}" for seq in range(1, 21)]
    late = {"event": "sent_past_dedupe_window", "log_level": "warning"}
    assert lines == [{**late, "events": named, "count": 21}]
    assert one.figures.got == [("count", "sent_past_dedupe_window", 21)]


def test_events_that_inngest_will_run_later_are_counted() -> None:
    one = Reported()
    ahead = [Entry(seq, "e", NOW_MS + 1000 + by, "u") for seq, by in enumerate((0, 1, 9))]
    assert one.of("begins", Batch("c", (ahead[0],), b"")) == []
    lines = one.of("begins", Batch("c", tuple(ahead), b""))
    early = {"event": "sent_with_future_ts", "log_level": "warning"}
    assert lines == [{**early, "claim": "c", "count": 2}]
    assert one.figures.got == [("count", "sent_with_future_ts", 2)]


FAULT = RuntimeError("ours")


@pytest.mark.parametrize(
    ("name", "what", "figure", "line"),
    [
        ("lease_lost", ("c", 3), ("count", "lease_lost", 3), {"claim": "c", "rows": 3}),
        ("lone_event_fails", ("e-1",), ("gauge", "lone_event_fails", 1.0), {"event_id": "e-1"}),
        ("lone_event_fails", (None,), ("gauge", "lone_event_fails", 0.0), None),
        (
            "failed",
            (FAULT,),
            ("count", "task_restarts", 1, ("task", "send")),
            {"event": "send_failed", "exc_info": FAULT},
        ),
        (
            "overrun",
            (2,),
            ("count", "relay_drain_overruns", 1),
            {"event": "drain_overrun", "log_level": "warning", "sends": 2},
        ),
    ],
)
def test_what_goes_wrong_is_counted_and_logged(
    name: str, what: tuple[Any, ...], figure: tuple[Any, ...], line: dict[str, Any] | None
) -> None:
    one = Reported()
    lines = one.of(name, *what)
    assert one.figures.got == [figure]
    assert lines == ([] if line is None else [{"event": name, "log_level": "error", **line}])


class Confirmed(Reported):
    """The same of confirmations; and how many rows it told of."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 5.0
        self.told: list[int] = []
        self.faults: list[str | None] = []
        self.report = ConfirmationReport(
            self.figures,
            self.told.append,
            on_fault=self.faults.append,
            wall_ms=lambda: NOW_MS,
            clock=lambda: self.seconds,
        )


def entry(seq: int, accepted_ms_ago: int, sent_seconds: float) -> SentEntry:
    return SentEntry(seq, f"e-{seq}", NOW_MS - accepted_ms_ago, sent_seconds)


def test_rows_that_are_held_tell_the_age_of_the_oldest() -> None:
    one = Confirmed()
    held = [entry(1, 2500, 1.0), entry(2, 2600, 2.0), entry(3, 900, 0.5)]
    assert one.of("confirmed", held) == []
    assert one.told == [3]
    assert one.figures.got == [
        ("count", "delivered", 3),
        ("observe", "confirm_latency_seconds", 2.0),
        ("observe", "delivery_latency_seconds", 2.6),
    ]
    one.report.confirmed([entry(4, -5000, 0.1)])
    assert one.figures.got[-1] == ("observe", "delivery_latency_seconds", 0)
    figures = Figures()
    ConfirmationReport(figures).confirmed([entry(1, 0, 1.0)])  # nobody needs to be told
    assert figures.got[0] == ("count", "delivered", 1)


def test_rows_that_are_sent_again_are_counted_and_the_first_are_named() -> None:
    one = Confirmed()
    lines = one.of("resent", ResendReason.PASSED, [entry(seq, 0, 1.0) for seq in range(21)])
    named = [f"e-{seq}" for seq in range(20)]
    said = {"event": "resent", "log_level": "warning", "reason": "passed"}
    assert lines == [{**said, "count": 21, "events": named}]
    assert one.figures.got == [("count", "resent", 21, ("reason", "passed"))]


def test_a_sweep_shows_the_rate_of_the_last_seconds() -> None:
    one, rates = Confirmed(), []
    for seconds, found in [(5.5, 10), (6.0, 20), (6.5, 5), (8.0, 0), (9.0, 0)]:
        one.seconds = seconds
        one.of("swept", found, 7, None)
        [rate, *_] = [got for got in reversed(one.figures.got) if "stored" in str(got[1])]
        rates.append(rate[-1])
    assert rates == pytest.approx([0.0, 9.0, 9.0, 7.05, 4.935])


def test_why_inngest_can_not_be_asked_is_told_and_logged_once_a_minute() -> None:
    one, logged = Confirmed(), []
    for seconds in (5.0, 64.5, 65.0, 65.5, 66.0, 125.5):
        one.seconds = seconds
        logged.append(len(one.of("swept", 0, 0, "timeout")))
        assert one.figures.got[-1] == ("gauge", "confirmations_ok", 0.0)
    assert logged == [1, 0, 0, 1, 0, 0]
    one.report.others_ask()
    assert one.figures.got[-1] == ("gauge", "confirmations_ok", 1.0)
    said = {"event": "confirmations_failing", "log_level": "warning", "reason": "away"}
    assert one.of("swept", 0, 0, "away") == [said]
    assert one.faults == [*["timeout"] * 6, None, "away"]
