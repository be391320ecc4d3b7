from __future__ import annotations

import pytest

from service.console.operations.alarm import Alarm, Severity, alarms
from service.console.operations.views import stats_view
from service.outbox.figures import Stats
from service.outbox.model import DeliveryRecord


def found(
    *,
    pending: int = 0,
    dead: int = 0,
    oldest: float | None = None,
    state: str | None = "healthy",
    reason: str = "",
    paused_by: str | None = None,
    confirmation: str = "on",
    faults: tuple[str, ...] = (),
) -> list[Alarm]:
    delivery = state and DeliveryRecord(
        state, reason, 1, 0, 0.0, 0, paused_by=paused_by, confirmation=confirmation
    )
    stats = Stats(
        pending=pending,
        delivering=0,
        delivered=7,
        dead=dead,
        oldest_pending_seconds=oldest,
        oldest_due_seconds=oldest,
        delivery=delivery or None,
        database_bytes=None,
        wal_bytes=None,
    )
    view = stats_view(stats, serving=True)
    return alarms(view, faults, max_age_seconds=300, critical_age_seconds=3600)


@pytest.mark.parametrize("state", ["healthy", "backing_off", "recovering", None])
def test_nothing_is_wrong_while_nothing_waits(state: str | None) -> None:
    assert found(state=state) == []


@pytest.mark.parametrize(
    ("given", "severity", "words"),
    [
        ({"pending": 1, "oldest": 301.0}, Severity.WARNING, "has waited 5 min, more than 5 min"),
        ({"pending": 1, "oldest": 3601.0}, Severity.CRITICAL, "has waited 1 h, more than 1 h"),
        ({"dead": 2}, Severity.WARNING, "2 dead"),
        (
            {"pending": 5, "oldest": 1.0, "state": "backing_off", "reason": "HTTP 503"},
            Severity.WARNING,
            "5 wait and delivery is backing_off (HTTP 503)",
        ),
        (
            {"pending": 1, "oldest": 1.0, "state": "recovering"},
            Severity.WARNING,
            "1 wait and delivery is recovering",
        ),
        (
            {"pending": 1, "oldest": 1.0, "paused_by": "ada"},
            Severity.WARNING,
            "delivery is paused by ada",
        ),
        (
            {"pending": 5000, "oldest": 1.0, "state": "misconfigured", "reason": "HTTP 401"},
            Severity.CRITICAL,
            "5000 wait and delivery is misconfigured (HTTP 401)",
        ),
        (
            {"state": "misconfigured", "reason": "HTTP 401"},
            Severity.CRITICAL,
            "0 wait and delivery is misconfigured (HTTP 401)",
        ),
        (
            {"confirmation": "failing (Inngest refuses INNGEST_SIGNING_KEY.)"},
            Severity.WARNING,
            "confirmation is failing (Inngest refuses INNGEST_SIGNING_KEY.)",
        ),
        (
            {"faults": ("The disk is full.",)},
            Severity.CRITICAL,
            "stored: The disk is full",
        ),
    ],
)
def test_each_trouble_has_its_severity_and_its_words(
    given: dict[str, object], severity: Severity, words: str
) -> None:
    [alarm] = found(**given)  # type: ignore[arg-type]
    assert alarm.severity is severity
    assert words in alarm.words


def test_a_row_at_its_limit_is_not_late() -> None:
    assert found(pending=1, oldest=300.0) == []
    [alarm] = found(pending=1, oldest=3600.0)
    assert alarm.severity is Severity.WARNING


def test_every_trouble_is_told() -> None:
    given = found(pending=9, dead=1, oldest=4000.0, state="misconfigured", faults=("a", "b"))
    assert [alarm.severity for alarm in given].count(Severity.CRITICAL) == 4
    assert [alarm.severity for alarm in given].count(Severity.WARNING) == 1


def test_inngests_words_which_may_quote_an_event_are_told_to_no_other_service() -> None:
    given = found(pending=5, state="backing_off", reason="ada?", confirmation="failing (ada?)")
    assert len(given) == 2
    assert all("ada?" in one.words and "ada?" not in one.told for one in given)
