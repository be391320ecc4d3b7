"""The store part of a service: it owns the outbox and delivers.

A process of its own for it loads nothing of the web part.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from service.bootstrap.beside_fronts import timings_beside_fronts
from service.bootstrap.delivery import run_relay
from service.bootstrap.postgres import load_postgres
from service.bootstrap.readiness import store_status
from service.bootstrap.stores import Outbox, open_served_outbox
from service.bootstrap.tracing import Tracing, start_tracing
from service.bootstrap.watched_process import watch_process
from service.config.settings import Settings
from service.console.operations.history import History
from service.console.operations.sampler import Sampler
from service.errors import ConfigurationError, OutboxUnavailableError
from service.inngest.address import inngest_address
from service.observe.metrics import PrometheusRecorder
from service.observe.recorder import Recorder
from service.outbox.link.messages import Status
from service.outbox.link.server import serve_outbox
from service.outbox.sqlite.timings import WriterTimings
from service.relay.relay import Relay
from service.supervisor import Supervisor, run_supervisor

_ONE_PROCESS = (
    "OUTBOX_URL: an SQLite outbox has exactly one process, which delivers too; "
    "use PostgreSQL to serve without a relay"
)


@dataclass(frozen=True, slots=True)
class OpenStore:
    """The part that owns the outbox."""

    outbox: Outbox
    sampler: Sampler
    supervisor: Supervisor


def load_store(settings: Settings) -> None:
    """Load what `run_store_process` needs with these settings, while another store still serves.

    Raises ImportError where this version is not whole.
    """
    inngest_address(settings)
    if settings.sqlite_path is None:
        load_postgres()


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
    relay: Relay | None = None
    timings = timings_beside_fronts(settings.web_concurrency)
    inngest = inngest_address(settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(fronts)
        tracing = stack.enter_context(start_tracing(settings))
        store = await stack.enter_async_context(
            open_store(settings, recorder, relay=with_relay, timings=timings)
        )
        if take_over and store.outbox.failure:
            raise OutboxUnavailableError(store.outbox.failure)

        def status() -> Status:
            return store_status(store.outbox, relay, store.supervisor.faults, inngest)

        await stack.enter_async_context(serve_outbox(fronts, store.outbox, status))
        relay = await stack.enter_async_context(
            deliver(settings, store, recorder, tracing, wanted=with_relay)
        )
        yield store.outbox


@contextlib.asynccontextmanager
async def open_store(
    settings: Settings, recorder: Recorder, *, relay: bool, timings: WriterTimings | None = None
) -> AsyncIterator[OpenStore]:
    """The outbox and who samples it. `relay` is whether this service delivers too.

    `timings` are those of an SQLite outbox.
    """
    if settings.sqlite_path and not relay:
        raise ConfigurationError([_ONE_PROCESS])
    async with (
        open_served_outbox(settings, recorder, timings) as outbox,
        run_supervisor(recorder) as supervisor,
    ):
        sampler = Sampler(outbox.inspector, recorder, History(outbox.samples))
        supervisor.watch("sampler", sampler.run)
        watch_process(supervisor, recorder)
        yield OpenStore(outbox, sampler, supervisor)


@contextlib.asynccontextmanager
async def deliver(
    settings: Settings,
    store: OpenStore,
    recorder: Recorder,
    tracing: Tracing | None,
    *,
    wanted: bool,
) -> AsyncIterator[Relay | None]:
    """A relay at work on the store, None where it is not wanted."""
    if not wanted:
        recorder.gauge("confirmations_ok", 1.0)  # another process asks
        yield None
        return
    async with run_relay(settings, store.outbox, recorder, store.supervisor, tracing) as relay:
        yield relay
