from __future__ import annotations

from typing import Any

import pytest

from service.console.operations.alarm import Alarm, Severity, alarms
from service.console.operations.key_needs import KeyNeeds
from service.console.operations.views import stats_view
from service.outbox.figures import Stats
from service.outbox.model import DeliveryRecord
from service.runs.figures import NameView


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
    **counts: int,
) -> list[Alarm]:
    record = DeliveryRecord(
        state, reason, 1, 0, 0.0, 0, paused_by=paused_by, confirmation=confirmation
    )
    rows = {"pending": 0, "delivering": 0, "sent": 0, "delivered": 7, "dead": 0, **counts}
    ages = {"oldest_pending_seconds": 99_999.0, "oldest_due_seconds": oldest}  # one is delayed
    stats = Stats(**rows, **ages, delivery=record, database_bytes=0, wal_bytes=None)
    view = stats_view(stats, serving=True)
    others = {"without_runs": without_runs, "keys": keys}
    return alarms(view, faults, max_age_seconds=300, critical_age_seconds=3600, **others)


@pytest.mark.parametrize("state", ["healthy", "backing_off", "recovering"])
def test_nothing_is_wrong_while_nothing_waits(state: str) -> None:
    assert found(state=state) == []
    assert found(state=state, paused_by="ada") == []


def test_a_row_at_its_limit_is_not_late_and_a_key_that_is_there_no_trouble() -> None:
    assert found(pending=1, oldest=300.0) == []
    assert found(keys=KeyNeeds((1,), 0, is_bounded=True)) == []


NO_KEY = KeyNeeds((1,), 2, is_bounded=True)
SILENT = NameView(name="a/b", expected=True, no_run_since=1_000)
NO_RUNS = "a/b starts no run since 1970-01-01 00:00:01 UTC (see `outbox explain a/b`)"
LATE = "the oldest due row has waited"
NO_ANSWER = "Inngest refuses INNGEST_SIGNING_KEY."


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"pending": 1, "oldest": 300.5}, f"WARNING late: {LATE} 5 min, more than 5 min"),
        ({"pending": 1, "oldest": 3600.0}, f"WARNING late: {LATE} 1 h, more than 5 min"),
        ({"pending": 1, "oldest": 3600.5}, f"CRITICAL late: {LATE} 1 h, more than 1 h"),
        ({"dead": 2_000}, "WARNING dead: 2000 dead (see `outbox list --state dead`)"),
        (
            {"pending": 5, "state": "backing_off", "reason": "HTTP 503"},
            "WARNING backing_off: 5 wait and delivery is backing_off (HTTP 503)",
        ),
        (
            {"pending": 1, "delivering": 2, "sent": 4, "state": "recovering"},
            "WARNING recovering: 3 wait and delivery is recovering",
        ),
        (
            {"delivering": 1, "sent": 2, "state": "misconfigured", "paused_by": "ada"},
            "WARNING paused: 1 wait and delivery is paused by ada",
        ),
        (
            {"sent": 2, "state": "misconfigured", "reason": "HTTP 401"},
            "CRITICAL misconfigured: 0 wait and delivery is misconfigured (HTTP 401)",
        ),
        (
            {"pending": 2, "sent": 3, "confirmation": f"failing ({NO_ANSWER})"},
            f"WARNING not_confirmed: 3 sent and confirmation is failing ({NO_ANSWER})",
        ),
        ({"faults": ("Full.",)}, "CRITICAL not_stored: events can't be stored: Full."),
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
    for state in ("backing_off", "recovering", "misconfigured"):
        given = found(pending=5, state=state, reason="ada?", confirmation="failing (ada?)")
        assert all("ada?" in one.words for one in given)
        told = [f"5 wait and delivery is {state}", "0 sent and confirmation is failing"]
        assert [one.told for one in given] == told
    [paused] = found(pending=5, paused_by="ada")
    assert paused.told == "5 wait and delivery is paused"
