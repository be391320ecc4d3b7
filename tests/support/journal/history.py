"""Histories of an SQLite outbox with a journal: `python -m tests.support.journal.history SEED N`.

Each is a life after the other: posts, deliveries and discards, a bucket and a disk with faults,
kills at any moment; between two lives the disk is kept, deleted, or an older copy is put back. The
service's own code runs on one thread in virtual time. At the end everything is well and delivered,
and the history is judged. Some accept events while the bucket is away: those that neither the
bucket nor the disk has may be lost, and no others. `search` instead of the numbers ends at the
first history with a fault, and exits with `FOUND` then.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uuid_utils

from inngest_outbox.errors import OutboxError, RefusedError
from inngest_outbox.journal.journal import JournalTimings, S3Journal
from inngest_outbox.journal.objects import decode_group
from inngest_outbox.journal.upkeep import Upkeep
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt, plain_digests
from inngest_outbox.outbox.model import ClaimRequest, Dead, Filter, Named, Retry, Settlement, State
from inngest_outbox.outbox.sqlite.file import log
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.journal.bucket import LATE_SECONDS, BucketLine, MemoryBucket
from tests.support.memory_folder import memory_folder
from tests.support.proof_table import FOUND, add_row, quiet_log
from tests.support.simulation.inline_world import Disk, install
from tests.support.virtual_time import VirtualLoop

TIMINGS = JournalTimings(
    dead_seconds=5.0, late_seconds=LATE_SECONDS * 2, sweep_seconds=2.0, ask_seconds=5.0
)
_MOST_SEEDS = 300  # of a search
TROUBLES = ("lost", "late", "unanswered", "refused", "slow")
_commits_fail = [False]


class _Connection(sqlite3.Connection):
    """Its commits fail while the world says so."""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and _commits_fail[0] and self.in_transaction:
            super().execute("ROLLBACK")
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL  # type: ignore[misc]
            error.sqlite_errorname = "SQLITE_FULL"  # type: ignore[misc]
            raise error
        return super().execute(sql, *args)


@dataclass
class World:
    """All that outlives a life."""

    chance: random.Random
    folder: Path
    bucket: MemoryBucket
    accepts: bool
    answered: dict[str, Receipt] = field(default_factory=dict)
    sends: dict[str, set[str]] = field(default_factory=dict)
    sent_at: dict[str, float] = field(default_factory=dict)
    delivered_at: dict[str, float] = field(default_factory=dict)
    poison: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    tried_to_discard: set[str] = field(default_factory=set)
    discarded: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    copies: list[tuple[float, Path, set[str]]] = field(default_factory=list)
    unput: set[str] = field(default_factory=set)
    unmarked: set[str] = field(default_factory=set)
    may_miss: set[str] = field(default_factory=set)
    settled_for_good: set[str] = field(default_factory=set)
    told: Counter[str] = field(default_factory=Counter)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()


class Life:
    """One process of the service on the outbox in `folder`."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.line = BucketLine(world.bucket)
        self.tasks: list[asyncio.Task[None]] = []
        self.upkeep: Upkeep | None = None

    async def run(self, seconds: float, *, kill: bool, work: bool = True) -> None:
        main = asyncio.create_task(self._serve(work=work))
        await asyncio.wait([main], timeout=seconds)
        if kill:
            self.line.is_cut = True
            shutil.copytree(self.folder, self.folder.with_suffix(".killed"))
        main.cancel()
        with contextlib.suppress(asyncio.CancelledError, OutboxError):
            await main
        if kill:
            shutil.rmtree(self.folder)
            self.folder.with_suffix(".killed").rename(self.folder)

    async def _serve(self, *, work: bool) -> None:
        async with self.opened() as (outbox, _):
            self.tasks = [
                asyncio.create_task(one)
                for one in (self._deliver(outbox), *(self._post(outbox) for _ in range(3)))
            ]
            if work:
                self.tasks += [
                    asyncio.create_task(one)
                    for one in (self._discard(outbox), self._trouble(), self._copy())
                ]
            try:
                await asyncio.gather(*self.tasks)
            finally:
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def opened(self) -> Any:
        self.folder.mkdir(exist_ok=True)
        journal = S3Journal(
            self.line,  # type: ignore[arg-type]
            "memory",
            NullRecorder(),
            accepts=self.world.accepts,
            puts_per_second=50,
            timings=replace(TIMINGS, clock=asyncio.get_running_loop().time),
        )
        async with open_sqlite_outbox(
            self.folder / "outbox.db",
            max_pending=10_000,
            max_pending_per_user=10_000,
            journal=journal,
            accepts_loss=True,
        ) as outbox:
            self.upkeep = upkeep = Upkeep(journal, outbox.journalled)
            async with upkeep.running():
                yield outbox, upkeep

    async def _post(self, outbox: SqliteOutbox) -> None:
        world = self.world
        while True:
            await asyncio.sleep(world.chance.expovariate(2.0))
            owner = f"u-{world.chance.randrange(3)}"
            count = world.chance.choice((1, 1, 1, 2, 5))
            keys: list[IdempotencyKey | None] = [None] * count
            if world.chance.random() < 0.4:
                name = f"k-{owner}-{world.chance.randrange(20)}"
                keys[0] = IdempotencyKey.of(name, b"same", plain_digests)
            for _ in range(3 if keys[0] else 1):
                events = [self._event(owner) for _ in range(count)]
                try:
                    receipts = await outbox.intake.append_all(events, keys)
                except (OutboxError, RefusedError):
                    await asyncio.sleep(world.chance.uniform(0, 3))
                    continue
                if not self.line.is_cut:
                    for receipt in receipts:
                        self._answered(receipt)
                break

    def _answered(self, receipt: Receipt) -> None:
        world, event_id = self.world, receipt.event_id
        known = world.answered.setdefault(event_id, receipt)
        if known.inngest_id != receipt.inngest_id:
            world.faults.append(f"{event_id} was answered with two ULIDs")
        if event_id in world.delivered_at.keys() | world.tried_to_discard:
            return
        if not world.bucket.has(event_id):
            if not (world.accepts and self.tells_missing):
                world.faults.append(f"{event_id} was answered and is not in the bucket")
            world.unput.add(event_id)

    @property
    def tells_missing(self) -> bool:
        assert self.upkeep
        return self.upkeep.state.state != "ok" or self.upkeep.state.missing > 0

    def _event(self, owner: str) -> Event:
        world = self.world
        event_id = str(uuid_utils.uuid7())
        if world.chance.random() < 0.08:
            world.poison.add(event_id)
        payload = b'{"id":"%b"}' % event_id.encode()
        return Event(event_id, "an/event", owner, owner, wall_now_ms(), payload)

    async def _deliver(self, outbox: SqliteOutbox) -> None:
        world = self.world
        while True:
            try:
                batch = await outbox.queue.claim(ClaimRequest(20, 1 << 20, 30.0))
                await self._send(outbox, batch)
            except OutboxError:
                await asyncio.sleep(0.5)
            if self.line.is_cut:
                return
            await asyncio.sleep(world.chance.uniform(0, 1.5))

    async def _send(self, outbox: SqliteOutbox, batch: Any) -> None:
        world, ids = self.world, outbox.confirmations.inngest_ids
        delivered, retried, dead = [], [], []
        for entry in batch.entries:
            if self.line.is_cut:
                return
            ulid = ids.ulid(entry.seq, entry.accepted_at_ms, entry.meta)
            is_held = entry.meta.restored and entry.event_id in world.delivered_at
            if entry.event_id in world.poison:
                dead.append(Dead(entry.seq, 1, "rejected", "poison"))
                self._judge_send(entry.event_id, ulid)
            elif world.chance.random() < 0.1:
                retried.append(Retry(entry.seq, 0.5, 1, isolated=False))
            else:
                if not is_held:
                    self._judge_send(entry.event_id, ulid)
                delivered.append(entry.seq)
        await asyncio.sleep(world.chance.uniform(0, 0.2))
        if self.line.is_cut:
            return
        names = {entry.seq: entry.event_id for entry in batch.entries}
        for seq in delivered:
            world.delivered_at.setdefault(names[seq], world.now)
        await outbox.queue.settle(
            Settlement(batch.claim, delivered=delivered, retry=retried, dead=dead)
        )
        if not self.line.is_cut:
            world.dead |= {names[one.seq] for one in dead}

    def _judge_send(self, event_id: str, ulid: str) -> None:
        world = self.world
        world.sends.setdefault(event_id, set()).add(ulid)
        if event_id in world.settled_for_good:
            world.faults.append(f"{event_id} was settled long ago and is sent again")
        if event_id in world.discarded:
            world.faults.append(f"{event_id} was taken back and is sent")

    async def _discard(self, outbox: SqliteOutbox) -> None:
        world = self.world
        while True:
            await asyncio.sleep(world.chance.expovariate(0.3))
            state = world.chance.choice((State.PENDING, State.DEAD))
            with contextlib.suppress(OutboxError, RefusedError):
                rows = await outbox.inspector.rows(Filter(state=state, limit=3))
                ids = tuple(row.id for row in rows)
                world.tried_to_discard |= set(ids)
                done = await outbox.repairs.discard(Named(ids=ids, state=state), actor="a person")
                if not self.line.is_cut:
                    world.discarded |= dict.fromkeys(done, world.now)
                    world.unmarked |= set(done) if self.tells_missing else set()

    async def _trouble(self) -> None:
        world = self.world
        while True:
            await asyncio.sleep(world.chance.expovariate(0.2))
            world.bucket.begin(world.chance.choice(TROUBLES))
            await asyncio.sleep(world.chance.expovariate(0.3))
            world.bucket.begin(None)
            if world.chance.random() < 0.5:
                await asyncio.sleep(world.chance.expovariate(1.0))
                _commits_fail[0] = True
                await asyncio.sleep(world.chance.expovariate(3.0))
                _commits_fail[0] = False

    async def _copy(self) -> None:
        """Copy the disk now and then: it may be put back later."""
        while True:
            await asyncio.sleep(self.world.chance.expovariate(0.1))
            copy = self.folder.parent / f"copy-{uuid_utils.uuid7()}"
            shutil.copytree(self.folder, copy)
            self.world.copies.append((self.world.now, copy, set(self.world.answered)))


