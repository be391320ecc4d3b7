"""What an answer says about the events that were sent: pure functions, no clock, no store.

The table is contract section 8; Inngest's ways are those of its Event API (pkg/api/api.go, v1.43):
a batch is taken in order up to the first event that is refused, and `ids` tells how many.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from service.outbox.model import Batch, Dead, Entry, Retry, Settlement
from service.relay.breaker import Signal

REFUSAL_DELAYS_SECONDS = (1.0, 3.0)
MAX_TROUBLES = 10
SUSPECT_DELAY_SECONDS = 0.5
MAX_SUSPECT_DELAY_SECONDS = 5.0
_WORDS = 500

_CONFIGURATION_STATUSES = frozenset({401, 403, 404, 405})
_BUSY_STATUSES = frozenset({408, 425, 429})
_BATCH_TOO_LARGE = 413
_OK = 200
_BAD_REQUEST = 400
_UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from one send.

    `status` is None when there was no HTTP answer, `ids` None when the body was not the API's,
    `reached` false when no connection could be made. `words` is the server's error or the fault's
    name, never a URL.
    """

    status: int | None
    ids: tuple[str, ...] | None = None
    words: str = ""
    retry_after_seconds: float | None = None
    skew_seconds: float | None = None
    reached: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to write into the rows, and what to tell the breaker."""

    settlement: Settlement
    signal: Signal
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BreakerView:
    """What the breaker knew when the answer came.

    `convicted`: this event's last trouble alone was its own (others passed before and after).
    `refusing`: everything is refused. `recovering`: smaller batches have just passed.
    """

    convicted: bool = False
    refusing: bool = False
    recovering: bool = False


def outcome(answer: Answer, batch: Batch, known: BreakerView) -> Outcome:
    """Each entry of `batch` ends in exactly one place of the settlement."""
    signal = classify(answer, len(batch.entries))
    if signal is Signal.PASSED:
        return _passed(answer, batch)
    if signal is Signal.REFUSED:
        return _refused(answer, batch, known)
    if signal is Signal.TOO_LARGE:
        return _too_large(answer, batch)
    reason = _reason(answer)
    retry = _unjudged(batch.entries)
    if signal is Signal.TROUBLE:
        if len(batch.entries) == 1:
            return _trouble_alone(batch, reason, known)
        if known.recovering:
            retry = [*retry[:-1], _suspected(batch.entries[-1])]
    return Outcome(Settlement(batch.claim, retry=retry), signal, reason)


def classify(answer: Answer, sent: int) -> Signal:
    """What the answer says about Inngest."""
    status = answer.status
    if status is None:
        return Signal.TROUBLE if answer.reached else Signal.BUSY
    if status == _OK and answer.ids is not None:
        return Signal.PASSED if any(answer.ids[:sent]) else Signal.TROUBLE
    if status == _BAD_REQUEST and answer.ids is not None:
        return Signal.REFUSED if _leading(answer.ids, sent) < sent else Signal.PASSED
    if status == _BATCH_TOO_LARGE:
        return Signal.TOO_LARGE
    redirect = 300 <= status < 400  # noqa: PLR2004
    keyless = status == _UNAVAILABLE and "event key" in answer.words.lower()
    if status in _CONFIGURATION_STATUSES or redirect or keyless:
        return Signal.MISCONFIGURED
    busy = status in _BUSY_STATUSES or answer.retry_after_seconds is not None
    return Signal.BUSY if busy else Signal.TROUBLE


def _passed(answer: Answer, batch: Batch) -> Outcome:
    ids = (answer.ids or ())[: len(batch.entries)]
    if len(ids) == len(batch.entries) and all(ids):
        return Outcome(
            Settlement(batch.claim, delivered=[entry.seq for entry in batch.entries]),
            Signal.PASSED,
        )
    taken = list(itertools.zip_longest(batch.entries, ids))
    return Outcome(
        Settlement(
            batch.claim,
            delivered=[entry.seq for entry, given in taken if given],
            retry=_unjudged([entry for entry, given in taken if not given]),
        ),
        Signal.PASSED,
    )


def _refused(answer: Answer, batch: Batch, known: BreakerView) -> Outcome:
    """400: the leading events were taken, the next one is suspected, the rest go on."""
    taken = _leading(answer.ids or (), len(batch.entries))
    suspect, rest = batch.entries[taken], batch.entries[taken + 1 :]
    delivered = [entry.seq for entry in batch.entries[:taken]]
    words = answer.words[:_WORDS]
    if len(batch.entries) == 1 and (suspect.isolated or not known.refusing):
        settlement = _verdict(batch.claim, suspect, words)
    else:
        note = f"suspected: {words}"
        accused = Retry(suspect.seq, 0.0, suspect.attempts, isolated=True, note=note)
        retry = [accused, *_unjudged(rest)]
        settlement = Settlement(batch.claim, delivered=delivered, retry=retry)
    return Outcome(settlement, Signal.PASSED if delivered else Signal.REFUSED, words)


def _verdict(claim: str, entry: Entry, words: str) -> Settlement:
    """An event sent alone was refused: again at 1 s and 3 s, then dead."""
    attempts = entry.attempts + 1
    if attempts > len(REFUSAL_DELAYS_SECONDS):
        return Settlement(claim, dead=[Dead(entry.seq, attempts, "rejected", words)])
    delay = REFUSAL_DELAYS_SECONDS[attempts - 1]
    retry = Retry(entry.seq, delay, attempts, isolated=True, note=f"refused: {words}")
    return Settlement(claim, retry=[retry])


def _too_large(answer: Answer, batch: Batch) -> Outcome:
    if len(batch.entries) > 1:
        settlement = Settlement(batch.claim, retry=_unjudged(batch.entries))
        return Outcome(settlement, Signal.TOO_LARGE, "413")
    entry = batch.entries[0]
    words = answer.words[:_WORDS] or "Inngest takes no event of this size."
    dead = Dead(entry.seq, entry.attempts + 1, "too_large", words)
    return Outcome(Settlement(batch.claim, dead=[dead]), Signal.PASSED, "413")


def _trouble_alone(batch: Batch, reason: str, known: BreakerView) -> Outcome:
    """Trouble with one event: it asks alone from now on, and pays only for its own trouble."""
    entry = batch.entries[0]
    attempts = entry.attempts + known.convicted
    if attempts >= MAX_TROUBLES:
        dead = Dead(entry.seq, attempts, "undeliverable", reason)
        return Outcome(Settlement(batch.claim, dead=[dead]), Signal.TROUBLE, reason)
    delay = min(SUSPECT_DELAY_SECONDS * 2**attempts, MAX_SUSPECT_DELAY_SECONDS)
    note = f"trouble: {reason}" if known.convicted else None
    retry = Retry(entry.seq, delay, attempts, isolated=True, note=note)
    return Outcome(Settlement(batch.claim, retry=[retry]), Signal.TROUBLE, reason)


def _suspected(entry: Entry) -> Retry:
    """The newest of a batch that failed after smaller ones passed.

    The oldest asks alone next in any case; the two ends close in on an event that fails its batch.
    """
    return Retry(entry.seq, 0.0, entry.attempts, isolated=True)


def _unjudged(entries: Sequence[Entry]) -> list[Retry]:
    """Due again at once, with nothing held against them."""
    return [Retry(entry.seq, 0.0, entry.attempts, entry.isolated) for entry in entries]


def _leading(ids: Sequence[str], sent: int) -> int:
    """How many leading events were taken."""
    return sum(1 for _ in itertools.takewhile(bool, ids[:sent]))


def _reason(answer: Answer) -> str:
    if answer.status is None:
        return answer.words[:_WORDS]
    return f"{answer.status} {answer.words[:_WORDS]}".strip()
