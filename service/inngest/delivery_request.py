"""The requests of one delivery: which events leave together, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.inngest.seeded import SeededRequest, parts_of, seeded_requests
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Batch


@dataclass(frozen=True, slots=True)
class DeliveryRequest:
    """`again` says that these events failed, `repeated` that exactly this request did."""

    sent: SeededRequest
    again: bool
    repeated: bool = False

    @property
    def batch(self) -> Batch:
        """The rows of the request."""
        return self.sent.batch


def requests_of(
    batch: Batch, ids: InngestIds | None, *, again: bool = False
) -> list[DeliveryRequest]:
    """The requests that deliver `batch`. Raises UndividableError."""
    return [DeliveryRequest(one, again) for one in seeded_requests(batch, ids)]


def requests_again(
    request: DeliveryRequest,
    positions: Sequence[Sequence[int]],
    ids: InngestIds | None,
    *,
    again: bool,
) -> list[DeliveryRequest]:
    """The requests that deliver these parts of `request`. Raises UndividableError."""
    batch = request.batch
    if tuple(positions) == (range(len(batch.entries)),):
        return [DeliveryRequest(request.sent, again, repeated=True)]
    parts = parts_of(batch, positions)
    return [one for part in parts for one in requests_of(part, ids, again=again)]


def rows_of(batch: Batch, positions: Sequence[Sequence[int]]) -> Batch:
    """These rows, under the same claim, without their payloads."""
    entries = tuple(batch.entries[at] for part in positions for at in part)
    return Batch(batch.claim, entries, b"")
