"""Bugs that are planted on purpose, so that the simulation is seen to find them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.outbox.clock import wall_now_ms
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import IdempotencyKey
from service.outbox.receipt import Receipt
from service.outbox.sqlite.confirmations import SqliteConfirmations
from service.outbox.sqlite.intake import SqliteIntake
from service.outbox.sqlite.quota import StoredCounts
from service.relay import confirmer


def _answer_before_the_commit() -> None:
    append = SqliteIntake.append

    async def answering(self: SqliteIntake, event: Any, **named: Any) -> Receipt:
        late = asyncio.create_task(append(self, event, **named))
        late.add_done_callback(lambda done: done.cancelled() or done.exception())
        return Receipt(event.id, 0, wall_now_ms(), InngestIds(bytes(6)))

    SqliteIntake.append = answering  # type: ignore[method-assign]


def _forget_keys() -> None:
    append = SqliteIntake.append

    async def forgetting(
        self: SqliteIntake, event: Any, *, key: IdempotencyKey | None = None, **named: Any
    ) -> Receipt:
        del key
        return await append(self, event, **named)

    SqliteIntake.append = forgetting  # type: ignore[method-assign,assignment]


def _resend_nothing() -> None:
    async def resend(self: SqliteConfirmations, seqs: Sequence[int], note: str) -> int:
        del self, note
        return len(seqs)

    SqliteConfirmations.resend = resend  # type: ignore[method-assign]


def _believe_every_answer() -> None:
    async def all_held(pages: object, wanted: Mapping[int, object]) -> set[int]:
        del pages
        return set(wanted)

    confirmer.find_held = all_held  # type: ignore[attr-defined]


def _give_no_room_back() -> None:
    def left(self: StoredCounts, owner: str, count: int = 1) -> None:
        del self, owner, count

    StoredCounts.left = left  # type: ignore[method-assign]


PLANTED: dict[str, Callable[[], None]] = {
    "answer before the commit": _answer_before_the_commit,
    "forget keys": _forget_keys,
    "resend nothing": _resend_nothing,
    "believe every answer": _believe_every_answer,
    "give no room back": _give_no_room_back,
}
