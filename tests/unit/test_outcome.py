"""What an answer means for events: each ends in exactly one place, for every answer."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inngest_outbox.inngest.send_result import SendResult, Signal, classify
from inngest_outbox.outbox.model import Batch, Dead, Entry, Retry, Settlement
from inngest_outbox.relay.outcome import Outcome, RetryPolicy, due_again, outcome
from inngest_outbox.relay.sends import BreakerView

POLICY = RetryPolicy()
PASSING = BreakerView(passed_size=1000)
TROUBLED = BreakerView(resend=False)
CONFIRMED = BreakerView(confirmed_bad=True, passed_size=1000)


def entry(seq: int, attempts: int = 0, *, isolated: bool = False, sends: int = 0) -> Entry:
    return Entry(seq, f"e-{seq}", 0, "u-1", attempts=attempts, isolated=isolated, sends=sends)


def batch(*entries: Entry, size: int = 2) -> Batch:
    return Batch("c", entries, b",".join(b"x" * size for _ in entries))


def lone(attempts: int = 0, *, isolated: bool = True, size: int = 2, sends: int = 0) -> Batch:
    return batch(entry(0, attempts, isolated=isolated, sends=sends), size=size)


def many(count: int = 4) -> Batch:
    return batch(*map(entry, range(count)))


def judged(
    result: SendResult, sent: Batch, view: BreakerView = PASSING, *, parts: int = 2
) -> Outcome:
    return outcome(result, sent, view, POLICY, parts=parts)


def refused(taken: int = 0) -> SendResult:
    return SendResult(400, (*["01J"] * taken, ""), "bad name")


BATCHES = st.one_of(
    st.builds(lone, st.integers(0, 12), isolated=st.booleans(), size=st.integers(1, 2000)),
    st.integers(2, 8).map(many),
)
RESULTS = st.builds(
    SendResult,
    st.none() | st.sampled_from([200, 400, 401, 408, 413, 429, 500, 503]) | st.integers(100, 599),
    st.none() | st.lists(st.sampled_from(["", "01J"]), max_size=10).map(tuple),
    st.sampled_from(["", "bad event", "event keys are required", "x" * 5000]),
    st.none() | st.floats(0, 1e6),
    reached=st.booleans(),
)
VIEWS = st.builds(
    BreakerView,
    resend=st.booleans(),
    refusing=st.booleans(),
    confirmed_bad=st.booleans(),
    refusals=st.integers(0, 3),
    passed_size=st.integers(0, 2000),
)
PARTS = st.sampled_from([1, 2, 8])


@given(RESULTS, BATCHES, VIEWS, PARTS)
def test_every_event_ends_in_exactly_one_place(
    result: SendResult, sent: Batch, view: BreakerView, parts: int
) -> None:
    done = judged(result, sent, view, parts=parts)
    settlement = done.settlement
    named = [
        *settlement.delivered,
        *(retry.seq for retry in settlement.retry),
        *(dead.seq for dead in settlement.dead),
        *(sent.entries[at].seq for part in done.again for at in part),
    ]
    assert settlement.claim == sent.claim
    assert sorted(named) == [one.seq for one in sent.entries]
    assert view.resend or not done.again


@given(RESULTS, BATCHES, VIEWS)
def test_only_an_id_delivers(result: SendResult, sent: Batch, view: BreakerView) -> None:
    for seq in judged(result, sent, view).settlement.delivered:
        index = [one.seq for one in sent.entries].index(seq)
        assert result.status in {200, 400}
        assert result.ids is not None
        assert result.ids[index]


@given(RESULTS, BATCHES, VIEWS)
def test_only_an_answer_to_it_alone_is_held_against_an_event(
    result: SendResult, sent: Batch, view: BreakerView
) -> None:
    done = judged(result, sent, view)
    before = {one.seq: one.attempts for one in sent.entries}
    changed = [retry for retry in done.settlement.retry if retry.attempts != before[retry.seq]]
    assert all(retry.attempts == before[retry.seq] + 1 for retry in changed)
    if changed or done.settlement.dead:
        assert len(sent.entries) == 1
        assert view.confirmed_bad or done.signal is Signal.REFUSED
        assert done.signal is not Signal.UNREACHED
    for retry in done.settlement.retry:
        assert 0 <= retry.delay_seconds <= 5
        assert retry.note is None or len(retry.note) < 600
    assert all(len(dead.detail) <= len("500 ") + 500 for dead in done.settlement.dead)


@pytest.mark.parametrize(
    ("result", "signal"),
    [
        (SendResult(200, ("a", "b")), Signal.PASSED),
        (SendResult(200, ("", "b")), Signal.PASSED),
        (SendResult(200, ()), Signal.TROUBLE),
        (SendResult(200, ("", "", "c")), Signal.TROUBLE),
        (SendResult(200, None), Signal.TROUBLE),
        (SendResult(204, None), Signal.TROUBLE),
        (SendResult(400, ("a", "")), Signal.PASSED),
        (SendResult(400, ("",)), Signal.REFUSED),
        (SendResult(400, None), Signal.TROUBLE),
        (SendResult(413, None), Signal.TOO_LARGE),
        *(
            (SendResult(status), Signal.MISCONFIGURED)
            for status in (401, 403, 404, 405, 300, 302, 399)
        ),
        (SendResult(299), Signal.TROUBLE),
        (SendResult(500, (), "Event Keys are required"), Signal.TROUBLE),
        (SendResult(503, (), "Event Keys are required"), Signal.MISCONFIGURED),
        *((SendResult(status), Signal.BUSY) for status in (408, 425, 429)),
        (SendResult(500, retry_after_seconds=0.0), Signal.BUSY),
        *((SendResult(status), Signal.TROUBLE) for status in (406, 500, 502, 503, 504)),
        (SendResult(None, words="timeout"), Signal.TROUBLE),
        (SendResult(None, words="refused", reached=False), Signal.UNREACHED),
    ],
)
def test_each_answer_is_a_signal(result: SendResult, signal: Signal) -> None:
    assert classify(result, 2) is signal


def test_events_without_an_id_stay_and_are_due_now() -> None:
    done = judged(SendResult(200, ("a", "", "c")), many())
    retry = [Retry(seq, 0.0, 0, isolated=False) for seq in (1, 3)]
    assert done == Outcome(Settlement("c", delivered=[0, 2], retry=retry), Signal.PASSED)
    more_ids = judged(SendResult(200, ("a", "b", "c")), many(2))
    assert (more_ids.settlement.delivered, more_ids.settlement.retry) == ([0, 1], [])
    assert judged(SendResult(200, ("", "", "c")), many(2)).signal is Signal.TROUBLE


def test_a_refusal_settles_what_was_taken_isolates_the_next_and_the_rest_goes_at_once() -> None:
    done = judged(refused(taken=1), many())
    assert done.settlement.delivered == [0]
    assert done.settlement.retry == [Retry(1, 0.0, 0, isolated=True, note="suspected: bad name")]
    assert (done.again, done.failed, done.reason) == ((range(2, 4),), False, "bad name")
    assert judged(refused(), many()).signal is Signal.REFUSED
    assert judged(refused(taken=2), many()).again == (range(3, 4),)
    everything = judged(SendResult(400, ("01J",) * 4), many()).settlement
    assert (len(everything.delivered), everything.retry) == (4, [])
    last = judged(refused(taken=3), many())
    assert (last.again, last.signal) == ((), Signal.PASSED)
    put_back = judged(refused(taken=1), many(), TROUBLED)
    assert [retry.seq for retry in put_back.settlement.retry] == [1, 2, 3]
    assert not put_back.again


@pytest.mark.parametrize("isolated", [True, False])
def test_a_refusal_alone_is_tried_after_1_and_3_seconds_then_dead(*, isolated: bool) -> None:
    delays = []
    for refusals in range(2):
        view = BreakerView(refusals=refusals)
        [retry] = judged(refused(), lone(refusals, isolated=isolated), view).settlement.retry
        assert (retry.attempts, retry.isolated) == (refusals + 1, True)
        assert retry.note == "refused: bad name"
        delays.append(retry.delay_seconds)
    assert delays == [1.0, 3.0]
    for reason, payloads in {
        "rejected": [b'{"data": {"a": "\xff"}}', b"{} ", b"[]"],
        "payload_damaged": [b"", b'{"a": 1', b"{}}", b"{},{}", bytes(9), b"\xff{}", b"[" * 9000],
    }.items():
        for payload in payloads:
            sent = msgspec.structs.replace(lone(2), payloads=payload)
            last = judged(refused(), sent, BreakerView(refusals=2))
            assert (last.signal, last.reason) == (Signal.REFUSED, "bad name")
            assert last.settlement.dead == [Dead(0, 3, reason, "bad name")]


def test_troubles_and_refusals_are_counted_apart() -> None:
    [retry] = judged(refused(), lone(9), BreakerView(refusals=0)).settlement.retry
    assert (retry.attempts, retry.delay_seconds) == (10, 1.0)
    view = BreakerView(confirmed_bad=True, refusals=2)
    [retry] = judged(SendResult(500), lone(10), view).settlement.retry
    assert retry.attempts == 11


def test_while_every_event_is_refused_a_refusal_counts_only_for_one_that_is_confirmed() -> None:
    refusing = BreakerView(resend=False, refusing=True, refusals=2)
    [retry] = judged(refused(), lone(2, sends=3), refusing).settlement.retry
    assert retry == Retry(0, 0.8, 2, isolated=True)
    confirmed = BreakerView(resend=False, refusing=True, refusals=2, confirmed_bad=True)
    assert judged(refused(), lone(2), confirmed).settlement.dead


FAILURES = [SendResult(status) for status in (302, 403, 408, 429, 500, 503)]


@pytest.mark.parametrize("result", [*FAILURES, SendResult(None, words="timeout")], ids=str)
def test_a_batch_that_fails_beside_others_goes_again_in_parts(result: SendResult) -> None:
    signal, reason, put_back = classify(result, 4), result.reason, due_again(many().entries)
    halves = range(2), range(2, 4)
    done = judged(result, many(), parts=2)
    assert done == Outcome(Settlement("c"), signal, reason, halves, failed=True)
    assert judged(result, many(), parts=1).again == (range(4),)
    done = judged(result, many(), TROUBLED)
    assert done == Outcome(Settlement("c", retry=put_back), signal, reason)


def test_a_batch_that_is_too_large_is_always_halved() -> None:
    assert judged(SendResult(413), many(6), parts=1).again == (range(3), range(3, 6))
    assert judged(SendResult(413), many(), TROUBLED).settlement.retry


def test_what_is_put_back_stays_isolated_or_becomes_so() -> None:
    entries = [entry(0, 1), entry(1, 2, isolated=True)]
    assert [retry.isolated for retry in due_again(entries)] == [False, True]
    assert [retry.isolated for retry in due_again(entries, isolated=True)] == [True, True]
    assert [retry.attempts for retry in due_again(entries)] == [1, 2]


@pytest.mark.parametrize("result", FAILURES, ids=str)
def test_an_event_that_fails_alone_pays_only_for_what_is_confirmed(result: SendResult) -> None:
    once_more = judged(result, lone(isolated=False), parts=1)
    signal, reason = classify(result, 1), result.reason
    assert once_more == Outcome(Settlement("c"), signal, reason, (range(1),), failed=True)
    later = Outcome(Settlement("c", retry=[Retry(0, 0.1, 0, isolated=True)]), signal, reason)
    assert judged(result, lone(isolated=False), parts=2) == later
    assert judged(result, lone(), parts=1) == later
    [counted] = judged(result, lone(2, sends=3), CONFIRMED).settlement.retry
    assert (counted.attempts, counted.delay_seconds) == (3, 0.8)
    assert counted.note == f"failed alone: {result.status}"
    [ninth] = judged(result, lone(8, sends=9), CONFIRMED).settlement.retry
    assert (ninth.attempts, ninth.delay_seconds) == (9, 5.0)
    dead = Settlement("c", dead=[Dead(0, 10, "undeliverable", reason)])
    assert judged(result, lone(9), CONFIRMED) == Outcome(dead, signal, reason)
    assert judged(result, lone(12)).settlement.retry


@pytest.mark.parametrize(
    ("result", "attempts", "then"),
    [
        # No connection and no id are never an event's fault.
        (SendResult(None, words="refused", reached=False), 9, 9),
        (SendResult(200, ("",)), 9, 9),
        # A page of a gateway and an error with ids may be.
        (SendResult(200, None), 0, 1),
        (SendResult(500, ("",)), 0, 1),
    ],
)
def test_only_an_answer_that_may_be_an_events_fault_counts_as_its_attempt(
    result: SendResult, attempts: int, then: int
) -> None:
    [retry] = judged(result, lone(attempts), CONFIRMED).settlement.retry
    assert (retry.attempts, retry.isolated) == (then, True)


def test_an_event_larger_than_what_passes_dies_and_a_smaller_one_is_tried_ten_times() -> None:
    large = SendResult(413, None, "")
    [retry] = judged(large, lone(size=1001)).settlement.retry
    assert (retry.attempts, retry.isolated) == (0, True)
    [dead] = judged(large, lone(size=1001), CONFIRMED).settlement.dead
    assert (dead.reason, dead.attempts) == ("too_large", 1)
    assert dead.detail == "Inngest takes no event of this size."
    [counted] = judged(large, lone(size=1000), CONFIRMED).settlement.retry
    assert counted.attempts == 1
    assert counted.note == "failed alone: Inngest takes no event of this size."
    [dead] = judged(large, lone(9, size=1000), CONFIRMED).settlement.dead
    assert (dead.reason, dead.attempts) == ("too_large", 10)


def test_words_are_cut() -> None:
    [retry] = judged(SendResult(400, ("",), "x" * 5000), lone()).settlement.retry
    assert retry.note == f"refused: {'x' * 500}"
    assert len(SendResult(500, None, "x" * 5000).reason) == 504
    too_large = SendResult(413, None, "y" * 5000)
    [dead] = judged(too_large, lone(size=1001), CONFIRMED).settlement.dead
    assert dead.detail == "y" * 500


def test_a_slow_failure_is_sent_in_many_parts_and_a_quick_one_once_more_or_in_halves() -> None:
    assert POLICY.parts(POLICY.slow_seconds, chance=True) == POLICY.slow_parts
    assert POLICY.parts(0.99, chance=True) == 1
    assert POLICY.parts(0.99, chance=False) == 2
