"""Delivery at work: the relay, and the confirmer where rows wait for Inngest's store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import aiohttp

from inngest_outbox.bootstrap.process import make_http
from inngest_outbox.bootstrap.stores import Outbox
from inngest_outbox.bootstrap.tracing import Tracing
from inngest_outbox.config.destination import confirmation_mode, destination
from inngest_outbox.config.settings import Settings
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.inngest.dedupe_horizon import DedupeHorizon
from inngest_outbox.inngest.rest_api import make_rest_api
from inngest_outbox.inngest.sender import make_sender
from inngest_outbox.observe.file_descriptors import DescriptorShortage
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.ports import Confirmations
from inngest_outbox.outbox.retention import run_retention
from inngest_outbox.relay.breaker_sync import Announcement
from inngest_outbox.relay.confirmer import Confirmer
from inngest_outbox.relay.relay import Relay, RelayLimits
from inngest_outbox.relay.report import ConfirmationReport
from inngest_outbox.relay.unconfirmed import Unconfirmed, deliver_left_rows, deliver_unconfirmed
from inngest_outbox.supervisor import Supervisor

_HUNG_SECONDS = 30.0


@contextlib.asynccontextmanager
async def run_relay(
    settings: Settings,
    outbox: Outbox,
    recorder: Recorder,
    supervisor: Supervisor,
    tracing: Tracing | None = None,
) -> AsyncIterator[Relay]:
    """A relay at work, and a confirmer where it is wanted; leaving it lets sends settle."""
    unconfirmed = Unconfirmed(settings.unconfirmed_max) if confirmation_mode(settings).on else None
    await _count_unconfirmed(outbox.confirmations, unconfirmed)
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(make_http(limit=settings.senders * 4 + 32))
        relay = _relay(
            settings,
            outbox,
            recorder,
            supervisor,
            tracing=tracing,
            http=http,
            unconfirmed=unconfirmed,
        )
        if unconfirmed:
            report = ConfirmationReport(recorder, relay.confirmed, on_fault=relay.tell_confirmation)
            confirming = _run_confirmer(
                settings, outbox.confirmations, unconfirmed, report, supervisor
            )
            await stack.enter_async_context(confirming)
        else:
            supervisor.watch("unconfirmed", lambda: deliver_left_rows(outbox.confirmations))
        supervisor.watch("relay", relay.run, hung_after_seconds=_HUNG_SECONDS)
        supervisor.watch("delivery", relay.sync_breaker)
        supervisor.watch(
            "retention",
            lambda: run_retention(
                outbox.repairs, settings.retention_seconds, settings.payload_retention_seconds
            ),
        )
        try:
            yield relay
        finally:
            await supervisor.stop("relay")
            await relay.stop()


def _relay(
    settings: Settings,
    outbox: Outbox,
    recorder: Recorder,
    supervisor: Supervisor,
    *,
    tracing: Tracing | None,
    http: aiohttp.ClientSession,
    unconfirmed: Unconfirmed | None,
) -> Relay:
    return Relay(
        outbox.queue,
        outbox.delivery,
        make_sender(
            settings,
            http,
            timeout_seconds=settings.send_timeout_seconds,
            unreached=DescriptorShortage(recorder).send_failed,
        ),
        recorder,
        RelayLimits(
            max_events=settings.batch_events,
            max_bytes=settings.batch_bytes,
            senders=settings.senders,
            send_timeout_seconds=settings.send_timeout_seconds,
            drain_seconds=settings.drain_seconds,
        ),
        beat=lambda: supervisor.beat("relay"),
        around_send=tracing.around_send if tracing else contextlib.nullcontext,
        ids=outbox.confirmations.inngest_ids,
        unconfirmed=unconfirmed,
        horizon=_horizon(settings, http, outbox.confirmations),
        announcement=Announcement(destination(settings).value, str(confirmation_mode(settings))),
    )


async def _count_unconfirmed(confirmations: Confirmations, unconfirmed: Unconfirmed | None) -> None:
    """Rows that an earlier process sent take room; without confirmation they are delivered."""
    with contextlib.suppress(OutboxUnavailableError):
        if unconfirmed:
            unconfirmed.recount(await confirmations.count_sent())
        else:
            await deliver_unconfirmed(confirmations)


@contextlib.asynccontextmanager
async def _run_confirmer(
    settings: Settings,
    confirmations: Confirmations,
    unconfirmed: Unconfirmed,
    report: ConfirmationReport,
    supervisor: Supervisor,
) -> AsyncIterator[None]:
    """A confirmer at work. The connection of its line lives as long as Inngest does."""

    def reconnected() -> None:
        confirmer.reconnected()

    seconds = settings.send_timeout_seconds
    async with make_http(limit=1, on_connect=reconnected) as one, make_http(limit=16) as more:
        line = make_rest_api(settings, one, timeout_seconds=seconds)
        pages = make_rest_api(settings, more, timeout_seconds=seconds)
        if line is None or pages is None:
            yield
            return
        confirmer = Confirmer(
            confirmations, pages, confirmations.inngest_ids, unconfirmed, report, line=line
        )
        supervisor.watch("confirmer", confirmer.run)
        try:
            yield
        finally:
            await supervisor.stop("confirmer")


def _horizon(
    settings: Settings, http: aiohttp.ClientSession, confirmations: Confirmations
) -> DedupeHorizon | None:
    events = make_rest_api(settings, http, timeout_seconds=settings.send_timeout_seconds)
    return DedupeHorizon(events, confirmations.inngest_ids) if events else None