async def history(seed: int, folder: Path) -> list[str]:
    """The faults of one history."""
    chance = random.Random(seed)
    world = World(chance, folder, MemoryBucket(chance), accepts=seed % 3 == 2)
    disk = folder / "disk"
    for _ in range(chance.randrange(2, 6)):
        long = 4 * TIMINGS.late_seconds if chance.random() < 0.15 else 0.0
        seconds = chance.uniform(0.0, 25.0) + long
        await Life(world, disk).run(seconds, kill=chance.random() < 0.8)
        _commits_fail[0] = False
        if chance.random() < 0.8:  # else the next life begins without the bucket
            world.bucket.begin(None)
        _lose(world, disk)
    world.bucket.begin(None)
    last = Life(world, disk)
    async with last.opened() as (outbox, upkeep):
        await _drain(world, last, outbox, upkeep)
    _judge(world)
    return world.faults


def _lose(world: World, disk: Path) -> None:
    """Keep the disk, lose it, or put an older copy back."""
    before = world.now - 3 * TIMINGS.late_seconds
    if (fate := world.chance.random()) < 0.5:
        world.told["deleted"] += 1
        shutil.rmtree(disk)
        if world.bucket.well_since <= before:
            old = {one for one, at in world.delivered_at.items() if at <= before}
            world.settled_for_good |= old
        _forget(world, set())
    elif fate < 0.75 and world.copies:
        world.told["put back"] += 1
        at, copy, had = world.chance.choice(world.copies)
        shutil.rmtree(disk)
        shutil.copytree(copy, disk)
        # A backup does not know what was settled or taken back after it.
        world.discarded = {one: when for one, when in world.discarded.items() if when < at}
        world.settled_for_good = {
            one for one in world.settled_for_good if world.delivered_at[one] < at
        }
        _forget(world, had)


