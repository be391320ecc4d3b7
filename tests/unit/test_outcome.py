"""What an answer means for events: each ends in exactly one place, for every answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.outbox.model import Batch, Entry
from service.relay.breaker import Signal
from service.relay.outcome import MAX_TROUBLES, Answer, BreakerView, classify, outcome


def entry(seq: int, attempts: int = 0, *, isolated: bool = False) -> Entry:
    return Entry(seq, f"e-{seq}", 0, "u-1", attempts=attempts, isolated=isolated)


def batch(*entries: Entry) -> Batch:
    return Batch("c", entries, b",".join(b"{}" for _ in entries))


BATCHES = st.one_of(
    st.builds(
        lambda attempts, isolated: batch(entry(1, attempts, isolated=isolated)),
        st.integers(0, 12),
        st.booleans(),
    ),
    st.integers(2, 8).map(lambda count: batch(*map(entry, range(count)))),
)
ANSWERS = st.builds(
    Answer,
    st.none() | st.sampled_from([200, 400, 401, 408, 413, 429, 500, 503]) | st.integers(100, 599),
    st.none() | st.lists(st.sampled_from(["", "01J"]), max_size=10).map(tuple),
    st.sampled_from(["", "bad event", "event keys are required", "x" * 5000]),
    st.none() | st.floats(0, 1e6),
    reached=st.booleans(),
)
KNOWN = st.builds(BreakerView, st.booleans(), st.booleans(), st.booleans())


@given(ANSWERS, BATCHES, KNOWN)
def test_every_event_ends_in_exactly_one_place(
    answer: Answer, batch: Batch, known: BreakerView
) -> None:
    settlement = outcome(answer, batch, known).settlement
    named = [
        *settlement.delivered,
        *(retry.seq for retry in settlement.retry),
        *(dead.seq for dead in settlement.dead),
    ]
    assert settlement.claim == batch.claim
    assert sorted(named) == [one.seq for one in batch.entries]


@given(ANSWERS, BATCHES, KNOWN)
def test_only_an_id_delivers(answer: Answer, batch: Batch, known: BreakerView) -> None:
    for seq in outcome(answer, batch, known).settlement.delivered:
        index = [one.seq for one in batch.entries].index(seq)
        assert answer.status in {200, 400}
        assert answer.ids is not None
        assert answer.ids[index]


@given(ANSWERS, BATCHES, KNOWN)
def test_only_an_answer_to_it_alone_ages_or_kills_an_event(
    answer: Answer, batch: Batch, known: BreakerView
) -> None:
    verdict = outcome(answer, batch, known)
    before = {one.seq: one.attempts for one in batch.entries}
    changed = [retry for retry in verdict.settlement.retry if retry.attempts != before[retry.seq]]
    assert all(retry.attempts == before[retry.seq] + 1 for retry in changed)
    if changed or verdict.settlement.dead:
        assert len(batch.entries) == 1
    if verdict.signal in {Signal.BUSY, Signal.MISCONFIGURED}:
        assert not changed
        assert not verdict.settlement.dead
    if verdict.signal is Signal.TROUBLE:
        assert not changed or known.convicted
        assert all(dead.attempts >= MAX_TROUBLES for dead in verdict.settlement.dead)
    for retry in verdict.settlement.retry:
        assert 0 <= retry.delay_seconds <= 5
        assert retry.note is None or len(retry.note) < 600


@given(ANSWERS, st.integers(1, 8))
def test_asking_for_time_is_never_held_against_an_event(answer: Answer, sent: int) -> None:
    signal = classify(answer, sent)
    if answer.status in {408, 425, 429}:
        assert signal is Signal.BUSY
    if answer.status is not None and answer.status >= 500 and answer.retry_after_seconds:
        assert signal in {Signal.BUSY, Signal.MISCONFIGURED}
