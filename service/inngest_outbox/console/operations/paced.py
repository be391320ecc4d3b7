"""A replay of many events at a rate, which outlives its page, the process and a restart.

It is a small record in the outbox: who asked, which events, its progress. The process that
has the turn replays a few events a second. The invariant: only events that were dead when it was
confirmed are replayed, and no more than were shown.
"""

from __future__ import annotations

import asyncio
import math
from typing import Self

import msgspec
import structlog

from inngest_outbox.console.operations.bulk import Proposal, change_rows, moved_at
from inngest_outbox.console.operations.search import Search
from inngest_outbox.errors import InvalidFieldError, OutboxUnavailableError
from inngest_outbox.identity.scopes import Scopes
from inngest_outbox.outbox.audit import Act
from inngest_outbox.outbox.model import Filter
from inngest_outbox.outbox.ports import Repairs
from inngest_outbox.runs.turn import SCOPE, Turn

_RECORD, _STOPPED = "paced-replay", "paced-replay-stopped"
_LOOK_SECONDS = 2.0

log = structlog.get_logger(__name__)


class PacedReplay(msgspec.Struct, frozen=True, rename="camel"):
    """One replay at a rate. Times are milliseconds since 1970; `before` is where it continues."""

    act: Act
    actor: str
    wanted: Filter
    seen_at: int
    per_minute: int
    total: int
    done: int = 0
    before: int | None = None

    @property
    def seconds_left(self) -> float:
        """The time until its end."""
        return (self.total - self.done) * 60 / self.per_minute

    @property
    def step(self) -> int:
        """The number of events at once: what a second takes, at least one."""
        return math.ceil(self.per_minute / 60)

    @classmethod
    def of(cls, proposal: Proposal, act: Act, *, actor: str, per_minute: int) -> Self:
        """The replay of what was proposed."""
        wanted, total = proposal.wanted, len(proposal.rows)
        return cls(act, actor, wanted, proposal.seen_ms, per_minute, total)


class PacedReplays:
    """The replay at a rate of one outbox: one at a time."""

    def __init__(self, scopes: Scopes) -> None:
        self._scopes = scopes

    async def current(self) -> PacedReplay | None:
        """The replay that is under way, None without one. Raises OutboxUnavailableError."""
        try:
            one = msgspec.convert(await self._scopes.load_scope(SCOPE, _RECORD), PacedReplay)
        except msgspec.ValidationError:
            return None
        stopped = await self._scopes.load_scope(SCOPE, _STOPPED) or {}
        return None if stopped.get("act") == one.act.id else one

    async def start(self, one: PacedReplay) -> None:
        """Begin this replay. Raises InvalidFieldError while another one is under way."""
        if await self.current():
            raise InvalidFieldError("A replay at a rate is under way: stop it first.")
        await self._save(one)

    async def stop(self) -> None:
        """End the replay that is under way. What it had not reached stays dead. Safe to repeat."""
        if one := await self.current():
            await self._scopes.save_scope(SCOPE, _STOPPED, {"act": one.act.id})
            await self._save(None)

    async def keep(self, one: PacedReplay, after: PacedReplay | None) -> None:
        """Keep the progress of `one`, None: its end. A stop or another start meanwhile holds."""
        now = await self.current()
        if now and now.act == one.act:
            await self._save(after)

    async def _save(self, one: PacedReplay | None) -> None:
        await self._scopes.save_scope(SCOPE, _RECORD, msgspec.to_builtins(one) if one else {})


class PacedReplayer:
    """Carries out the replay that is under way while this process has the `turn`."""

    def __init__(self, replays: PacedReplays, search: Search, repairs: Repairs, turn: Turn) -> None:
        self._replays = replays
        self._search = search
        self._repairs = repairs
        self._turn = turn

    async def run(self) -> None:
        """Replay until cancelled. A store that is away delays it."""
        while True:
            wait_seconds = _LOOK_SECONDS
            try:
                one = await self._replays.current() if await self._turn.mine() else None
                if one:
                    await self._advance(one)
                    wait_seconds = one.step * 60 / one.per_minute
            except OutboxUnavailableError as error:
                log.warning("paced_replay_waits", reason=str(error))
            await asyncio.sleep(wait_seconds)

    async def _advance(self, one: PacedReplay) -> None:
        limit = min(one.step, one.total - one.done)
        wanted = msgspec.structs.replace(one.wanted, before_seq=one.before, limit=limit)
        found = await self._search.find(wanted)
        rows = [row for row in found.rows if moved_at(row) <= one.seen_at]
        done = one.done + len(
            await change_rows(self._repairs.replay, rows, actor=one.actor, act=one.act)
        )
        before = found.rows[-1].seq if found.rows else found.next_seq
        is_over = before is None or done >= one.total
        after = None if is_over else msgspec.structs.replace(one, done=done, before=before)
        await self._replays.keep(one, after)
