"""The meaning of an answer for each event that was sent: pure functions, no clock, no store.

The Event API (pkg/api/api.go, v1.43) takes a batch in order up to the first event that it refuses,
and `ids` says how many. Each event gets exactly one outcome, and only an answer to an event sent
alone counts against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inngest_outbox.inngest.delivery_request import can_be_read
from inngest_outbox.inngest.send_result import (
    MAX_WORDS,
    SendResult,
    Signal,
    classify,
    count_taken,
    judged_an_event,
    may_be_the_events_own,
)
from inngest_outbox.outbox.figures import SOON_MS
from inngest_outbox.outbox.model import Batch, Dead, Entry, Retry, Settlement
from inngest_outbox.relay.sends import BreakerView


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The knobs of `outcome`.

    An event that Inngest refuses is sent again after each of `refusal_delays_seconds`, then dead.
    An isolated event that fails is sent again after `isolated_delay_seconds`, doubled each time
    up to `max_isolated_delay_seconds`; after `max_attempts` counted attempts it is dead.

    A request that fails while others pass is sent once more unchanged, if chance may be the cause,
    then in two halves: when half of all requests fail, more parts would fail faster than they
    pass. If its answer took `slow_seconds`, it is sent in `slow_parts` at once.
    """

    refusal_delays_seconds: tuple[float, ...] = (1.0, 3.0)
    isolated_delay_seconds: float = 0.1
    max_isolated_delay_seconds: float = SOON_MS / 1000
    max_attempts: int = 10
    slow_seconds: float = 1.0
    slow_parts: int = 8

    def isolated_delay(self, times: int) -> float:
        """Seconds until an isolated event that was sent so often before is sent again.

        >>> [RetryPolicy().isolated_delay(times) for times in (0, 1, 9)]
        [0.1, 0.2, 5.0]
        """
        doubled = self.isolated_delay_seconds * float(1 << min(times, 16))
        return min(doubled, self.max_isolated_delay_seconds)

    def parts(self, seconds: float, *, chance: bool) -> int:
        """The number of parts for a request that failed after `seconds`; `chance` may be the cause.

        >>> [RetryPolicy().parts(0.1, chance=chance) for chance in (True, False)]
        [1, 2]
        >>> RetryPolicy().parts(10.0, chance=True)
        8
        """
        if seconds >= self.slow_seconds:
            return self.slow_parts
        return 1 if chance else 2


_NO_WORDS = "Inngest takes no event of this size."


@dataclass(frozen=True, slots=True)
class Outcome:
    """The settlement of the rows, and those to send again at once.

    Rows that Inngest took are `delivered` in it; the settler makes them sent where Inngest can be
    asked. `again` are positions in the batch, each range one request. `failed` says that they
    failed.
    """

    settlement: Settlement
    signal: Signal
    reason: str = ""
    again: tuple[range, ...] = ()
    failed: bool = False


def outcome(
    result: SendResult, batch: Batch, view: BreakerView, policy: RetryPolicy, *, parts: int
) -> Outcome:
    """The outcome of one request.

    A failed request is sent again in `parts`; 1 repeats it unchanged.
    """
    signal = classify(result, len(batch.entries))
    if judged_an_event(result, len(batch.entries)):
        return _judged(result, batch, view, policy)
    if signal is Signal.PASSED:
        return _passed(result, batch)
    if len(batch.entries) == 1:
        return _failed_alone(signal, result, batch, view, policy, once_more=parts == 1)
    if not view.resend or (view.narrow and result.hung):
        # The narrow claims send each alone, many side by side.
        settlement = Settlement(batch.claim, retry=due_again(batch.entries))
        return Outcome(settlement, signal, result.reason)
    parts = max(parts, 2) if signal is Signal.TOO_LARGE else parts
    again = tuple(_divided(len(batch.entries), parts))
    return Outcome(Settlement(batch.claim), signal, result.reason, again, failed=True)


def due_again(
    entries: Sequence[Entry], *, isolated: bool = False, delay_seconds: float = 0.0
) -> list[Retry]:
    """Due again after a delay, without a counted attempt; with `isolated` each is sent alone."""
    return [
        Retry(entry.seq, delay_seconds, entry.attempts, isolated or entry.isolated)
        for entry in entries
    ]


def _passed(result: SendResult, batch: Batch) -> Outcome:
    ids = (result.ids or ())[: len(batch.entries)]
    given = [*ids, *[""] * (len(batch.entries) - len(ids))]
    taken = [entry.seq for entry, one in zip(batch.entries, given, strict=True) if one]
    left = [entry for entry, one in zip(batch.entries, given, strict=True) if not one]
    settlement = Settlement(batch.claim, delivered=taken, retry=due_again(left))
    return Outcome(settlement, Signal.PASSED)


