"""The ULIDs of rows, and requests whose seed gives them."""

from __future__ import annotations

import itertools
import json

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from inngest_outbox.dev.fake_inngest.ulids import request_ulids, ulids
from inngest_outbox.inngest.delivery_request import (
    SeedCheck,
    UndividableError,
    parts_of,
    requests_of,
    with_ids,
)
from inngest_outbox.inngest.send_result import SendResult
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.inngest_id import (
    SEED_HEADER,
    SLOT_MS,
    InngestIds,
    consecutive_runs,
    decode_ulid,
    encode_ulid,
    seed,
)
from inngest_outbox.outbox.model import Batch, Entry

NUMBERS = st.integers(0, (1 << 128) - 1)
PREFIXES = st.binary(min_size=6, max_size=6)
SEQS = st.integers(1, (1 << 62) - 5_000)
TIMES = st.integers(1_577_836_800_000, 4_102_444_800_000)


@given(NUMBERS)
def test_a_ulid_is_written_as_the_server_writes_it_and_read_back(number):
    assert encode_ulid(number) == ulids(number, 1)[0]
    assert decode_ulid(encode_ulid(number)) == number


ZEROS = "0" * 25


@pytest.mark.parametrize(
    "text", ["", ZEROS, f"{ZEROS}00", f"8{ZEROS}", f"I{ZEROS}", f"{ZEROS}a", f"{ZEROS}é"]
)
def test_a_text_that_is_no_ulid_is_refused(text):
    with pytest.raises(ValueError, match="ULID"):
        decode_ulid(text)


@given(PREFIXES, SEQS, TIMES, st.integers(1, 500))
def test_the_server_gives_the_rows_of_a_seeded_request_their_ids(prefix, first, at_ms, count):
    ids = InngestIds(prefix)
    numbers = [ids.number(seq, at_ms) for seq in range(first, first + count)]
    for run in consecutive_runs(numbers):
        answered = request_ulids(seed(numbers[run.start]), len(run), 0)
        assert answered == [encode_ulid(numbers[at]) for at in run]


@given(PREFIXES, st.lists(st.tuples(SEQS, TIMES), max_size=60))
def test_any_subset_of_rows_is_sent_again_under_the_same_ids(prefix, rows):
    ids = InngestIds(prefix)
    numbers = sorted(ids.number(seq, at_ms) for seq, at_ms in rows)
    again = [
        one
        for run in consecutive_runs(numbers)
        for one in request_ulids(seed(numbers[run.start]), len(run), 0)
    ]
    assert again == [encode_ulid(number) for number in numbers]


@given(PREFIXES, SEQS, TIMES)
def test_the_time_of_an_id_is_the_end_of_the_slot_in_which_it_was_accepted_or_due(
    prefix, seq, at_ms
):
    ids = InngestIds(prefix)
    number = ids.number(seq, at_ms)
    assert 0 < (number >> 80) - at_ms <= SLOT_MS
    assert (number >> 80) % SLOT_MS == 0
    assert ids.ulid(seq, at_ms) == encode_ulid(number)
    delayed = ids.number(seq, at_ms, Meta(due_at_ms=at_ms + 60_000))
    assert delayed == ids.number(seq, at_ms + 60_000)
    assert ids.number(seq, at_ms, Meta(due_at_ms=at_ms - 60_000)) == number


@given(PREFIXES, TIMES)
def test_rows_of_one_request_follow_each_other_but_for_the_end_of_the_counter(prefix, at_ms):
    ids = InngestIds(prefix)
    numbers = [ids.number(seq, at_ms) for seq in range((1 << 32) - 2, (1 << 32) + 2)]
    assert [len(run) for run in consecutive_runs(numbers)] == [2, 2]
    assert consecutive_runs([]) == []


def test_a_row_has_the_same_id_for_ever_and_a_moved_one_keeps_what_it_brought():
    ids = InngestIds(bytes(range(250, 256)))
    assert ids.ulid((1 << 32) + 1023, 1_795_559_419_447) == "01M87TWVPGZBXZSZFYZW0000ZZ"
    moved = Meta(moved_id=encode_ulid(7 << 90))
    assert (ids.ulid(1, 0, moved), ids.number(1, 0, moved)) == (moved.moved_id, 7 << 90)


def test_a_row_keeps_the_prefix_of_the_time_in_which_it_was_numbered():
    ids = InngestIds(b"latest", 20, ((10, b"middle"), (0, b"oldest")))
    found = (0, b"oldest"), (9, b"oldest"), (10, b"middle"), (19, b"middle"), (20, b"latest")
    for seq, prefix in (*found, (1 << 40, b"latest")):
        assert ids.of(seq) == InngestIds(prefix)
        assert ids.ulid(seq, 0) == InngestIds(prefix).ulid(seq, 0)
        assert ids.number(seq, 0) == InngestIds(prefix).number(seq, 0)


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
    batch = Batch("claim", (*rows, named, entry(4)), b'{"n":1},{"n":2},{"n":3},{"id":"e4"}')
    first, second = (b'"id":"%b",' % IDS.ulid(seq, 0).encode() for seq in (1, 2))
    for ids, *fronts in ((IDS, first, second), (None, b"", b"")):
        sent = b'{%b"n":1},{%b"n":2},{"id":"mine","n":3},{"id":"e4"}' % tuple(fronts)
        assert with_ids(batch, ids) == msgspec.structs.replace(batch, payloads=sent)


@pytest.mark.parametrize("payloads", [b'{"a": 1},{"b": ', b"{},{},{}", b"{}", b"[" * 9000])
def test_payloads_that_are_not_one_for_each_row_are_not_divided(payloads: bytes) -> None:
    rows = Batch("claim", (entry(1), entry(2)), payloads)
    with pytest.raises(UndividableError):
        parts_of(rows, [[0], [1]])


def test_events_of_different_traces_leave_in_one_request_without_their_traces():
    rows = [Entry(seq, f"e{seq}", 0, "u-1", meta=Meta(trace=f"00-{seq}-1-01")) for seq in range(4)]
    [request] = requests_of(batch_of(rows), IDS)
    assert (request.headers.keys(), request.batch.entries) == ({SEED_HEADER}, tuple(rows))


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
    both = [(7, OTHERS[0]), (8, OTHERS[1])]
    assert SeedCheck(IDS).answered(BATCH, SendResult(200, OTHERS)) == both
    half = SendResult(400, (OTHERS[0], ""), "the second one is bad")
    assert SeedCheck(IDS).answered(BATCH, half) == both[:1]
    assert SeedCheck(None).answered(BATCH, SendResult(200, OTHERS)) == []  # any id will do


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
