from __future__ import annotations

import msgspec
import pytest

from service.console.operations.explain import explain, explain_name, spoken_time
from service.outbox.model import DeliveryRecord, Row, State
from service.runs.figures import NameView

NOW = 1_795_559_419_447
HOUR_MS = 3_600_000
OPEN = DeliveryRecord("healthy", "", 500, 0, 0.0, 0)
CLOSED = DeliveryRecord("backing_off", "503 busy", 1, 4, 2.1, 0)


def row(state: State = State.PENDING, **changes: object) -> Row:
    plain = Row(
        id="e-1",
        name="documents/aws.index",
        owner="u-1",
        user_id="u-1",
        state=state,
        attempts=0,
        sends=0,
        isolated=False,
        accepted_at_ms=NOW - 5000,
        first_sent_at_ms=None,
        settled_at_ms=None,
        due_in_seconds=0.0 if state is State.PENDING else None,
        lease_in_seconds=None,
        reason=None,
        detail=None,
        history=(),
        payload_bytes=400,
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.mark.parametrize(
    ("given", "delivery", "words"),
    [
        (row(), OPEN, ["next batch"]),
        (row(), None, ["next batch"]),
        (row(), CLOSED, ["503 busy", "2.1 s", "one event is tried"]),
        (
            row(),
            msgspec.structs.replace(CLOSED, state="misconfigured", reason="401 not found"),
            ["our configuration", "401 not found"],
        ),
        (
            row(),
            msgspec.structs.replace(CLOSED, state="recovering", window=8),
            ["recovers", "8 at a time"],
        ),
        (
            row(),
            msgspec.structs.replace(CLOSED, paused_by="ada"),
            ["paused by ada", "outbox resume"],
        ),
        (
            row(due_in_seconds=2.5, isolated=True, history=({"at": 1, "note": "refused: no"},)),
            OPEN,
            ["in 2.5 s", "alone", "refused: no"],
        ),
        (row(due_in_seconds=2.5, sends=1), OPEN, ["it is sent again in 2.5 s"]),
        (row(due_in_seconds=2.5), OPEN, ["it is sent in 2.5 s"]),
        (row(State.DEAD, settled_at_ms=NOW, attempts=2), OPEN, ["after 2 attempts, at"]),
        (row(State.DEAD, settled_at_ms=NOW, attempts=1), OPEN, ["at its only attempt, at"]),
        (row(isolated=True), OPEN, ["alone", "its turn"]),
        (
            row(State.DELIVERING, lease_in_seconds=31.0),
            OPEN,
            ["being sent", "due again in 31 s"],
        ),
        (
            row(State.DELIVERED, settled_at_ms=NOW, sends=2),
            OPEN,
            ["took it", "5 s after", "send 2"],
        ),
        (row(State.SENT), OPEN, ["is asked until it holds the event"]),
        (
            row(
                State.DEAD, settled_at_ms=NOW, attempts=3, reason="rejected", detail="name missing"
            ),
            OPEN,
            ["refused it", "name missing", "after 3 attempts", "outbox replay e-1", "discard"],
        ),
        (
            row(State.DEAD, settled_at_ms=NOW, attempts=1, reason="too_large", detail="413"),
            OPEN,
            ["of this size", "its only attempt"],
        ),
    ],
)
def test_a_row_says_why_it_is_where_it_is(
    given: Row, delivery: DeliveryRecord | None, words: list[str]
) -> None:
    sentence = explain(given, delivery, now_ms=NOW, serving=True)
    assert sentence.startswith(f"{given.state}: ")
    assert sentence.endswith(".")
    for expected in words:
        assert expected in sentence


@pytest.mark.parametrize("state", [State.PENDING, State.DELIVERING])
def test_without_a_service_a_row_waits_for_one(state: State) -> None:
    sentence = explain(row(state), CLOSED, now_ms=NOW, serving=False)
    assert "service" in sentence
    assert "starts" in sentence
    assert "503" not in sentence


@pytest.mark.parametrize("state", [State.PENDING, State.DELIVERING, State.DEAD])
def test_a_row_that_may_have_left_long_ago_says_that_it_may_run_twice(state: State) -> None:
    old = row(state, first_sent_at_ms=NOW - 26 * HOUR_MS)
    assert "second time" not in explain(row(state), OPEN, now_ms=NOW)
    sentence = explain(old, OPEN, now_ms=NOW)
    assert "1.1 d ago" in sentence
    assert "second time" in sentence


@pytest.mark.parametrize(
    ("state", "hours"), [(State.DEAD, 23), (State.DELIVERED, 26), (State.SENT, 26)]
)
def test_a_row_that_left_within_the_day_or_is_done_says_nothing_of_it(
    state: State, hours: int
) -> None:
    fresh = row(state, first_sent_at_ms=NOW - hours * HOUR_MS)
    assert "second time" not in explain(fresh, OPEN, now_ms=NOW)


@pytest.mark.parametrize("state", [State.DEAD, State.PENDING])
def test_a_page_with_buttons_names_no_command(state: State) -> None:
    paused = msgspec.structs.replace(OPEN, paused_by="ada")
    assert "`outbox " in explain(row(state), paused, now_ms=NOW)
    assert "`outbox " not in explain(row(state), paused, now_ms=NOW, commands=False)


@pytest.mark.parametrize(("dead", "words"), [(1, "1 is dead: "), (2000, "2,000 are dead: ")])
def test_a_name_says_how_many_of_its_events_are_dead(dead: int, words: str) -> None:
    for sampled in (0, 1):
        view = NameView(name="orders/placed", expected=False, dead=dead, sampled=sampled)
        assert explain_name(view.name, view, OPEN, serving=True)[-1].startswith(words)


def test_a_name_that_misses_its_runs_says_since_when() -> None:
    later = NOW + HOUR_MS
    view = NameView(name="orders/placed", expected=True, no_run_since=NOW, last_run_at=later)
    words = " ".join(explain_name(view.name, view, OPEN, serving=True))
    assert f"No event since {spoken_time(NOW)} has a run, and it should" in words
