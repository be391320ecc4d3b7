"""The work on an outbox beside its delivery: the watch of its runs, its alarms, slow replays."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import aiohttp

from inngest_outbox.alarms.alarm_watch import AlarmWatch
from inngest_outbox.alarms.targets import AlarmEvents, Target, Webhook
from inngest_outbox.bootstrap.process import make_http
from inngest_outbox.bootstrap.stores import Outbox
from inngest_outbox.config.faults import ALARMS_AS_EVENTS
from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import plain
from inngest_outbox.console.operations.actions import OperatorActions
from inngest_outbox.console.operations.paced import PacedReplayer, PacedReplays
from inngest_outbox.console.operations.sampler import Sampler
from inngest_outbox.console.operations.search import Search
from inngest_outbox.event_types.types_file import load_event_types
from inngest_outbox.inngest.rest_api import make_rest_api
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.runs.figures import KeptNames
from inngest_outbox.runs.run_watch import RunWatch
from inngest_outbox.runs.turn import Turn, WatchPace
from inngest_outbox.supervisor import Supervisor

_ASK_TIMEOUT_SECONDS = 5.0


@contextlib.asynccontextmanager
async def run_watches(
    settings: Settings,
    outbox: Outbox,
    recorder: Recorder,
    supervisor: Supervisor,
    sampler: Sampler,
    pace: WatchPace,
) -> AsyncIterator[None]:
    """Watches runs where Inngest can be asked, tells alarms where they go, replays at a rate."""
    turn = Turn(outbox.scopes, alone=settings.sqlite_path is not None)
    async with make_http(limit=1) as asking, make_http(limit=1) as telling:
        runs = _run_watch(settings, outbox, recorder, turn, asking, pace)
        if runs:
            supervisor.watch("run-watch", runs.run)
        if target := _target(settings, outbox, telling, pace):
            alarms = AlarmWatch(
                target,
                sampler,
                outbox.inspector,
                outbox.scopes,
                turn,
                recorder,
                pace=pace,
                failure=lambda: outbox.failure,
                names=lambda: runs.kept if runs else KeptNames(),
            )
            supervisor.watch("alarm-watch", alarms.run)
        supervisor.watch("paced-replay", _replayer(outbox, recorder, turn).run)
        try:
            yield
        finally:
            await supervisor.stop("alarm-watch")
            await supervisor.stop("run-watch")


def _replayer(outbox: Outbox, recorder: Recorder, turn: Turn) -> PacedReplayer:
    search = Search(outbox.inspector, outbox.positions)
    actions = OperatorActions(outbox.repairs, recorder)
    return PacedReplayer(PacedReplays(outbox.scopes), search, actions, turn)


def _run_watch(
    settings: Settings,
    outbox: Outbox,
    recorder: Recorder,
    turn: Turn,
    http: aiohttp.ClientSession,
    pace: WatchPace,
) -> RunWatch | None:
    reader = make_rest_api(settings, http, timeout_seconds=_ASK_TIMEOUT_SECONDS)
    if reader is None:
        return None
    types = load_event_types(settings.event_types_file)
    return RunWatch(
        reader,
        outbox.inspector,
        outbox.scopes,
        turn,
        recorder,
        no_run_seconds=settings.no_run_seconds,
        pace=pace,
        names=[one.name for one in types],
        expected=[one.name for one in types if one.expects_run],
    )


def _target(
    settings: Settings, outbox: Outbox, http: aiohttp.ClientSession, pace: WatchPace
) -> Target | None:
    url = plain(settings.alarm_url)
    if url is None:
        return None
    if url == ALARMS_AS_EVENTS:
        return AlarmEvents(outbox.intake)
    secret = plain(settings.alarm_secret) or ""
    return Webhook(http, url, secret, pace.answer)
