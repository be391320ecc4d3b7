from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from inngest_outbox.console.operations.alarm import Alarm, Severity, alarms
from inngest_outbox.console.operations.key_needs import KeyNeeds
from inngest_outbox.console.operations.views import stats_view
from inngest_outbox.outbox.figures import Stats
from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.runs.figures import NameView


def found(
    *,
    oldest: float | None = None,
    state: str = "healthy",
    reason: str = "",
    paused_by: str | None = None,
    confirmation: str = "on",
    faults: tuple[str, ...] = (),
    keys: KeyNeeds | None = None,
    without_runs: tuple[NameView, ...] = (),
    limits: tuple[int, int] = (300, 3600),
    **counts: int,
) -> list[Alarm]:
    record = DeliveryRecord(
        state, reason, 1, 0, 0.0, 0, paused_by=paused_by, confirmation=confirmation
    )
    rows = {"pending": 0, "delivering": 0, "sent": 0, "delivered": 7, "dead": 0, **counts}
    ages = {"oldest_pending_seconds": 99_999.0, "oldest_due_seconds": oldest}  # one is delayed
    stats = Stats(**rows, **ages, delivery=record, database_bytes=0, wal_bytes=None)
    view = stats_view(stats, serving=True)
    most, critical = limits
    others = {"without_runs": without_runs, "keys": keys}
    return alarms(view, faults, max_age_seconds=most, critical_age_seconds=critical, **others)


@pytest.mark.parametrize("state", ["healthy", "recovering", "backing_off", "misconfigured"])
@pytest.mark.parametrize("paused_by", [None, "ada"])
def test_delivery_that_is_not_healthy_is_told_while_rows_wait(
    state: str, paused_by: str | None
) -> None:
    """Inngest's words, which may quote an event, are told to no other service."""
    critical = state == "misconfigured" and not paused_by
    key = "paused" if paused_by else state
    for reason, pending, delivering, sent in product(("", "HTTP 503"), (0, 5), (0, 2), (0, 4)):
        told = f"{pending + delivering} wait and delivery is {key}"
        said = " by ada" if paused_by else f" ({reason})" if reason else ""
        severity = Severity.CRITICAL if critical else Severity.WARNING
        is_alarm = critical or (key != "healthy" and pending + delivering > 0)
        rows = {"pending": pending, "delivering": delivering, "sent": sent}
        assert found(state=state, reason=reason, paused_by=paused_by, **rows) == (
            [Alarm(severity, key, told + said, told)] if is_alarm else []
        )


@pytest.mark.parametrize("limits", [(300, 3600), (300, 300), (3600, 300)])
def test_a_row_that_is_due_for_longer_than_a_limit_is_late(limits: tuple[int, int]) -> None:
    spoken = {300: "5 min", 300.5: "5 min", 3600: "1 h", 3600.5: "1 h"}
    for oldest in (None, 0.0, 300.0, 300.5, 3600.0, 3600.5):
        over = [oldest is not None and oldest > limit for limit in limits]
        severity, limit = (Severity.CRITICAL, limits[1]) if over[1] else (Severity.WARNING, 300)
        words = f"the oldest due row has waited {spoken.get(oldest)}, more than {spoken[limit]}"
        assert found(pending=1, oldest=oldest, limits=limits) == (
            [Alarm(severity, "late", words, words)] if any(over) else []
        )


NO_KEY = KeyNeeds((1,), 2, is_bounded=True)
KEY = KeyNeeds((1,), 0, is_bounded=True)
SILENT = NameView(name="a/b", expected=True, no_run_since=1_000)
NO_RUNS = "a/b starts no run since 1970-01-01 00:00:01 UTC (see `outbox explain a/b`)"
NO_ANSWER = "Inngest refuses INNGEST_SIGNING_KEY."


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"dead": 2_000}, "WARNING dead: 2000 dead (see `outbox list --state dead`)"),
        (
            {"pending": 2, "sent": 3, "confirmation": f"failing ({NO_ANSWER})"},
            f"WARNING not_confirmed: 3 sent and confirmation is failing ({NO_ANSWER})",
        ),
        ({"faults": ("Full.",)}, "CRITICAL not_stored: events can't be stored: Full."),
        ({"dead": 1, "keys": KEY}, "WARNING dead: 1 dead (see `outbox list --state dead`)"),
        ({"keys": NO_KEY}, f"WARNING no_key: {NO_KEY.fault}"),
        ({"without_runs": (SILENT,)}, f"WARNING no_runs a/b: {NO_RUNS}"),
    ],
)
def test_each_trouble_has_its_severity_its_key_and_its_words(
    given: dict[str, Any], told: str
) -> None:
    [alarm] = found(**given)
    assert f"{alarm.severity.name} {alarm.key}: {alarm.words}" == told


def test_severities_are_the_exit_codes_of_a_plugin_of_nagios() -> None:
    assert [(one.name, one.value) for one in Severity] == [
        ("OK", 0),
        ("WARNING", 1),
        ("CRITICAL", 2),
        ("UNKNOWN", 3),
    ]


@pytest.mark.parametrize(
    ("delivery", "key", "critical"),
    [
        ({"state": "misconfigured"}, "misconfigured", 4),
        ({"state": "backing_off"}, "backing_off", 3),
        ({"state": "recovering"}, "recovering", 3),
        ({"paused_by": "ada"}, "paused", 3),
    ],
)
def test_every_trouble_is_told(delivery: dict[str, Any], key: str, critical: int) -> None:
    rows = {"pending": 9, "dead": 1, "oldest": 4000.0, "confirmation": "failing (HTTP 401)"}
    others = {"faults": ("a", "b"), "keys": NO_KEY, "without_runs": (SILENT, SILENT)}
    given = found(**rows, **others, **delivery)
    told = ["not_stored", "not_stored", key, "not_confirmed", "late", "dead", "no_key"]
    assert [alarm.key for alarm in given] == [*told, "no_runs a/b", "no_runs a/b"]
    assert [alarm.severity for alarm in given].count(Severity.CRITICAL) == critical


def test_inngests_words_which_may_quote_an_event_are_told_to_no_other_service() -> None:
    for sent in (0, 4):
        words = f"{sent} sent and confirmation is failing"
        given = found(sent=sent, confirmation="failing (ada?)")
        assert given == [Alarm(Severity.WARNING, "not_confirmed", f"{words} (ada?)", words)]
