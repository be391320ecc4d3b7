"""A claimed batch is divided so that each event gets the ULID of its row; others are noticed."""

from __future__ import annotations

import itertools
import json

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from service.dev.fake_inngest.ulids import request_ulids
from service.inngest.delivery_request import (
    SeedCheck,
    UndividableError,
    parts_of,
    requests_of,
    with_ids,
)
from service.inngest.send_result import SendResult
from service.outbox.event import Meta
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Batch, Entry

IDS = InngestIds(b"prefix")
MOVED = IDS.ulid(7_000_000, 0)


def batch_of(entries: list[Entry]) -> Batch:
    payloads = [json.dumps({"id": entry.event_id, "text": "a,b[]"}).encode() for entry in entries]
    return Batch("claim", tuple(entries), b",".join(payloads))


def entry(
    seq: int, at_ms: int = 0, inngest_id: str | None = None, environment: str | None = None
) -> Entry:
    return Entry(
        seq, f"e{seq}", at_ms, "u-1", meta=Meta(environment=environment, moved_id=inngest_id)
    )


ENTRIES = st.lists(
    st.builds(
        entry,
        st.integers(1, 60),
        st.sampled_from([0, 299_999, 300_000]),
        st.sampled_from([None, None, None, MOVED]),
        st.sampled_from([None, None, "branch", "other"]),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda one: one.seq,
)


@given(ENTRIES)
def test_every_event_leaves_once_in_order_and_gets_the_ulid_of_its_row(entries):
    sent: list[str] = []
    for request in requests_of(batch_of(entries), IDS):
        events = json.loads(b"[%b]" % request.batch.payloads)
        assert [event["id"] for event in events] == [e.event_id for e in request.batch.entries]
        assert {one.meta.environment for one in request.batch.entries} == {request.environment}
        given_ids = request_ulids(request.seed, len(events), 0)
        for one, ulid in zip(request.batch.entries, given_ids, strict=True):
            assert ulid == IDS.ulid(one.seq, one.accepted_at_ms, one.meta)
        sent += [event["id"] for event in events]
        assert request.batch.claim == "claim"
    assert sent == [one.event_id for one in entries]


@given(ENTRIES)
def test_without_seeds_a_request_ends_only_where_the_environment_changes(entries):
    requests = requests_of(batch_of(entries), None)
    parts = [list(group) for _, group in itertools.groupby(entries, lambda e: e.meta.environment)]
    assert [list(request.batch.entries) for request in requests] == parts
    assert {request.seed for request in requests} == {None}


def test_consecutive_rows_are_one_request_with_the_bytes_as_they_are():
    batch = batch_of([entry(seq) for seq in range(5, 105)])
    [request] = requests_of(batch, IDS)
    assert request.batch is batch


def test_a_payload_without_an_id_leaves_with_the_ulid_of_its_row_in_front():
    rows = tuple(Entry(seq, f"e{seq}", 0, "u-1", meta=Meta(wire_id="")) for seq in (1, 2))
    named = Entry(3, "e3", 0, "u-1", meta=Meta(wire_id="mine"))
    batch = Batch("claim", (*rows, named), b'{"name":"a"},{"name":"b"},{"name":"c"}')
    sent = with_ids(batch, IDS)
    first, second = (IDS.ulid(seq, 0).encode() for seq in (1, 2))
    assert sent.payloads == (
        b'{"id":"%b","name":"a"},{"id":"%b","name":"b"},{"id":"mine","name":"c"}' % (first, second)
    )


@pytest.mark.parametrize("payloads", [b'{"a": 1},{"b": ', b"{},{},{}", b"{}"])
def test_payloads_that_are_not_one_for_each_row_are_not_divided(payloads: bytes) -> None:
    rows = Batch("claim", (entry(1), entry(2)), payloads)
    with pytest.raises(UndividableError):
        parts_of(rows, [[0], [1]])


def test_the_trace_of_a_post_reaches_inngest_with_its_events_alone():
    traces = [None, "00-a-1-01", "00-a-1-01", "00-b-2-01"]
    rows = [Entry(seq, f"e{seq}", 0, "u-1", meta=Meta(trace=one)) for seq, one in enumerate(traces)]
    requests = requests_of(batch_of(rows), IDS)
    assert [
        (request.headers.get("traceparent"), len(request.batch.entries)) for request in requests
    ] == [
        (None, 1),
        ("00-a-1-01", 2),
        ("00-b-2-01", 1),
    ]


BATCH = Batch("claim", (Entry(7, "e7", 0, "u-1"), Entry(8, "e8", 0, "u-1")), b"{},{}")
OURS = (IDS.ulid(7, 0), IDS.ulid(8, 0))
OTHERS = ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW")


@pytest.mark.parametrize(
    "result",
    [
        SendResult(200, OURS),
        SendResult(400, OURS[:1], "the second one is bad"),
        SendResult(400, ("",), "the first one is bad"),
        SendResult(400, ("", OTHERS[1]), "the first one is bad"),
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
