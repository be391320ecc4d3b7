"""Divides a claimed batch into requests, so that each event gets the ULID of its row.

Inngest counts ULIDs up from a request's seed, so a request has rows with consecutive ULIDs only.
Together the requests have every row of the batch once, in order.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from service.outbox.inngest_id import InngestIds, consecutive_runs, seed
from service.outbox.model import Batch

_split_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class SeededRequest(msgspec.Struct, frozen=True, gc=False):
    """A part of a batch, under its claim, and the seed header of its request."""

    batch: Batch
    seed: str


def seeded_requests(batch: Batch, ids: InngestIds) -> list[SeededRequest]:
    """The requests that deliver `batch`, oldest rows first."""
    numbers = [
        ids.number(entry.seq, entry.accepted_at_ms, entry.inngest_id) for entry in batch.entries
    ]
    runs = consecutive_runs(numbers)
    if len(runs) == 1:
        return [SeededRequest(batch, seed(numbers[0]))]
    parts = zip(runs, parts_of(batch, runs), strict=True)
    return [SeededRequest(part, seed(numbers[run[0]])) for run, part in parts]


def parts_of(batch: Batch, positions: Sequence[Sequence[int]]) -> list[Batch]:
    """For each sequence of `positions` a batch of those rows, under the same claim."""
    payloads = _split_array(b"[%b]" % batch.payloads)
    return [
        Batch(
            batch.claim,
            tuple(batch.entries[at] for at in part),
            b",".join(bytes(payloads[at]) for at in part),
        )
        for part in positions
    ]
