"""Judges of every test: what must be so after each, whatever it was about.

No task is left, no fault of the service was swallowed, and what a service counts is as at its
begin: connections, places, bytes, followers, calls. A test that wants a fault takes it with
`capture_logs`, or is marked `faulty`.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import structlog

from inngest_outbox.outbox.link.server import LinkServer
from inngest_outbox.outbox.link.store_link import _Session
from inngest_outbox.web.events.follower import EventFollower
from inngest_outbox.web.events.run_asker import RunAsker
from inngest_outbox.web.server.admission import Admission
from inngest_outbox.web.server.body_budget import BodyBudget
from inngest_outbox.web.server.shares import ConnectionShares
from tests.support.judged_command import record_in

_FAULT = re.compile(
    "Traceback|Exception ignored|never (?:awaited|retrieved)|Unclosed|was destroyed|ResourceWarning"
)
# A task that was cancelled ends some turns later.
_TURNS = 5
# aiohttp reads a refused body for some seconds and cuts requests at a stop; a probe of the
# bucket ends by itself.
_LINGERING = ("RequestHandler.", "probe-bucket")
# What counts, and the attributes that are at the end as at the begin.
_COUNTED: dict[type, tuple[str, ...]] = {
    Admission: ("_free_posts", "_pieces", "_pipelined", "_waiting", "_waiting_posts"),
    BodyBudget: ("_free", "_owners", "_waiting"),
    ConnectionShares: ("_clients", "_counts", "_idle", "_peers"),
    EventFollower: ("_owners", "followers"),
    LinkServer: ("_callers", "_calls", "_connected"),
    RunAsker: ("_asking",),
    _Session: ("_asked",),
}


class Judge:
    """Collects what was found wrong until `judge` raises it."""

    found: ClassVar[list[str]] = []
    _born: ClassVar[list[tuple[asyncio.AbstractEventLoop, object, dict[str, Any]]]] = []

    @classmethod
    def begin(cls) -> None:
        """Look at everything from now on."""
        structlog.configure(processors=[_note_fault, *structlog.get_config()["processors"]])
        for name in ("asyncio", "aiohttp"):
            logging.getLogger(name).addHandler(_Faults(logging.ERROR))
        runners: Any = asyncio.runners
        runners._cancel_all_tasks = functools.partial(_end_tasks, runners._cancel_all_tasks)
        for kind in _COUNTED:
            cls._watch(kind)

    @classmethod
    def judge(cls, *, looks_away: bool) -> None:
        """Raise what was found since the last time."""
        ended = [one for one in cls._born if one[0].is_closed()]
        cls._born[:] = [one for one in cls._born if not one[0].is_closed()]
        for _, one, before in ended:
            now = _counts(one)
            if now != before:
                cls.found.append(f"{type(one).__name__} has {now}, at its begin {before}")
        found = "\n".join(cls.found)
        cls.found.clear()
        assert looks_away or not found, found

    @classmethod
    def look_at(cls, lines: list[str], *, is_json: bool) -> None:
        """Look at all that a process printed: it has no fault, and `is_json` nothing but JSON."""
        cls.found += [f"logged: {line}" for line in lines if _FAULT.search(line)]
        if is_json:
            whole = [line for line in lines if line.endswith("\n")]  # a kill may cut one
            cls.found += [f"not a log line: {line}" for line in whole if not record_in(line)]

    @classmethod
    def _watch(cls, kind: Any) -> None:
        made = kind.__init__

        @functools.wraps(made)
        def make(one: object, *given: object, **named: object) -> None:
            made(one, *given, **named)
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # nothing runs that could count
                return
            cls._born.append((loop, one, _counts(one)))

        kind.__init__ = make


class _Faults(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        Judge.found.append(f"logged: {record.getMessage()} {record.exc_info}")


def _note_fault(_: object, name: str, record: structlog.typing.EventDict) -> Any:
    if record.get("exc_info"):
        Judge.found.append(f"logged: {name} {record}")
    return record


def _end_tasks(
    end: Callable[[asyncio.AbstractEventLoop], None], loop: asyncio.AbstractEventLoop
) -> None:
    for _ in range(_TURNS):
        if not asyncio.all_tasks(loop):
            return
        loop.run_until_complete(asyncio.sleep(0))
    left = [repr(task) for task in asyncio.all_tasks(loop)]
    Judge.found += [f"left: {one}" for one in left if not any(name in one for name in _LINGERING)]
    end(loop)


def _counts(one: object) -> dict[str, Any]:
    [names] = [names for kind, names in _COUNTED.items() if isinstance(one, kind)]
    found = {name: copy.copy(getattr(one, name)) for name in names}
    # Counters are equal though one holds names without a count, which stay for ever.
    return {name: dict(of) if isinstance(of, Counter) else of for name, of in found.items()}