def _forget(world: World, had: set[str]) -> None:
    """Of what was answered or taken back without the bucket, `had` is all that is left."""
    world.may_miss |= {one for one in world.unput - had if not world.bucket.has(one)}
    for one in world.unmarked:
        if not world.bucket.has(one, marks=True):
            world.discarded.pop(one, None)


async def _drain(world: World, life: Life, outbox: SqliteOutbox, upkeep: Upkeep) -> None:
    """Deliver all that waits, then let the bucket be looked after."""
    delivering = asyncio.create_task(life._deliver(outbox))
    try:
        async with asyncio.timeout(600):
            while (await outbox.inspector.stats()).pending + outbox.undelivered:  # noqa: ASYNC110
                await asyncio.sleep(1)
            # What a late `live` of an earlier life left alone comes back in this time, too.
            await asyncio.sleep(4 * TIMINGS.late_seconds)
            world.dead = {
                row.id
                for row in await outbox.inspector.rows(Filter(state=State.DEAD, limit=10_000))
            }
    except TimeoutError:
        world.faults.append("what waits is never delivered")
    finally:
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
    if upkeep.state.missing or upkeep.state.state != "ok":
        world.faults.append(f"the journal stays incomplete: {upkeep.state}")
    if upkeep.state.refused:
        world.faults.append(f"refused: {upkeep.state.refused}")
    for name, (data, _) in world.bucket.objects.items():
        if "/mark-" in name:
            world.faults.append(f"{name} stays")
        is_group = "live" not in name and "mark" not in name
        if is_group and not (data and {row.id for row in decode_group(data).rows} <= world.dead):
            world.faults.append(f"{name} stays, though its events are settled")