def _judged(result: SendResult, batch: Batch, view: BreakerView, policy: RetryPolicy) -> Outcome:
    """400: the leading events were taken, the next one is isolated, the rest are sent again."""
    words = result.words[:MAX_WORDS]
    sent = len(batch.entries)
    if sent == 1:
        settlement = _refused(batch, words, view, policy)
        return Outcome(settlement, Signal.REFUSED, words)
    taken = count_taken(result.ids or (), sent)
    bad = batch.entries[taken]
    note = f"suspected: {words}"
    retry = [Retry(bad.seq, 0.0, bad.attempts, isolated=True, note=note)]
    again: tuple[range, ...] = ()
    if view.resend and taken + 1 < sent:
        again = (range(taken + 1, sent),)
    else:
        retry += due_again(batch.entries[taken + 1 :])
    delivered = [entry.seq for entry in batch.entries[:taken]]
    settlement = Settlement(batch.claim, delivered=delivered, retry=retry)
    return Outcome(settlement, Signal.PASSED if taken else Signal.REFUSED, words, again)


def _failed_alone(
    signal: Signal,
    result: SendResult,
    batch: Batch,
    view: BreakerView,
    policy: RetryPolicy,
    *,
    once_more: bool,
) -> Outcome:
    """One event failed: it is isolated. The attempt counts only if the event is confirmed bad."""
    reason = result.reason
    if signal is Signal.TOO_LARGE:
        settlement = _too_large(result, batch, view, policy)
    elif view.resend and once_more and not batch.entries[0].isolated:
        again = (range(1),)
        return Outcome(Settlement(batch.claim), signal, reason, again, failed=True)
    else:
        counts = view.confirmed_bad and may_be_the_events_own(result)
        settlement = _retry_alone(batch, "undeliverable", reason, view, policy, counts=counts)
    return Outcome(settlement, signal, reason)


def _too_large(
    result: SendResult, batch: Batch, view: BreakerView, policy: RetryPolicy
) -> Settlement:
    """413 refuses an event that is larger than what passes; else it is a failure."""
    [entry] = batch.entries
    words = result.words[:MAX_WORDS] or _NO_WORDS
    if view.confirmed_bad and len(batch.payloads) > view.passed_size:
        dead = Dead(entry.seq, entry.attempts + 1, "too_large", words)
        return Settlement(batch.claim, dead=[dead])
    counts = view.confirmed_bad
    return _retry_alone(batch, "too_large", words, view, policy, counts=counts)


def _refused(batch: Batch, words: str, view: BreakerView, policy: RetryPolicy) -> Settlement:
    """One event was refused: send it again after each delay, then it is dead."""
    [entry] = batch.entries
    delays = policy.refusal_delays_seconds
    if view.refusing and not view.confirmed_bad:
        delay = policy.isolated_delay(entry.sends)
        retry = Retry(entry.seq, delay, entry.attempts, isolated=True)
        return Settlement(batch.claim, retry=[retry])
    attempts = entry.attempts + 1
    if view.refusals >= len(delays):
        code = "rejected" if can_be_read(batch.payloads) else "payload_damaged"
        return Settlement(batch.claim, dead=[Dead(entry.seq, attempts, code, words)])
    delay = delays[view.refusals]
    retry = Retry(entry.seq, delay, attempts, isolated=True, note=f"refused: {words}")
    return Settlement(batch.claim, retry=[retry])


def _retry_alone(
    batch: Batch,
    code: str,
    words: str,
    view: BreakerView,
    policy: RetryPolicy,
    *,
    counts: bool,
) -> Settlement:
    """Send again later and alone; with `counts` the attempt counts, and the last makes it dead.

    Refusals are attempts too, but not failures.
    """
    [entry] = batch.entries
    attempts = entry.attempts + counts
    if counts and attempts - view.refusals >= policy.max_attempts:
        return Settlement(batch.claim, dead=[Dead(entry.seq, attempts, code, words)])
    note = f"failed alone: {words}" if counts else None
    delay = policy.isolated_delay(entry.sends)
    retry = Retry(entry.seq, delay, attempts, isolated=True, note=note)
    return Settlement(batch.claim, retry=[retry])


def _divided(count: int, parts: int) -> list[range]:
    """At most `parts` ranges of about the same length.

    >>> _divided(10, 4)
    [range(0, 3), range(3, 6), range(6, 9), range(9, 10)]
    """
    step = -(-count // parts)
    return [range(first, min(first + step, count)) for first in range(0, count, step)]
