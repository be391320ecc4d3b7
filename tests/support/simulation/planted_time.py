"""Bugs of leases, clocks, restarts and Inngest's memory of ids, planted on purpose."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from service.inngest.dedupe_horizon import DedupeHorizon, HorizonCheck
from service.outbox.clock import Clock, wall_now_ms
from service.outbox.inngest_id import PREFIX_BYTES, InngestIds
from service.outbox.model import Batch
from service.outbox.sqlite import claims
from service.outbox.sqlite.file.connection import SQL
from service.outbox.sqlite.state import CachedState

_END_OF_TIME_MS = claims._END_OF_TIME_MS


def _end_no_lease() -> None:
    expire = claims._expire

    def expiring(connection: sqlite3.Connection, until_ms: int) -> list[str]:
        return expire(connection, until_ms) if until_ms == _END_OF_TIME_MS else []

    claims._expire = expiring


def _end_leases_in_secret() -> None:
    expire = claims._expire

    def expiring(connection: sqlite3.Connection, until_ms: int) -> list[str]:
        expired = expire(connection, until_ms)
        return expired if until_ms == _END_OF_TIME_MS else []

    claims._expire = expiring


def _lose_the_rows_of_a_lease() -> None:
    SQL["EXPIRE_READY"] = f"{SQL['EXPIRE_READY']} AND sends > 0"


def _take_seconds_of_a_lease_for_milliseconds() -> None:
    claim = claims.SqliteClaims._claim

    def claiming(
        self: claims.SqliteClaims, connection: sqlite3.Connection, request: Any, now: int
    ) -> Batch | None:
        wanted = msgspec.structs.replace(request, lease_seconds=request.lease_seconds / 1000)
        return claim(self, connection, wanted, now)

    claims.SqliteClaims._claim = claiming  # type: ignore[method-assign]


def _keep_time_by_the_wall() -> None:
    Clock.now_ms = lambda self: wall_now_ms()  # type: ignore[method-assign]


def _keep_claims_over_a_restart() -> None:
    recover = claims.SqliteClaims.recover

    def recovering(self: claims.SqliteClaims, connection: sqlite3.Connection) -> int:
        expire, claims._expire = claims._expire, lambda connection, until_ms: []
        try:
            return recover(self, connection)
        finally:
            claims._expire = expire

    claims.SqliteClaims.recover = recovering  # type: ignore[method-assign]


def _ask_nobody_about_old_rows() -> None:
    async def check(self: DedupeHorizon, batch: Batch, now_ms: int) -> HorizonCheck:
        return HorizonCheck(batch, None)

    DedupeHorizon.check = check  # type: ignore[method-assign]


def _make_other_ids_after_a_restart() -> None:
    known = CachedState.known_ids
    made: set[InngestIds] = set()

    def other(self: CachedState) -> InngestIds:
        if known(self) not in made:
            self.ids = InngestIds(os.urandom(PREFIX_BYTES))
            made.add(self.ids)
        return known(self)

    CachedState.known_ids = other  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "no lease ever ends": _end_no_lease,
    "leases end in secret": _end_leases_in_secret,
    "lose the rows of a lease": _lose_the_rows_of_a_lease,
    "take the seconds of a lease for milliseconds": _take_seconds_of_a_lease_for_milliseconds,
    "keep time by the wall": _keep_time_by_the_wall,
    "keep claims over a restart": _keep_claims_over_a_restart,
    "ask nobody about old rows": _ask_nobody_about_old_rows,
    "make other ids after a restart": _make_other_ids_after_a_restart,
}
