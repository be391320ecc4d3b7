from __future__ import annotations

import pytest

from inngest_outbox.dev.fake_inngest.events import WireEvent
from inngest_outbox.dev.fake_inngest.ledger import Ledger
from inngest_outbox.dev.fake_inngest.ulids import ulids
from tests.support.clock import Clock


def event(event_id: str, raw: bytes = b"{}") -> WireEvent:
    return WireEvent(event_id, "a", 0, b"null", raw)


def test_an_event_without_id_is_known_by_the_id_that_the_server_gave():
    ledger = Ledger()
    ledger.accept([event(""), event("")], ["s1", "s2"])
    assert list(ledger.ids) == ["s1", "s2"]


def test_an_event_without_ts_has_the_receive_time():
    ledger = Ledger(clock=Clock())
    ledger.accept([event("one")], ["s"])
    assert ledger.kept()[0].ts == 1_000_000


@pytest.mark.parametrize("bounds", [{"max_bodies": 2}, {"max_body_bytes": 20}])
def test_old_bodies_are_forgotten_but_no_id_is(bounds):
    ledger = Ledger(**bounds)
    for n in range(5):
        ledger.accept([event(f"e{n}", b"0123456789")], ["s"])
    assert [arrival.id for arrival in ledger.kept()] == ["e3", "e4"]
    assert ledger.stats.ids == 5
    assert [ledger.times(name) for name in ("e0", "e4", "e9")] == [1, 1, 0]


async def test_a_wait_in_vain_says_what_arrived():
    ledger = Ledger()
    ledger.accept([event("one")], ["s"])
    with pytest.raises(TimeoutError, match="arrivals=1"):
        await ledger.wait_for_ids(2, timeout_seconds=0.01)


def test_ulids_count_up_over_the_edges_of_their_last_characters():
    start = (1 << 80) - 1_500
    ids = ulids(start, 3_000)
    assert len(set(ids)) == 3_000
    assert ids == sorted(ids)
    assert ids[1_500:1_502] == ["00000000010000000000000000", "00000000010000000000000001"]
