"""Rows wait for a confirmation only where Inngest gave them their ULIDs."""

from __future__ import annotations

import pytest
import structlog

from service.inngest.delivery_request import SeedCheck
from service.inngest.send_result import SendResult
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Batch, Entry

IDS = InngestIds(b"prefix")
BATCH = Batch("claim", (Entry(7, "e7", 0, "u-1"), Entry(8, "e8", 0, "u-1")), b"{},{}")
OURS = (IDS.ulid(7, 0), IDS.ulid(8, 0))
OTHERS = ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW")


@pytest.mark.parametrize(
    "result",
    [
        SendResult(200, OURS),
        SendResult(400, OURS[:1], "the second one is bad"),
        SendResult(400, ("",), "the first one is bad"),
        SendResult(200, ()),
        SendResult(None, None, "timeout"),
    ],
)
def test_an_answer_with_the_ids_of_the_rows_is_as_asked_for(result):
    assert SeedCheck(IDS).answered(BATCH, result) == []


def test_other_ids_than_the_rows_have_are_kept_for_the_events_that_were_taken():
    seqs = [entry.seq for entry in BATCH.entries]
    assert SeedCheck(IDS).answered(BATCH, SendResult(200, OTHERS)) == list(
        zip(seqs, OTHERS, strict=True)
    )
    half = SendResult(400, (OTHERS[0], ""), "the second one is bad")
    assert SeedCheck(IDS).answered(BATCH, half) == [(seqs[0], OTHERS[0])]


def test_a_server_that_ignores_seeds_is_logged_once_a_minute():
    clock = [0.0]
    check = SeedCheck(IDS, clock=lambda: clock[0])
    logged = []
    with structlog.testing.capture_logs() as told:
        for clock[0] in (0.0, 59.5, 60.0, 60.5, 61.0, 120.5, 121.0):
            check.answered(BATCH, SendResult(200, OTHERS))
            logged.append(len(told))
    assert logged == [1, 1, 1, 2, 2, 2, 3]
    said = {"event": "inngest_ignores_seeds", "log_level": "error", "event_id": "e7"}
    assert told == [said] * 3


def test_without_seeds_any_id_will_do():
    assert SeedCheck(None).answered(BATCH, SendResult(200, OTHERS)) == []
