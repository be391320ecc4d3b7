"""Divides a claimed batch into requests, so that each event gets the ULID of its row.

Inngest counts ULIDs up from a request's seed, so a request has rows with consecutive ULIDs only,
all for one environment. Together the requests have every row of the batch once, in order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from service.outbox.inngest_id import InngestIds, consecutive_runs, seed
from service.outbox.model import Batch, Entry

_split_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class UndividableError(Exception):
    """A payload is not JSON any more, so its end in the batch is not known."""


class SeededRequest(msgspec.Struct, frozen=True, gc=False):
    """A part of a batch, under its claim, and the seed of its request, None for none.

    Its rows are for one environment.
    """

    batch: Batch
    seed: str | None

    @property
    def environment(self) -> str | None:
        """The environment of the rows; None is the service's own."""
        return self.batch.entries[0].environment


def seeded_requests(batch: Batch, ids: InngestIds | None) -> list[SeededRequest]:
    """The requests that deliver `batch`, oldest rows first; without `ids` they have no seed.

    Raises UndividableError.
    """
    if ids is None:
        parts = _parts(batch, _one_environment_each(batch.entries, [range(len(batch.entries))]))
        return [SeededRequest(part, None) for part in parts]
    numbers = [
        ids.number(entry.seq, entry.accepted_at_ms, entry.inngest_id) for entry in batch.entries
    ]
    runs = _one_environment_each(batch.entries, consecutive_runs(numbers))
    seeded = zip(runs, _parts(batch, runs), strict=True)
    return [SeededRequest(part, seed(numbers[run[0]])) for run, part in seeded]


def _one_environment_each(entries: Sequence[Entry], runs: Sequence[range]) -> list[range]:
    """The runs, divided wherever a row is for another environment than the one before."""
    if not any(entry.environment for entry in entries):
        return list(runs)
    divided: list[range] = []
    for run in runs:
        for _, group in itertools.groupby(run, lambda at: entries[at].environment):
            positions = list(group)
            divided.append(range(positions[0], positions[-1] + 1))
    return divided


def _parts(batch: Batch, runs: Sequence[range]) -> list[Batch]:
    return [batch] if len(runs) == 1 else parts_of(batch, runs)


def parts_of(batch: Batch, positions: Sequence[Sequence[int]]) -> list[Batch]:
    """For each sequence of `positions` a batch of those rows, under the same claim.

    Raises UndividableError.
    """
    try:
        payloads = _split_array(b"[%b]" % batch.payloads)
    except msgspec.DecodeError as error:
        raise UndividableError from error
    if len(payloads) != len(batch.entries):
        raise UndividableError
    return [
        Batch(
            batch.claim,
            tuple(map(batch.entries.__getitem__, part)),
            b",".join(map(payloads.__getitem__, part)),
        )
        for part in positions
    ]
