"""Rows wait for a confirmation only where Inngest gave them their ULIDs."""

from __future__ import annotations

import pytest

from service.outbox.inngest_id import InngestIds
from service.outbox.model import Batch, Entry
from service.relay.seed_check import SeedCheck
from service.relay.send_result import SendResult

IDS = InngestIds(b"prefix")
BATCH = Batch("claim", (Entry(7, "e7", 0, "u-1"), Entry(8, "e8", 0, "u-1")), b"{},{}")
OURS = (IDS.ulid(7, 0), IDS.ulid(8, 0))
OTHERS = ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW")


@pytest.mark.parametrize(
    ("result", "honoured"),
    [
        (SendResult(200, OURS), True),
        (SendResult(400, OURS[:1], "the second one is bad"), True),
        (SendResult(200, OTHERS), False),
        (SendResult(400, ("",), "the first one is bad"), True),
        (SendResult(200, ()), True),
        (SendResult(None, None, "timeout"), True),
    ],
)
def test_other_ids_than_the_rows_have_are_noticed(result, honoured):
    assert SeedCheck(IDS).is_honoured(BATCH, result) is honoured


def test_without_seeds_any_id_will_do():
    assert SeedCheck(None).is_honoured(BATCH, SendResult(200, OTHERS))
