"""One event that fails again and again while no other is sent.

No other event shows whether the event or Inngest is the cause, so an empty request probes Inngest.
The invariant: the result is only a log line and a gauge. It does not count against the event, since
an empty request stores nothing.
"""

from __future__ import annotations

from service.inngest.send_result import Signal
from service.outbox.model import Batch, Entry
from service.relay.empty_request import EmptyRequest
from service.relay.report import Report

_ASK_EVERY = 5


class LoneFailure:
    """Watches the answers and tells `report` about an event that fails by itself."""

    def __init__(self, empty_request: EmptyRequest, report: Report) -> None:
        self._empty_request = empty_request
        self._report = report
        self._seq: int | None = None
        self._failures = 0
        self._told = False
        empty_request.on_nothing_due = self._forget

    def answered(self, batch: Batch, signal: Signal) -> None:
        """One request was answered."""
        if signal is Signal.PASSED or len(batch.entries) > 1:
            self._forget()
            return
        [entry] = batch.entries
        if entry.seq != self._seq:
            self._forget()
        self._seq = entry.seq
        self._failures += 1
        if self._failures % _ASK_EVERY == 0:
            self._empty_request.ask(lambda: self._tell(entry))

    def _tell(self, entry: Entry) -> None:
        if entry.seq == self._seq and not self._told:
            self._told = True
            self._report.lone_event_fails(entry.event_id)

    def _forget(self) -> None:
        self._seq, self._failures = None, 0
        if self._told:
            self._told = False
            self._report.lone_event_fails(None)
