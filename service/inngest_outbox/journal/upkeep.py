"""Looking after the journal while a service runs.

What the bucket lacks is put. An object whose events are all delivered or removed is deleted, and an
old one with some of these is replaced by one with the others. The invariant: an object is deleted
only when the file says that none of its events is pending, delivering, sent or dead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime

import structlog

from inngest_outbox.errors import OutboxUnavailableError, StorageUnavailableError
from inngest_outbox.journal.bucket import MAX_DELETED
from inngest_outbox.journal.comparison import Compared, Comparison, StartView
from inngest_outbox.journal.contents import MAX_ROWS, Stored
from inngest_outbox.journal.desk import JournalState
from inngest_outbox.journal.journal import S3Journal
from inngest_outbox.journal.objects import encode_group, group_name, live_name
from inngest_outbox.outbox.sqlite.file.journalled import JournalledFile, Range, Restored
from inngest_outbox.supervisor import end

_SWEPT = 1000  # objects of one question to the file
_PUT_BYTES = 8 * 1024 * 1024
_FEW = 20_000

log = structlog.get_logger(__name__)


class Upkeep:
    """Looks after `journal`, whose events are in `file`."""

    def __init__(self, journal: S3Journal, file: JournalledFile) -> None:
        self._journal = journal
        self._file = file
        self._comparison = Comparison(journal, file)
        self._foreign: list[str] = []
        self._swept_to = 0
        self._live_at = self._sweep_at = self._cover_at = float("-inf")
        self._told = ""
        self._began = journal.timings.clock()
        self._is_sure = False  # that no request of an earlier process is under way any more
        self._compared = Compared()
        self._restored = Restored()
        self._first = asyncio.Event()
        self._comparing = asyncio.Lock()

    @property
    def state(self) -> JournalState:
        """The state for people."""
        journal, restored = self._journal, self._restored
        state = "away" if journal.away else "ok" if journal.is_compared else "unread"
        return JournalState(
            bucket=journal.bucket.address,
            state=state,
            reason=journal.fault,
            missing=self._missing_events(),
            objects=len(journal.contents),
            restored=restored.pending + restored.dead,
            restored_dead=restored.dead,
            may_run_twice=restored.old,
            refused=tuple(self._compared.refused),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Upkeep]:
        """At work. It begins when the journal was compared, or could not be."""
        task = asyncio.create_task(self._run(), name="outbox-journal")
        try:
            await self._first.wait()
            yield self
        finally:
            await end(task)
            await self._journal.end()
            if self._journal.id:
                with contextlib.suppress(StorageUnavailableError):
                    await self._journal.bucket.delete([live_name(self._journal.id)])

    async def starts(self) -> list[StartView]:
        """The content of the bucket, by the starts that put it. Raises StorageUnavailableError."""
        return await self._comparison.look()

    async def restore(self, ids: Sequence[str]) -> Restored:
        """Bring back what the file has never had of these starts, whoever they are.

        Raises OutboxUnavailableError and StorageUnavailableError.
        """
        return await self._compare(frozenset(ids))

    async def _run(self) -> None:
        journal, timings = self._journal, self._journal.timings
        while True:
            if not journal.is_compared:
                await self._quietly(self._begin())
                self._first.set()
            if journal.id:
                await self._quietly(self._step(timings.clock()))
            self._tell()
            await asyncio.sleep(timings.step_seconds)

    async def _begin(self) -> None:
        journal = self._journal
        known = await self._file.begin()
        journal.id = self._file.id
        self._comparison.known |= known
        try:
            await self._compare(frozenset())
        except StorageUnavailableError as error:
            journal.went_away(error)
            return
        journal.is_compared = True
        journal.is_back()

    async def _compare(self, told: frozenset[str]) -> Restored:
        """Compare the bucket with the file, and bring back what this one has never had."""
        async with self._comparing:
            self._compared = compared = await self._comparison.compare(told)
            self._foreign += compared.foreign
            self._journal.garbage += compared.garbage
            self._journal.marks |= compared.marks
            await self._cover()
        back = compared.restored
        self._restored = self._restored.plus(back)
        self._journal.recorder.count("journal_restored", back.pending + back.dead)
        told_of = log.warning if back != Restored() or compared.refused else log.info
        told_of(
            "journal_compared",
            bucket=self._journal.bucket.address,
            objects=compared.objects,
            restored=back.pending,
            restored_dead=back.dead,
            may_run_twice=back.old,
            refused=compared.refused,
        )
        return back

    async def _cover(self) -> None:
        """Note the rows that are in no object: a recovery or a replay brought them."""
        contents = self._journal.contents
        contents.missing |= dict.fromkeys(contents.uncovered(await self._file.kept()), 0.0)

    async def _step(self, now: float) -> None:
        journal, timings = self._journal, self._journal.timings
        await self._be_live()
        for mark in list(journal.unmarked):
            await journal.put_mark(*mark)
        while missing := self._missing():
            await self._put(missing)
        if now - self._sweep_at >= timings.sweep_seconds:
            self._sweep_at = now
            await self._sweep(now)
        if journal.is_compared and not self._is_sure and self._is_late(self._began, now):
            await self._compare(frozenset())
            self._is_sure = True
        if now - self._cover_at >= timings.dead_seconds and journal.is_compared:
            self._cover_at = now
            if sum(stored.rows for stored in journal.contents.objects()) < _FEW:
                await self._cover()

    async def _be_live(self) -> None:
        """Show others that this start runs; a bucket that was away takes puts again."""
        journal, name = self._journal, live_name(self._journal.id)
        now = journal.timings.clock()
        if now - self._live_at < journal.timings.live_seconds and not journal.away:
            return
        self._live_at = now
        if journal.away or not await journal.bucket.exists(name):
            began = datetime.now(UTC).isoformat(timespec="seconds").encode()
            await journal.bucket.put(name, began, seconds=journal.timings.put_seconds)
            journal.is_back()

    async def _in_peace(self) -> None:
        """Wait for a turn beside the groups. A step may have thousands of puts."""
        await self._be_live()
        await self._journal.pace.in_peace()

    def _missing_events(self) -> int:
        """The number of events that are not in the bucket and on no way to it, at most."""
        missing = self._journal.contents.missing.keys() - self._journal.under_way.keys()
        return sum(last - first + 1 for first, last in missing)

    def _missing(self) -> list[Range]:
        """Ranges that one object can have: the next missing one, and those that follow it."""
        journal, found = self._journal, list[Range]()
        for rows in sorted(journal.contents.missing.keys() - journal.under_way.keys()):
            if found and (rows[0] != found[-1][1] + 1 or rows[1] - found[0][0] >= MAX_ROWS):
                break
            found.append(rows)
        return found

    async def _put(self, missing: Sequence[Range]) -> None:
        """Put what is left of these ranges as one object."""
        journal, contents = self._journal, self._journal.contents
        first, whole_last = missing[0][0], missing[-1][1]
        rows, last = await self._file.rows((first, whole_last), _PUT_BYTES)
        name = group_name(journal.id, first, last - first + 1)
        if rows:
            await self._in_peace()
        late = 0.0
        for one in missing:  # an earlier put of a part may still land
            until = contents.missing.pop(one, 0.0)
            late = max(late, until)
            if until and one != (first, last):
                part = group_name(journal.id, one[0], one[1] - one[0] + 1)
                journal.garbage.append((part, until))
        contents.missing[first, last] = late
        if last < whole_last:
            contents.missing[last + 1, whole_last] = 0.0
        if rows:
            try:
                await journal.try_put(name, encode_group(journal.id, journal.destination, rows))
            except StorageUnavailableError as error:
                journal.went_away(error)
                contents.missing[first, last] = max(late, journal.late(name))
                raise
            journal.is_back()
            late = max(late, journal.late(name))
        now, dead = journal.timings.clock(), sum(row.dead for row in rows)
        contents.add(Stored(name, (first, last), len(rows), now, dead, uncertain_until=late))

    async def _sweep(self, now: float) -> None:
        journal, contents = self._journal, self._journal.contents
        objects = [one for one in contents.objects() if one.range not in journal.under_way]
        for part in (objects[:_SWEPT], objects[_SWEPT:][self._swept_to :][:_SWEPT]):
            await self._look_after(part, now)
        self._swept_to += _SWEPT
        if self._swept_to >= len(objects):
            self._swept_to = 0
        if not contents.missing and journal.is_compared:
            journal.garbage += [(name, now) for name in self._foreign]
            self._foreign.clear()
        await self._collect(now)
        if self._is_sure and not (
            self._foreign
            or journal.garbage
            or contents.marked
            or any(one.is_marked for one in objects)
        ):
            journal.garbage = [
                (name, now) for name, at in journal.marks.items() if self._is_late(at, now)
            ]
            await self._collect(now)

    async def _collect(self, now: float) -> None:
        """Delete the garbage whose time has come."""
        journal = self._journal
        due = [one for one in journal.garbage if one[1] <= now]
        await self._delete([name for name, _ in due])
        for one in due:
            journal.garbage.remove(one)
            journal.marks.pop(one[0], None)

    async def _look_after(self, objects: Sequence[Stored], now: float) -> None:
        if not objects:
            return
        marked = [stored for stored in objects if stored.is_marked]
        left = await self._file.left([stored.range for stored in objects])
        for stored in marked:  # what was removed was in another one
            has_more = sum(left[stored.range[0]]) != stored.rows
            stored.is_marked = has_more or stored.uncertain_until > stored.written_at
        empty: list[Stored] = []
        for stored in objects:
            waiting, dead = left[stored.range[0]]
            if not waiting + dead:
                empty.append(stored)
            elif self._is_outdated(stored, waiting, dead, now):
                await self._write_anew(stored)
        gone = [stored for stored in empty if stored.uncertain_until <= now]
        await self._delete([stored.name for stored in gone])
        for stored in gone:
            self._journal.contents.remove(stored)

    def _is_outdated(self, stored: Stored, waiting: int, dead: int, now: float) -> bool:
        if waiting + dead > stored.rows:  # delivered ones were replayed
            return True
        has_fewer = waiting + dead < stored.rows
        if has_fewer and (stored.is_marked or self._is_late(stored.written_at, now)):
            return True
        if stored.is_marked and stored.written_at < stored.uncertain_until <= now:
            return True  # an earlier put may have replaced it since
        waited = now - stored.written_at >= self._journal.timings.dead_seconds
        return dead > stored.dead and waited

    async def _write_anew(self, stored: Stored) -> None:
        """Replace an object by one with what is left of its events."""
        await self._in_peace()
        journal, was_marked = self._journal, stored.is_marked
        stored.is_marked = False
        rows, _ = await self._file.rows(stored.range)
        if not rows:
            return
        id_, began = stored.name.partition("/")[0], journal.timings.clock()
        try:
            await journal.try_put(stored.name, encode_group(id_, journal.destination, rows))
        except StorageUnavailableError:
            stored.is_marked = True
            raise
        finally:
            late = journal.late(stored.name)
            stored.uncertain_until = max(stored.uncertain_until, late)
        stored.rows, stored.written_at = len(rows), began
        stored.dead = sum(row.dead for row in rows)
        stored.is_marked |= was_marked and stored.uncertain_until > stored.written_at

    async def _delete(self, names: Sequence[str]) -> None:
        for start in range(0, len(names), MAX_DELETED):
            await self._journal.bucket.delete(names[start : start + MAX_DELETED])

    def _is_late(self, at: float, now: float) -> bool:
        return now - at >= self._journal.timings.late_seconds

    def _tell(self) -> None:
        journal = self._journal
        journal.recorder.gauge("journal_missing", float(self._missing_events()))
        journal.recorder.gauge("journal_objects", float(len(journal.contents)))
        journal.recorder.gauge("journal_away", float(journal.away is not None))

    async def _quietly(self, work: Awaitable[None]) -> None:
        """Do `work`; a bucket or a file that does not answer is tried again later."""
        words = ""
        try:
            await work
        except (StorageUnavailableError, OutboxUnavailableError) as error:
            words = str(error)
            if words != self._told:
                log.warning("journal_upkeep_failed", reason=words)
        except Exception:
            log.exception("journal_upkeep_failed")
        if words or not self._journal.away:
            self._told = words
