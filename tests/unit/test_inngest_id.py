"""Inngest's ids are derived as the server derives them from a seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dev.fake_inngest.ulids import request_ulids, ulids
from service.outbox.event import Meta
from service.outbox.inngest_id import (
    SLOT_MS,
    InngestIds,
    consecutive_runs,
    decode_ulid,
    encode_ulid,
    seed,
)

NUMBERS = st.integers(0, (1 << 128) - 1)
PREFIXES = st.binary(min_size=6, max_size=6)
SEQS = st.integers(1, (1 << 62) - 5_000)
TIMES = st.integers(1_577_836_800_000, 4_102_444_800_000)


@given(NUMBERS)
def test_a_ulid_is_written_as_the_server_writes_it_and_read_back(number):
    assert encode_ulid(number) == ulids(number, 1)[0]
    assert decode_ulid(encode_ulid(number)) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 25,
        "0" * 27,
        "8" + "0" * 25,
        "I" + "0" * 25,
        "0" * 25 + "a",
        "0" * 25 + "é",
    ],
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
def test_the_time_of_an_id_is_the_end_of_the_slot_of_its_acceptance(prefix, seq, at_ms):
    ids = InngestIds(prefix)
    time_ms = ids.number(seq, at_ms) >> 80
    assert 0 < time_ms - at_ms <= SLOT_MS
    assert time_ms % SLOT_MS == 0


@given(PREFIXES, SEQS, TIMES)
def test_a_delayed_event_counts_from_its_due_time(prefix, seq, at_ms):
    ids = InngestIds(prefix)
    delayed = ids.number(seq, at_ms, Meta(due_at_ms=at_ms + 60_000))
    assert delayed == ids.number(seq, at_ms + 60_000)
    assert ids.number(seq, at_ms, Meta(due_at_ms=at_ms - 60_000)) == ids.number(seq, at_ms)


@given(PREFIXES, TIMES)
def test_rows_of_one_request_follow_each_other_but_for_the_end_of_the_counter(prefix, at_ms):
    ids = InngestIds(prefix)
    numbers = [ids.number(seq, at_ms) for seq in range((1 << 32) - 2, (1 << 32) + 2)]
    assert [len(run) for run in consecutive_runs(numbers)] == [2, 2]


def test_no_rows_make_no_request():
    assert consecutive_runs([]) == []


@given(PREFIXES, SEQS, TIMES)
def test_the_text_of_a_row_s_id_is_that_of_its_number(prefix, seq, at_ms):
    ids = InngestIds(prefix)
    assert ids.ulid(seq, at_ms) == encode_ulid(ids.number(seq, at_ms))


def test_a_moved_row_keeps_the_id_that_it_brought():
    ids = InngestIds(bytes(6))
    moved = Meta(moved_id=encode_ulid(7 << 90))
    assert (ids.ulid(1, 0, moved), ids.number(1, 0, moved)) == (moved.moved_id, 7 << 90)


def test_a_row_has_the_same_id_for_ever():
    ids = InngestIds(bytes(range(250, 256)))
    assert ids.ulid((1 << 32) + 1023, 1_795_559_419_447) == "01M87TWVPGZBXZSZFYZW0000ZZ"
