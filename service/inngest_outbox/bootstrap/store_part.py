"""The store part of a service: it owns the outbox and delivers.

A process of its own for it loads of the web part only the reading of events, for the inbox of
PostgreSQL.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import msgspec

from inngest_outbox.bootstrap.delivery import run_relay
from inngest_outbox.bootstrap.process import watch_process
from inngest_outbox.bootstrap.stores import Outbox, open_served_outbox, refuse_appends
from inngest_outbox.bootstrap.tracing import Tracing, start_tracing
from inngest_outbox.bootstrap.watching import run_watches
from inngest_outbox.config.settings import Settings
from inngest_outbox.console.operations.sampler import History, Sampler
from inngest_outbox.errors import ConfigurationError, OutboxUnavailableError
from inngest_outbox.inngest.address import inngest_address
from inngest_outbox.observe.metrics import PrometheusRecorder
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.link.messages import REASON_KEY, Status
from inngest_outbox.outbox.sqlite.timings import ClaimPace, DelayPolicy, WriterTimings
from inngest_outbox.relay.relay import Relay
from inngest_outbox.runs.turn import WatchPace
from inngest_outbox.supervisor import Supervisor, run_supervisor

_STREAM_PAUSE_SECONDS = 0.05  # so a claim and its send serve more events
_DELAY_SHARE = 2.0  # of the last commit's time; such a commit has three times the events
_ONE_PROCESS = (
    "OUTBOX_URL: an SQLite outbox has exactly one process, which delivers too; "
    "use PostgreSQL to serve without a relay"
)


@dataclass(frozen=True, slots=True)
class StorePart:
    """The part that owns the outbox. `relay` is None where others deliver."""

    outbox: Outbox
    relay: Relay | None
    sampler: Sampler
    supervisor: Supervisor
    status: Callable[[], Status]


def load_store(settings: Settings) -> None:
    """Load what `run_store_process` needs with these settings, while another store still serves.

    Raises ImportError where this version is not whole.
    """
    inngest_address(settings)
    if settings.sqlite_path is None:
        import inngest_outbox.outbox.postgres.store
        import inngest_outbox.web.intake.incoming  # noqa: F401


@contextlib.asynccontextmanager
async def run_store_process(
    settings: Settings, fronts: socket.socket, *, with_relay: bool = True, take_over: bool = False
) -> AsyncIterator[Outbox]:
    """The outbox and its delivery, for the front processes that connect to `fronts`; closes it.

    At its end the sends settle first, while fronts are still served. Raises what `run_service`
    raises; with `take_over` OutboxUnavailableError where no event can be stored: then no front was
    served, so that posts wait for another store.
    """
    recorder = PrometheusRecorder()
    with fronts, start_tracing(settings) as tracing:
        async with run_store_part(
            settings,
            recorder,
            tracing,
            with_relay=with_relay,
            listening=fronts,
            must_store=take_over,
            timings=timings_beside_fronts(settings.web_concurrency),
        ) as part:
            await refuse_appends(part.outbox, settings)
            yield part.outbox


@contextlib.asynccontextmanager
async def run_store_part(
    settings: Settings,
    recorder: Recorder,
    tracing: Tracing | None,
    *,
    with_relay: bool,
    listening: socket.socket | None = None,
    must_store: bool = False,
    timings: WriterTimings | None = None,
    pace: WatchPace | None = None,
) -> AsyncIterator[StorePart]:
    """The outbox, its link, the sampler, and a relay at work where it is wanted.

    `listening`, `must_store` and `timings` are those of `open_served_outbox`. `pace` None is the
    usual one.
    """
    if settings.sqlite_path and not with_relay:
        raise ConfigurationError([_ONE_PROCESS])
    inngest, pace = inngest_address(settings), pace or WatchPace()
    relay: Relay | None = None
    supervisor: Supervisor | None = None

    def status(outbox: Outbox) -> Status:
        faults = supervisor.faults if supervisor else []
        return msgspec.structs.replace(store_status(outbox, relay, faults), inngest=inngest)

    opening = open_served_outbox(
        settings,
        recorder,
        status=status,
        listening=listening,
        must_store=must_store,
        timings=timings,
    )
    async with contextlib.AsyncExitStack() as stack:
        outbox = await stack.enter_async_context(opening)
        supervisor = await stack.enter_async_context(run_supervisor(recorder))
        sampler = Sampler(outbox.inspector, recorder, History(outbox.samples), pace.sample)
        supervisor.watch("sampler", sampler.run)
        watch_process(supervisor, recorder)
        if with_relay:
            delivery = run_relay(settings, outbox, recorder, supervisor, tracing)
            relay = await stack.enter_async_context(delivery)
            watches = run_watches(settings, outbox, recorder, supervisor, sampler, pace)
            await stack.enter_async_context(watches)
        else:
            recorder.gauge("confirmations_ok", 1.0)  # another process asks
        yield StorePart(outbox, relay, sampler, supervisor, lambda: status(outbox))


def store_status(outbox: Outbox, relay: Relay | None, faults: list[str]) -> Status:
    """The state of a store process. `faults` are those of its tasks."""
    detail: dict[str, object] = {"undelivered": outbox.undelivered}
    if relay:
        breaker = relay.breaker
        state = "paused" if breaker.paused else breaker.state.value
        detail["delivery"] = {"state": state, REASON_KEY: breaker.reason or None}
        if relay.confirmation_fault:
            detail["confirmation"] = {"state": "failing", REASON_KEY: relay.confirmation_fault}
    if outbox.journal:
        detail["journal"] = msgspec.to_builtins(outbox.journal.state)
    ids = None
    with contextlib.suppress(OutboxUnavailableError):
        ids = outbox.confirmations.inngest_ids
    return Status(
        failure=outbox.failure,
        scope_revision=outbox.scopes.scope_revision,
        faults=tuple(faults),
        detail=detail,
        ids=ids,
    )


def timings_beside_fronts(fronts: int, cores: int | None = None) -> WriterTimings:
    """The timings of a writer to which `fronts` processes hand events.

    Commits wait a moment for the messages of other fronts. While many events come in and there is
    no backlog, claims are fewer and larger. Where there are fewer `cores` than processes, None for
    those of this machine, a drain leaves the fronts their part of them.
    """
    known = cores or os.cpu_count() or 1
    pace = ClaimPace()
    share = pace.processor_share * min(1.0, known / (fronts + 1))
    return WriterTimings(
        delay=DelayPolicy(share=_DELAY_SHARE),
        pace=replace(pace, stream_pause_seconds=_STREAM_PAUSE_SECONDS, processor_share=share),
    )
