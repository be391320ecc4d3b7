"""What is counted and logged of confirmations."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from service.outbox.model import SentEntry
from service.relay.confirmation import ResendReason
from service.relay.report import ConfirmationReport
from tests.support.figures import Figures

NOW_MS = 1_700_000_000_000


class Reported:
    """A report at NOW_MS, its figures, and how many rows it told of."""

    def __init__(self) -> None:
        self.seconds = 5.0
        self.figures = Figures()
        self.told: list[int] = []
        self.faults: list[str | None] = []
        self.report = ConfirmationReport(
            self.figures,
            self.told.append,
            on_fault=self.faults.append,
            wall_ms=lambda: NOW_MS,
            clock=lambda: self.seconds,
        )

    def of(self, name: str, *what: Any) -> list[Any]:
        """The lines that this call logs."""
        with structlog.testing.capture_logs() as lines:
            getattr(self.report, name)(*what)
        return list(lines)


def entry(seq: int, accepted_ms_ago: int, sent_seconds: float) -> SentEntry:
    return SentEntry(seq, f"e-{seq}", NOW_MS - accepted_ms_ago, sent_seconds)


def test_rows_that_are_held_tell_the_age_of_the_oldest() -> None:
    one = Reported()
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


def test_rows_that_are_sent_again_are_counted_and_the_first_are_named() -> None:
    one = Reported()
    lines = one.of("resent", ResendReason.PASSED, [entry(seq, 0, 1.0) for seq in range(21)])
    named = [f"e-{seq}" for seq in range(20)]
    said = {"event": "resent", "log_level": "warning", "reason": "passed"}
    assert lines == [{**said, "count": 21, "events": named}]
    assert one.figures.got == [("count", "resent", 21, ("reason", "passed"))]


def test_a_sweep_shows_the_rate_of_the_last_seconds() -> None:
    one, rates = Reported(), []
    for seconds, found in [(5.5, 10), (6.0, 20), (6.5, 5), (8.0, 0), (9.0, 0)]:
        one.seconds = seconds
        one.of("swept", found, 7, None)
        [rate, *_] = [got for got in reversed(one.figures.got) if "stored" in str(got[1])]
        rates.append(rate[-1])
    assert rates == pytest.approx([0.0, 9.0, 9.0, 7.05, 4.935])


def test_why_inngest_can_not_be_asked_is_told_and_logged_once_a_minute() -> None:
    one, logged = Reported(), []
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


def test_nobody_needs_to_be_told() -> None:
    figures = Figures()
    ConfirmationReport(figures).confirmed([entry(1, 0, 1.0)])
    assert figures.got[0] == ("count", "delivered", 1)
