"""Bugs of claims, sends, settlements and the breaker, planted on purpose."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import msgspec

from service.inngest import delivery_request
from service.inngest.send_result import SendResult, Signal
from service.outbox.model import Batch, Dead, Entry, Retry, Settlement
from service.outbox.sqlite import claims, queue
from service.relay import batch_delivery, breaker_result, outcome, settler
from service.relay.breaker_result import view
from service.relay.outcome import RetryPolicy
from service.relay.sends import BreakerView


def _take_one_row_more_than_is_held() -> None:
    claim = claims.SqliteClaims._claim

    def taking(
        self: claims.SqliteClaims, connection: sqlite3.Connection, request: Any, now: int
    ) -> Batch | None:
        batch = claim(self, connection, request, now)
        if batch and len(batch.entries) > 1:
            last = batch.entries[-1].seq
            connection.execute("DELETE FROM outbox_claims WHERE seq = ?", (last,))
        return batch

    claims.SqliteClaims._claim = taking  # type: ignore[method-assign]


def _settle_without_retries() -> None:
    moves = queue._moves

    def moving(item: Settlement, now: int) -> Any:
        return moves(msgspec.structs.replace(item, retry=()), now)

    queue._moves = moving


def _take_all_for_taken(change: Callable[[Settlement, Batch], Settlement]) -> None:
    judged = outcome._judged

    def judging(
        result: SendResult, batch: Batch, view: BreakerView, policy: RetryPolicy
    ) -> outcome.Outcome:
        done = judged(result, batch, view, policy)
        if len(batch.entries) == 1:
            return done
        return outcome.Outcome(change(done.settlement, batch), Signal.PASSED)

    outcome._judged = judging


def _believe_that_a_refused_batch_was_taken() -> None:
    def all_taken(settlement: Settlement, batch: Batch) -> Settlement:
        return Settlement(settlement.claim, delivered=[one.seq for one in batch.entries])

    _take_all_for_taken(all_taken)


def _bury_the_neighbour_of_a_bad_event() -> None:
    def beside(settlement: Settlement, batch: Batch) -> Settlement:
        dead = Dead(batch.entries[-1].seq, 1, "rejected", "beside a bad one")
        rest = [Retry(one.seq, 0.0, one.attempts, isolated=True) for one in batch.entries[:-1]]
        return Settlement(settlement.claim, retry=rest, dead=[dead])

    _take_all_for_taken(beside)


def _send_without_a_seed() -> None:
    mock.patch.object(delivery_request, "seed", return_value=None).start()


def _hear_no_good_news() -> None:
    def passed(breaker: Any, answered: Any, permit: Any, now: float) -> Any:
        return breaker

    breaker_result._passed = passed


def _put_back_with_an_attempt() -> None:
    put_back = outcome.due_again

    def counting(entries: Sequence[Entry], **named: Any) -> list[Retry]:
        retries = put_back(entries, **named)
        return [msgspec.structs.replace(one, attempts=one.attempts + 1) for one in retries]

    for module in (outcome, settler):
        mock.patch.object(module, "due_again", counting).start()


def _blame_whatever_fails_alone() -> None:
    def blaming(*given: Any) -> BreakerView:
        return replace(view(*given), confirmed_bad=True)

    mock.patch.object(batch_delivery, "view", blaming).start()


def _wait_for_ever_after_a_failure() -> None:
    RetryPolicy.isolated_delay = lambda self, times: 1e6  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "take one row more than is held": _take_one_row_more_than_is_held,
    "settle without retries": _settle_without_retries,
    "believe that a refused batch was taken": _believe_that_a_refused_batch_was_taken,
    "bury the neighbour of a bad event": _bury_the_neighbour_of_a_bad_event,
    "send without a seed": _send_without_a_seed,
    "hear no good news": _hear_no_good_news,
    "put back with an attempt": _put_back_with_an_attempt,
    "blame whatever fails alone": _blame_whatever_fails_alone,
    "wait for ever after a failure": _wait_for_ever_after_a_failure,
}
