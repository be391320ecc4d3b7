"""The JSON of a row and of the figures, every field by its name; and how figures move."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from inngest_outbox.console.operations.views import StatsView, moved, row_view, stats_view
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.figures import Stats
from inngest_outbox.outbox.model import DeliveryRecord, Note, Row, State
from tests.support.made_row import made_row
from tests.support.memory_outbox import HEALTHY_DELIVERY

SENT, SETTLED = 1_795_559_419_500, 1_795_559_420_000


def as_json(view: msgspec.Struct) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(view), type=dict[str, Any])


def row(state: State) -> Row:
    return made_row(
        state,
        attempts=3,
        sends=4,
        isolated=True,
        first_sent_at_ms=SENT,
        settled_at_ms=SETTLED,
        due_in_seconds=1.5,
        lease_in_seconds=2.5,
        reason="rejected",
        detail="no name",
        history=(Note(SENT, "refused: no name"),),
        inngest_id="01KB08Z4Q0XW5M7T3Y8S000017",
        meta=Meta("order-1", "branch/a"),
    )


@pytest.mark.parametrize(
    ("state", "delivered_at", "dead_at"),
    [
        (State.PENDING, None, None),
        (State.SENT, None, None),
        (State.DELIVERED, SETTLED, None),
        (State.DEAD, None, SETTLED),
    ],
)
def test_a_row_has_every_field_and_the_time_of_its_end_under_the_name_of_its_state(
    state: State, delivered_at: int | None, dead_at: int | None
) -> None:
    assert as_json(row_view(row(state))) == {
        "id": "e-1",
        "inngestId": "01KB08Z4Q0XW5M7T3Y8S000017",
        "wireId": "order-1",
        "environment": "branch/a",
        "name": "documents/aws.index",
        "userId": "u-1",
        "state": str(state),
        "attempts": 3,
        "sends": 4,
        "isolated": True,
        "acceptedAt": 1_795_559_419_447,
        "firstSentAt": SENT,
        "deliveredAt": delivered_at,
        "deadAt": dead_at,
        "dueInSeconds": 1.5,
        "leaseInSeconds": 2.5,
        "reason": "rejected",
        "detail": "no name",
        "history": [{"at": SENT, "note": "refused: no name"}],
        "payloadBytes": 200,
    }


def test_an_id_that_the_service_chose_is_no_wire_id() -> None:
    view = row_view(msgspec.structs.replace(row(State.PENDING), meta=Meta("")))
    assert (view.wire_id, view.environment) == (None, None)


def record(**changes: Any) -> DeliveryRecord:
    given = {"destination": "cloud", "confirmation": "off (Inngest's cloud)", "rate": 4.0}
    base = DeliveryRecord("backing_off", "503 busy", 1, 2, 2.5, 0, **given)
    return msgspec.structs.replace(base, **changes)


def figures(delivery: DeliveryRecord, *, serving: bool | None = True) -> dict[str, Any]:
    stats = Stats(10, 0, 5, 1, 60.0, 30.0, delivery, 4096, 512, sent=0)
    return as_json(stats_view(stats, serving=serving))


def test_the_figures_have_every_field() -> None:
    assert figures(record()) == {
        "pending": 10,
        "delivering": 0,
        "sent": 0,
        "delivered": 5,
        "dead": 1,
        "oldestPendingSeconds": 60.0,
        "oldestDueSeconds": 30.0,
        "delivery": {"state": "backing_off", "reason": "503 busy", "reopensInSeconds": 2.5},
        "rate": 4.0,
        "etaSeconds": None,
        "destination": "cloud",
        "confirmation": "off (Inngest's cloud)",
        "databaseBytes": 4096,
        "walBytes": 512,
        "serving": True,
    }


def test_before_the_first_service_nothing_is_known_of_delivery() -> None:
    told = figures(record(destination="", confirmation="", reason=""), serving=None)
    assert told["delivery"]["reason"] is None
    assert (told["destination"], told["confirmation"], told["serving"]) == (None, None, None)


@pytest.mark.parametrize(
    ("state", "moves"),
    [("healthy", True), ("recovering", True), ("backing_off", False), ("misconfigured", False)],
)
@pytest.mark.parametrize("paused_by", [None, "ada"])
def test_the_estimate_is_nothing_while_nothing_moves(
    state: str, paused_by: str | None, *, moves: bool
) -> None:
    due_seconds, rates = (None, 0.0, 30.0), (0.0, 4.0)
    for pending, delivering, sent, due, rate in product((0, 2), (0, 3), (0, 5), due_seconds, rates):
        of = record(state=state, paused_by=paused_by, rate=rate)
        stats = Stats(pending, delivering, 9, 9, 60.0, due, of, 0, None, sent=sent)
        is_held = paused_by or not moves or not rate or (pending and due is None)
        waiting = pending + delivering + sent
        eta = None if is_held else {2: 0.5, 3: 0.8, 5: 1.2, 7: 1.8, 8: 2.0, 10: 2.5}.get(waiting)
        assert stats_view(stats, serving=True).eta_seconds == (eta if waiting else 0.0)


def test_a_pause_hides_the_breaker_and_says_who_and_why() -> None:
    states = ("healthy", "recovering", "backing_off", "misconfigured")
    words = (("", "paused by ada"), ("an upgrade", "paused by ada: an upgrade"))
    for state, (why, reason) in product(states, words):
        paused = record(state=state, paused_by="ada", pause_reason=why)
        delivery = figures(paused)["delivery"]
        assert delivery == {"state": "paused", "reason": reason, "reopensInSeconds": 2.5}


QUIET = stats_view(Stats(0, 0, 0, 0, None, None, HEALTHY_DELIVERY, 0, None), serving=True)


def seen(**changes: int) -> StatsView:
    return msgspec.structs.replace(QUIET, **changes)


def test_the_first_look_shows_no_movement() -> None:
    view = seen(pending=5, delivering=2, sent=3, delivered=4)
    for first in (moved(None, view, 9.0), moved(moved(None, QUIET, 0.0), view, 0.0)):
        assert (first.accepted_rate, first.delivered_rate) == (0.0, 0.0)
        assert first.view.waiting == 10


def test_rates_are_what_was_settled_and_what_came_on_top() -> None:
    first = moved(None, seen(pending=10, dead=2), 0.0)
    second = moved(first, seen(pending=6, delivering=2, delivered=7, dead=3), 2.0)
    assert second.delivered_rate == 3.5
    assert second.accepted_rate == 3.0
    replayed = moved(second, seen(pending=8, delivering=2, delivered=7, dead=1), 1.0)
    assert (replayed.accepted_rate, replayed.delivered_rate) == (0.0, 0.0)
    purged = moved(second, seen(delivered=3), 1.0)
    assert (purged.accepted_rate, purged.delivered_rate) == (0.0, 0.0)
