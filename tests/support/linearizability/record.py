"""The record of a history: what was asked of the outbox when, and what was answered when.

Several processes append to one file. Times are those of the machine's monotonic clock, which all
processes share. A call that has no answer may have had its effect or not.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec

from inngest_outbox.errors import OutboxError

T = TypeVar("T")
_CANCELLED_WITHIN_NS = 5_000_000_000


class Call(msgspec.Struct):
    """One call; `ended_ns` is None without an answer. `asked` and `told` are JSON's values."""

    name: str
    kind: str
    asked: Any
    began_ns: int
    ended_ns: int | None = None
    told: Any = None


class _Line(msgspec.Struct, array_like=True):
    name: str
    at_ns: int
    kind: str | None
    value: Any


class Recorder:
    """Writes the calls of one process, named `process`, to the file `path`."""

    def __init__(self, path: Path, process: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._names = (f"{process}-{number}" for number in itertools.count())

    async def call(
        self, kind: str, asked: Any, act: Callable[[], Awaitable[T]], told: Callable[[T], Any]
    ) -> T | None:
        """Do and record a call; None when the outbox could not be reached."""
        try:
            return await self.watched(kind, asked, act, told)
        except (OutboxError, aiohttp.ClientError):
            await asyncio.sleep(0.02)
            return None

    async def watched(
        self,
        kind: str,
        asked: Any,
        act: Callable[[], Awaitable[T]],
        told: Callable[[T], Any],
        *,
        when_cancelled: Any = None,
    ) -> T:
        """Do and record a call; its errors are raised, and it has no answer then.

        `when_cancelled` is the answer of a call that is cancelled, None for no answer.
        """
        name = self.begin(kind, asked)
        try:
            result = await act()
        except asyncio.CancelledError:
            if when_cancelled is not None:
                self._write(name, None, when_cancelled)
            raise
        self._write(name, None, told(result))
        return result

    def begin(self, kind: str, asked: Any) -> str:
        """Record a call that begins now; its name."""
        name = next(self._names)
        self._write(name, kind, asked)
        return name

    def note(self, kind: str, told: Any) -> None:
        """Record what is known at this moment."""
        self._write(self.begin(kind, None), None, told)

    def _write(self, name: str, kind: str | None, value: Any) -> None:
        line = _Line(name, time.monotonic_ns(), kind, value)
        # A kill may tear a long line; the next one begins anew.
        os.write(self._file, b"\n" + msgspec.json.encode(line) + b"\n")


def read_calls(path: Path) -> list[Call]:
    """The calls in the order in which they began.

    A line that a kill has torn is that of a call which had not begun or has no answer.
    """
    calls: dict[str, Call] = {}
    for text in path.read_bytes().split(b"\n"):
        try:
            line = msgspec.json.decode(text, type=_Line)
        except msgspec.DecodeError:
            continue
        if line.kind is not None:
            calls[line.name] = Call(line.name, line.kind, line.value, line.at_ns)
        else:
            calls[line.name].ended_ns, calls[line.name].told = line.at_ns, line.value
    return sorted(calls.values(), key=lambda one: one.began_ns)


def complete(calls: list[Call]) -> None:
    """Add to calls without an answer what their effect was, if they had one.

    A post over HTTP whose id nobody was told gets an event that was found. Which of such posts made
    it is not known: each is taken to have begun with the first of them. A claim gets the claims
    that were found; it has made one of them or none. What is released was claimed by a call that
    was cancelled shortly before, in the same life of the service. The claim of what is returned is
    in the record.
    """
    ends = [call.ended_ns or 0 for call in calls if call.kind == "truth"]
    calls += [_claim_of(call, ends) for call in calls if call.kind == "release"]
    calls.sort(key=lambda one: one.began_ns)
    known = {one for call in calls if call.kind == "append" for one in call.asked}
    known |= {one for call in calls if call.kind == "append" for one, _ in call.told or ()}
    posts = [one for one in calls if one.kind == "append" and not (one.asked or one.told)]
    claims = [one for one in calls if one.kind == "claim" and one.told is None]
    # By their ends: a post that may have made what an early look found is not given away by a late.
    for call in sorted(calls, key=lambda one: one.ended_ns or 0):
        began = [one for one in posts if one.began_ns < (call.ended_ns or 0)]
        for event_id in _found_in(call):
            free = [one for one in began if not one.asked]
            if event_id not in known and free:
                free[0].asked, free[0].began_ns = [event_id], began[0].began_ns
            known.add(event_id)
        if call.kind == "truth":
            for one in [one for one in claims if one.began_ns < (call.ended_ns or 0)]:
                one.asked = call.told["claims"]
                claims.remove(one)
            posts = [one for one in posts if one not in began]


def _claim_of(release: Call, ends: list[int]) -> Call:
    earliest_ns = release.began_ns - _CANCELLED_WITHIN_NS
    began_ns = max(earliest_ns, *(end + 1 for end in ends if end < release.began_ns), 0)
    return Call(f"{release.name}-claim", "claim", None, began_ns, release.began_ns, release.asked)


def _found_in(call: Call) -> list[str]:
    """The events that a look has shown."""
    rows = call.told["rows"] if call.kind == "truth" else call.told or []
    return [row[0] for row in rows] if call.kind in ("list", "truth", "numbered") else []
