"""Bugs of the confirmation, planted on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from service.inngest import held
from service.outbox.model import Settlement
from service.outbox.sqlite.confirmations import SqliteConfirmations
from service.outbox.sqlite.file.connection import SQL
from service.relay.settler import Settler
from service.relay.unconfirmed import Unconfirmed


def _resend_nothing() -> None:
    async def resend(self: SqliteConfirmations, seqs: Sequence[int], note: str) -> int:
        return len(seqs)

    SqliteConfirmations.resend = resend  # type: ignore[method-assign]


def _resend_into_nowhere() -> None:
    SQL["RESEND"] = "SELECT :seqs, :now, :note"


def _believe_every_answer() -> None:
    async def all_held(pages: object, wanted: Mapping[int, object]) -> set[int]:
        return set(wanted)

    held.find_held = all_held


def _take_an_answer_for_storage() -> None:
    settle = Settler.settle_answer

    async def settling(
        self: Settler, settlement: Settlement, environment: str | None, *, can_confirm: bool
    ) -> Settlement:
        return await settle(self, settlement, environment, can_confirm=False)

    Settler.settle_answer = settling  # type: ignore[method-assign]


def _never_recount_the_window() -> None:
    def recount(self: Unconfirmed, events: int) -> None:
        del self, events

    Unconfirmed.recount = recount  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "resend nothing": _resend_nothing,
    "resend into nowhere": _resend_into_nowhere,
    "believe every answer": _believe_every_answer,
    "take an answer for storage": _take_an_answer_for_storage,
    "never recount the window": _never_recount_the_window,
}
