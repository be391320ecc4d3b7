"""The journal: each group of accepted events becomes an object of a bucket before it is answered.

The put runs while the group's commit is synced. Puts are paced: while none may begin, groups grow.
The invariants: a group is done only when its object is known to be there, or events may be accepted
while the bucket is away and what it lacks is noted; no group is done before every earlier group
whose commit failed is void.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from inngest_outbox.errors import OutboxUnavailableError, StorageUnavailableError
from inngest_outbox.journal.bucket import JournalBucket, is_refusal
from inngest_outbox.journal.contents import Contents, Stored
from inngest_outbox.journal.objects import encode_group, encode_mark, group_name, mark_name
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.sqlite.file.journalled import JournalRow, Range

MAX_UNDER_WAY = 2  # the next group is put while the last one's callers post again
_BUSY_SECONDS = 1.0  # an ended put wakes the writer before
_PEACE_SECONDS = 1.0
_CLOSED = "The journal is closed."
_UNREAD = "The journal has not been compared with the file yet."
_REMOVED = (
    "The events are removed. The journal's bucket does not know it yet: until it does, a new start "
    "after a loss of the disk would bring them back."
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JournalTimings:
    """The waits of a journal.

    A try of a put takes `put_seconds` at most, all tries of a group `patience_seconds`, with
    `again_seconds` between two. The upkeep works every `step_seconds`, and tries a bucket that is
    away as often. An object shows that this start runs: every `live_seconds` it is put again if
    another start has deleted it, which looks again after `ask_seconds`. Every `sweep_seconds`
    objects without events that are left are deleted. After `dead_seconds` an object is replaced
    whose events died, after `late_seconds` one whose events were delivered or removed in part. No
    request is under way for longer than `late_seconds`.
    """

    put_seconds: float = 2.0
    patience_seconds: float = 5.0
    again_seconds: float = 0.1
    step_seconds: float = 0.5
    live_seconds: float = 2.0
    ask_seconds: float = 5.0
    sweep_seconds: float = 5.0
    dead_seconds: float = 60.0
    late_seconds: float = 3600.0
    clock: Callable[[], float] = time.monotonic


class Pace:
    """At most so many puts a second; a second's puts may come at once."""

    def __init__(self, puts_per_second: float, clock: Callable[[], float]) -> None:
        self._rate = puts_per_second
        self._most = max(1.0, puts_per_second)
        self._clock = clock
        self._left = self._most
        self._at = clock()

    def wait_seconds(self, left: float = 1.0) -> float:
        """Seconds until so many puts may begin, 0 for now."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (left - self._left) / self._rate)

    def take(self) -> None:
        """Count a put, of a group that could not wait too."""
        self._left -= 1

    async def in_peace(self) -> None:
        """Wait until a put leaves groups half of the pace, a second at most, and count it."""
        enough, ends = min(self._most, self._most / 2 + 1), self._clock() + _PEACE_SECONDS
        while (wait := min(self.wait_seconds(enough), ends - self._clock())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait)
        self.take()


class GroupPut:
    """A group on its way.

    `is_sent` says that a request with it has begun, `is_carried` that no more will.
    """

    def __init__(
        self, journal: S3Journal, rows: Sequence[JournalRow], repeats: Sequence[int]
    ) -> None:
        self._journal = journal
        self.repeats = repeats
        self.range: Range | None = (rows[0].seq, rows[-1].seq) if rows else None
        self.name = group_name(journal.id, rows[0].seq, len(rows)) if rows else ""
        self.data = encode_group(journal.id, journal.destination, rows) if rows else b""
        self.done: asyncio.Future[None] = journal.loop.create_future()
        self.task: asyncio.Task[None] | None = None
        self.is_sent = False
        self.is_carried = self.is_committed = False

    def committed(self) -> None:
        """The file has the group too."""
        self.is_committed = True
        self._journal.ended(self)

    def void(self) -> None:
        """Take the group back: its commit failed."""
        self._journal.void(self)


class S3Journal:
    """The journal on the way of a post; `upkeep` looks after the rest.

    With `accepts`, events are answered from the file while the bucket is away. `destination` names
    the Inngest that the events go to.
    """

    def __init__(
        self,
        bucket: JournalBucket,
        destination: str,
        recorder: Recorder,
        *,
        accepts: bool = False,
        puts_per_second: float = 20.0,
        timings: JournalTimings | None = None,
    ) -> None:
        self.bucket = bucket
        self.destination = destination
        self.accepts = accepts
        self.timings = timings or JournalTimings()
        self.loop = asyncio.get_running_loop()
        self.recorder = recorder
        self.pace = Pace(puts_per_second, self.timings.clock)
        self.contents = Contents()
        self.id = ""
        self.is_compared = False
        self.away: str | None = None
        self.marks: dict[str, float] = {}
        self.unmarked: list[tuple[str, bytes]] = []
        self.garbage: list[tuple[str, float]] = []
        self.under_way: dict[Range, asyncio.Future[None]] = {}
        self._late: dict[str, float] = {}
        self._has_ended = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._voids: dict[str, asyncio.Task[None]] = {}

    @property
    def fault(self) -> str | None:
        """The reason for which the journal lacks something, None while it is whole."""
        if not self.id or not (self.is_compared or self.away):
            return _UNREAD
        return self.away and f"The journal {self.bucket.address} can't be written: {self.away}"

    def wait_seconds(self) -> float:
        """Seconds until a group may be put, 0 for now."""
        if (fault := self.fault) and not (self.accepts and self.id):
            raise OutboxUnavailableError(fault)
        if self.away:
            return 0.0
        return _BUSY_SECONDS if len(self.under_way) >= MAX_UNDER_WAY else self.pace.wait_seconds()

    def put(self, rows: Sequence[JournalRow], repeats: Sequence[int]) -> GroupPut:
        """Begin to put the rows; called in any thread."""
        put = GroupPut(self, rows, repeats)
        self.loop.call_soon_threadsafe(self._begin, put)
        return put

    async def mark(self, removed: Sequence[tuple[int, str]]) -> None:
        """Note that the rows with these numbers and ids were removed by a person.

        Before the comparison with the bucket any of them may be there.
        """
        ids = []
        for seq, event_id in removed:
            stored = self.contents.covering(seq)
            is_coming = not stored and self._is_on_its_way(seq)
            if stored:
                stored.is_marked = True
            elif is_coming:
                self.contents.marked.add(seq)
            if stored or is_coming or not self.is_compared:
                ids.append(event_id)
        if not ids:
            return
        mark = (mark_name(self.id), encode_mark(ids))
        self.unmarked.append(mark)
        try:
            await self.put_mark(*mark)
        except StorageUnavailableError as error:
            self.went_away(error)
            if not self.accepts:
                raise OutboxUnavailableError(_REMOVED) from error

    async def put_mark(self, name: str, data: bytes) -> None:
        """Put a mark. Raises StorageUnavailableError."""
        self.pace.take()
        await self.try_put(name, data)
        self.late(name)  # a mark that lands again says the same
        self.marks[name] = self.timings.clock()
        with contextlib.suppress(ValueError):
            self.unmarked.remove((name, data))

    def void(self, put: GroupPut) -> None:
        """Take a group back whose commit failed, before any later one is done."""
        put.done.cancel()
        if put.task:
            put.task.cancel()
        if put.range is None:
            return
        self.under_way.pop(put.range, None)
        self.contents.missing.pop(put.range, None)
        if (stored := self.contents.covering(put.range[0])) and stored.name == put.name:
            self.contents.remove(stored)
        if put.is_sent:
            self._voids[put.name] = self._start(self._void(put.name))

    def went_away(self, error: Exception) -> None:
        """Note that the bucket does not take a put."""
        if self.away is None:
            log.error("journal_away", bucket=self.bucket.address, reason=str(error))
        self.away = str(error)

    def is_back(self) -> None:
        """Note that the bucket took a put."""
        if self.away is not None:
            log.warning("journal_back", bucket=self.bucket.address)
        self.away = None

    def ended(self, put: GroupPut) -> None:
        """A put or its commit has ended; before both have, the file may not have the group yet."""
        if put.range and put.is_committed and put.is_carried:
            self.under_way.pop(put.range, None)

    async def end(self) -> None:
        """End what is under way. Later groups are refused."""
        self._has_ended = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self.loop.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(self, put: GroupPut) -> None:
        if put.done.done():  # its commit failed meanwhile
            return
        if self._has_ended:
            put.done.set_exception(OutboxUnavailableError(_CLOSED))
            return
        if put.range:
            if not self.away:
                self.pace.take()
            self.under_way[put.range] = put.done
            self.contents.missing[put.range] = 0.0
        put.task = self._start(self._carry(put))

    async def _carry(self, put: GroupPut) -> None:
        fault: OutboxUnavailableError | None = OutboxUnavailableError(_CLOSED)
        try:
            if put.range:
                await self._put_rows(put, put.range)
            await self._await_repeats(put.repeats)
            fault = None
        except OutboxUnavailableError as error:
            fault = error
        except Exception as error:
            log.exception("journal_failed")
            fault = OutboxUnavailableError(f"A fault of the journal: {type(error).__name__}")
        finally:
            put.is_carried = True
            self.ended(put)
            if put.done.done():
                pass
            elif fault:
                put.done.set_exception(fault)
            else:
                put.done.set_result(None)

    async def _put_rows(self, put: GroupPut, rows: Range) -> None:
        """Put the rows of a group, or note that they are missing. Raises OutboxUnavailableError."""
        if self.away and self.accepts:
            return
        began = self.timings.clock()
        try:
            await self._voided()
            put.is_sent = True
            await self.try_put(put.name, put.data, is_new=True)
        except StorageUnavailableError as error:
            self.went_away(error)
            self.contents.missing[rows] = self.late(put.name)
            if not self.accepts:
                raise OutboxUnavailableError(self.fault) from error
            return
        now = self.timings.clock()
        self.recorder.observe("journal_put_seconds", now - began)
        count = rows[1] - rows[0] + 1
        self.contents.add(Stored(put.name, rows, count, now, uncertain_until=self.late(put.name)))
        self.is_back()

    async def try_put(self, name: str, data: bytes, *, is_new: bool = False) -> None:
        """Put an object, trying again with the same bytes.

        `late` then says until when an earlier try may still land. Raises StorageUnavailableError.
        """
        clock, timings = self.timings.clock, self.timings
        ends = clock() + timings.patience_seconds
        while True:
            try:
                await self._put_once(name, data, is_new=is_new)
            except StorageUnavailableError as error:
                self.recorder.count("journal_put_faults")
                if not is_refusal(error):
                    self._late[name] = clock() + timings.late_seconds
                if is_refusal(error) or clock() + timings.again_seconds >= ends:
                    raise
            else:
                return
            await asyncio.sleep(timings.again_seconds)

    def late(self, name: str) -> float:
        """The time until which a try of this put may still land, 0 without one. Asked once."""
        return self._late.pop(name, 0.0)

    async def _put_once(self, name: str, data: bytes, *, is_new: bool) -> None:
        seconds = self.timings.put_seconds
        if await self.bucket.put(name, data, seconds=seconds, is_new=is_new):
            return
        if await self.bucket.get(name) != data:
            raise StorageUnavailableError("Another object has the name of this group.")

    async def _voided(self) -> None:
        """Wait until the groups are void whose commits failed. Raises StorageUnavailableError."""
        if self._voids:
            voids = set(self._voids.values())
            _, left = await asyncio.wait(voids, timeout=self.timings.patience_seconds)
            if left:
                raise StorageUnavailableError("S3 does not take an object back.")

    async def _void(self, name: str) -> None:
        while True:
            try:
                await self.bucket.put(name, b"", seconds=self.timings.put_seconds)
            except StorageUnavailableError as error:
                self.went_away(error)
                await asyncio.sleep(self.timings.step_seconds)
            else:
                break
        del self._voids[name]
        self.garbage.append((name, self.timings.clock() + self.timings.late_seconds))

    async def _await_repeats(self, seqs: Iterable[int]) -> None:
        """Wait until earlier rows are there, too. Raises OutboxUnavailableError.

        With `accepts`, those that were stored while the bucket was away are put later.
        """
        ends = self.timings.clock() + self.timings.patience_seconds
        for seq in seqs:
            while self._is_on_its_way(seq):
                if self.accepts and (self.away or not self._is_under_way(seq)):
                    break
                if self.away or self.timings.clock() >= ends:
                    raise OutboxUnavailableError(self.fault)
                await asyncio.sleep(self.timings.again_seconds)

    def _is_on_its_way(self, seq: int) -> bool:
        return self._is_under_way(seq) or self.contents.lacks(seq)

    def _is_under_way(self, seq: int) -> bool:
        return any(first <= seq <= last for first, last in self.under_way)
