"""The requests that deliver a claimed batch, so that each event gets the ULID of its row.

Inngest counts ULIDs up from a request's seed, so a request has rows with consecutive ULIDs only,
all of one environment. Traces divide nothing: a `traceparent` would only link a span that Inngest
sends to itself. Together the requests have every row of the batch once, in order.
"""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from inngest_outbox.inngest.send_result import SendResult
from inngest_outbox.outbox.event import with_id
from inngest_outbox.outbox.inngest_id import (
    ENVIRONMENT_HEADER,
    SEED_HEADER,
    InngestIds,
    consecutive_runs,
    seed,
)
from inngest_outbox.outbox.model import Batch, Entry

_LOG_EVERY_SECONDS = 60.0
_environment_of = operator.attrgetter("meta.environment")

_NOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_split_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read = msgspec.json.Decoder(msgspec.Raw).decode

log = structlog.get_logger(__name__)


class UndividableError(Exception):
    """A payload is not JSON any more, so its end in the batch is not known."""


class DeliveryRequest(msgspec.Struct, frozen=True, gc=False):
    """A part of a batch, under its claim, of one environment.

    `seed` None leaves the ULIDs to Inngest. `again` is true when these events failed before,
    `repeated` when exactly this request did.
    """

    batch: Batch
    seed: str | None
    again: bool = False
    repeated: bool = False

    @property
    def environment(self) -> str | None:
        """The environment of the rows; None is the service's own."""
        return self.batch.entries[0].meta.environment

    @property
    def headers(self) -> Mapping[str, str]:
        """The seed and the environment."""
        named = {SEED_HEADER: self.seed, ENVIRONMENT_HEADER: self.environment}
        return {name: value for name, value in named.items() if value is not None}


def with_ids(batch: Batch, ids: InngestIds | None) -> Batch:
    """The batch as it leaves: a payload without an id has its own in front.

    Without `ids`, an event that the client gave no id leaves without one. Raises UndividableError.
    """
    # Inngest takes an array that ends at once, as that of an empty payload, and refuses nothing.
    if batch.payloads.lstrip()[:1] in b"]}":
        return msgspec.structs.replace(batch, payloads=b",")
    if all(entry.meta.wire_id is None for entry in batch.entries):
        return batch
    payloads = [
        with_id(payload, wire_id) if (wire_id := _wire_id(entry, ids)) else payload
        for entry, payload in zip(batch.entries, _payloads(batch), strict=True)
    ]
    return msgspec.structs.replace(batch, payloads=b",".join(payloads))


def requests_of(
    batch: Batch, ids: InngestIds | None, *, again: bool = False
) -> list[DeliveryRequest]:
    """The requests that deliver `batch`, oldest rows first; without `ids` they have no seed.

    Raises UndividableError.
    """
    entries = batch.entries
    if ids is None:
        parts = _parts(batch, _of_one_environment(entries, [range(len(entries))]))
        return [DeliveryRequest(part, None, again) for part in parts]
    numbers = [ids.number(entry.seq, entry.accepted_at_ms, entry.meta) for entry in entries]
    runs = _of_one_environment(entries, consecutive_runs(numbers))
    seeded = zip(runs, _parts(batch, runs), strict=True)
    return [DeliveryRequest(part, seed(numbers[run[0]]), again) for run, part in seeded]


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
        return [msgspec.structs.replace(request, again=again, repeated=True)]
    parts = parts_of(batch, positions)
    return [one for part in parts for one in requests_of(part, ids, again=again)]


def parts_of(batch: Batch, positions: Sequence[Sequence[int]]) -> list[Batch]:
    """For each sequence of `positions` a batch of those rows, under the same claim.

    Raises UndividableError.
    """
    payloads = _payloads(batch)
    return [
        Batch(
            batch.claim,
            tuple(map(batch.entries.__getitem__, part)),
            b",".join(map(payloads.__getitem__, part)),
        )
        for part in positions
    ]


def rows_of(batch: Batch, positions: Sequence[Sequence[int]]) -> Batch:
    """These rows, under the same claim, without their payloads."""
    entries = tuple(batch.entries[at] for part in positions for at in part)
    return Batch(batch.claim, entries, b"")


def can_be_read(payload: bytes) -> bool:
    """False for a damaged payload: one that is not JSON any more."""
    try:
        _read(payload)
    except _NOT_READ:
        return False
    return True


class SeedCheck:
    """Compares the ULIDs in answers with those of `ids`; None: no comparison.

    A server that ignores seeds can't be asked which events it holds: no ULID would ever be found,
    and every event would be sent again and again. So a row waits for its confirmation only when the
    answer showed its ULID; else the ULID in the answer is kept. `clock` gives seconds and does not
    jump.
    """

    def __init__(
        self, ids: InngestIds | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ids = ids
        self._clock = clock
        self._logged_at = float("-inf")

    def answered(self, batch: Batch, result: SendResult) -> list[tuple[int, str]]:
        """The ULIDs of the taken rows, where the first one has another than its row; else none."""
        if self._ids is None or not result.ids or not result.ids[0]:
            return []
        first = batch.entries[0]
        expected = self._ids.ulid(first.seq, first.accepted_at_ms, first.meta)
        if result.ids[0] == expected:
            return []
        now = self._clock()
        if now - self._logged_at > _LOG_EVERY_SECONDS:
            self._logged_at = now
            log.error("inngest_ignores_seeds", event_id=first.event_id)
        pairs = zip(batch.entries, result.ids, strict=False)
        return [(entry.seq, ulid) for entry, ulid in pairs if ulid]


def _wire_id(entry: Entry, ids: InngestIds | None) -> str | None:
    """The id that goes in front of the payload, None where none does."""
    wire_id = entry.meta.wire_id
    if wire_id != "" or ids is None:
        return wire_id
    return ids.ulid(entry.seq, entry.accepted_at_ms, entry.meta)


def _payloads(batch: Batch) -> list[bytes]:
    if len(batch.entries) == 1:
        return [batch.payloads]
    try:
        payloads = _split_array(b"[%b]" % batch.payloads)
    except _NOT_READ as error:
        raise UndividableError from error
    if len(payloads) != len(batch.entries):
        raise UndividableError
    return [bytes(payload) for payload in payloads]


def _of_one_environment(entries: Sequence[Entry], runs: Sequence[range]) -> list[range]:
    """The runs, divided wherever the environment changes."""
    environments = list(map(_environment_of, entries))
    if not any(environments):
        return list(runs)
    divided: list[range] = []
    for run in runs:
        for _, group in itertools.groupby(run, key=environments.__getitem__):
            positions = list(group)
            divided.append(range(positions[0], positions[-1] + 1))
    return divided


def _parts(batch: Batch, runs: Sequence[range]) -> list[Batch]:
    return [batch] if len(runs) == 1 else parts_of(batch, runs)
