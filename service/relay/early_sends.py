"""Requests that are prepared while the commit of their claim runs, and leave when it has passed.

Preparing takes about as long as the sync that an idle service waits for anyway. The invariant: a
request begins after the commit of its claim, so no event leaves before it is on disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from service.inngest.prepared_send import MAX_BYTES, PreparedSend
from service.inngest.seeded import seeded_requests
from service.inngest.send_result import SendResult
from service.outbox.foresight import Foresight
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Batch
from service.relay.empty_request import Sender


class PreparingSender(Sender, Protocol):
    """A sender that can prepare a request before it may leave."""

    def prepare(
        self, payloads: bytes, seed: str | None = None, environment: str | None = None
    ) -> PreparedSend:
        """The request of a `send` with these arguments; nothing of it leaves before it begins."""
        ...


class _Early(NamedTuple):
    claim: str
    arguments: tuple[bytes, str | None, str | None]
    prepared: PreparedSend


class EarlySends:
    """A Sender that prepares the batches that `foresight` tells of, one at a time."""

    def __init__(
        self, sender: PreparingSender, foresight: Foresight, ids: InngestIds | None
    ) -> None:
        self._sender = sender
        self._foresight = foresight
        self._ids = ids
        self._prepared: _Early | None = None

    @contextlib.contextmanager
    def preparing(self, wanted: Callable[[], bool]) -> Iterator[None]:
        """Until the block ends, prepare what is foreseen while `wanted` says so.

        A prepared request leaves as soon as its commit has passed, if it is still wanted.
        """

        def foreseen(batch: Batch) -> None:
            self._drop()
            if wanted():
                self._prepare(batch)

        def committed(batch: Batch) -> None:
            early = self._prepared
            if early is None or early.claim != batch.claim or not wanted():
                return
            if early.prepared.begin():
                self._foresight.leaves(batch.claim)

        with self._foresight.told(foreseen, committed):
            try:
                yield
            finally:
                self._drop()

    async def send(
        self, payloads: bytes, seed: str | None = None, environment: str | None = None
    ) -> SendResult:
        """The result of the prepared request with these arguments, else of a new one."""
        early, self._prepared = self._prepared, None
        if early is not None:
            same = early.arguments == (payloads, seed, environment)
            if same and early.prepared.begin():
                return await early.prepared.result()
            early.prepared.cancel()
        return await self._sender.send(payloads, seed, environment)

    def _prepare(self, batch: Batch) -> None:
        """Prepare the request of one small event that was never sent.

        Where several events share a commit, the loop has requests to answer while it runs.
        """
        entry, *others = batch.entries
        if not others and not entry.sends and len(batch.payloads) <= MAX_BYTES:
            [request] = seeded_requests(batch, self._ids)
            arguments = batch.payloads, request.seed, request.environment
            self._prepared = _Early(batch.claim, arguments, self._sender.prepare(*arguments))

    def _drop(self) -> None:
        early, self._prepared = self._prepared, None
        if early is not None:
            early.prepared.cancel()