def _judge(world: World) -> None:
    for event_id, receipt in world.answered.items():
        ulids = world.sends.get(event_id, set())
        if event_id in world.tried_to_discard or event_id in world.dead:
            pass
        elif event_id not in world.delivered_at and event_id not in world.may_miss:
            world.faults.append(f"{event_id} was answered and is lost")
        if ulids - {receipt.inngest_id}:
            world.faults.append(f"{event_id} was sent under another ULID than it was answered with")
    owners: dict[str, str] = {}
    for event_id, ulids in world.sends.items():
        for ulid in ulids:
            if owners.setdefault(ulid, event_id) != event_id:
                world.faults.append(f"{ulid} was given twice")
    numbers: dict[tuple[bytes, int], str] = {}
    for event_id, receipt in world.answered.items():
        number = (receipt.ids.of(receipt.seq).prefix, receipt.seq)
        if receipt.meta.moved_id is None and numbers.setdefault(number, event_id) != event_id:
            world.faults.append(f"number {number} was given twice")


def run(seed: int) -> list[str]:
    """The faults of the history with this seed. For a process that does nothing else."""
    loop = VirtualLoop()
    install(loop, Disk(random.Random(seed)))
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        try:
            asyncio.set_event_loop(loop)
            return loop.run_until_complete(history(seed, Path(folder)))
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def prepare() -> None:
    """Let commits fail where a world says so."""
    connect = sqlite3.connect

    def faulty(*args: Any, **named: Any) -> sqlite3.Connection:
        return connect(*args, **named, factory=_Connection)

    sqlite3.connect = faulty  # type: ignore[assignment]
    log.PREALLOCATED_BYTES = 64 * 1024


def search() -> int:
    for seed in range(_MOST_SEEDS):
        if faults := run(seed):
            print(f"seed {seed}: {faults[0]}")
            return FOUND
    return 0


def main(first: int, count: int) -> int:
    """Run histories; prints those with faults, and exits with 1 when there is one."""
    bad = 0
    for seed in range(first, first + count):
        if faults := run(seed):
            bad += 1
            print(f"seed {seed}: {len(faults)} faults, {faults[:4]}", flush=True)
    print(f"{count} histories, {bad} with faults")
    add_row("histories of a journal", f"{count:,} histories", f"{bad} faults")
    return 1 if bad else 0


if __name__ == "__main__":
    quiet_log()
    prepare()
    if sys.argv[1:] == ["search"]:
        sys.exit(search())
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
