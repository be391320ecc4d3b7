"""Delivery at work: the relay, and the confirmer where rows wait for Inngest's store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from service.bootstrap.http import make_http
from service.bootstrap.identity import plain
from service.bootstrap.inngest import make_client, make_inngest_events
from service.bootstrap.stores import Outbox, confirmations_of
from service.bootstrap.tracing import Tracing
from service.config.destination import confirmation_mode
from service.config.settings import Settings
from service.observe.recorder import Recorder
from service.outbox.retention import keep_tidy
from service.relay.confirmation_report import ConfirmationReport
from service.relay.confirmer import Confirmer
from service.relay.dedupe_horizon import DedupeHorizon
from service.relay.inngest import InngestSender
from service.relay.relay import Relay
from service.relay.unconfirmed import Unconfirmed
from service.supervisor import Supervisor

_HUNG_SECONDS = 30.0


@contextlib.asynccontextmanager
async def run_relay(
    settings: Settings,
    outbox: Outbox,
    recorder: Recorder,
    supervisor: Supervisor,
    tracing: Tracing | None = None,
) -> AsyncIterator[Relay]:
    """A relay at work; leaving it lets sends under way settle."""
    client = make_client(settings)
    confirmations = confirmations_of(outbox)
    async with make_http(limit=settings.senders * 2) as http:
        sender = InngestSender(
            http,
            origin=client.event_api_origin,
            key=client.event_key or "",
            fallback_key=plain(settings.inngest_event_key_fallback),
            environment=client.env,
            timeout_seconds=settings.send_timeout_seconds,
        )
        events = make_inngest_events(settings, http, timeout_seconds=settings.send_timeout_seconds)
        confirming = confirmation_mode(settings).on and confirmations and events
        unconfirmed = Unconfirmed(settings.unconfirmed_max) if confirming else None
        relay = Relay(
            outbox,
            sender,
            recorder,
            max_events=settings.batch_events,
            max_bytes=settings.batch_bytes,
            senders=settings.senders,
            send_timeout_seconds=settings.send_timeout_seconds,
            drain_seconds=settings.drain_seconds,
            beat=lambda: supervisor.beat("relay"),
            around_send=tracing.around_send if tracing else contextlib.nullcontext,
            ids=confirmations.inngest_ids if confirmations else None,
            unconfirmed=unconfirmed,
            horizon=(
                DedupeHorizon(events, confirmations.inngest_ids)
                if events and confirmations
                else None
            ),
        )
        if unconfirmed and confirmations and events:
            confirmer = Confirmer(
                confirmations,
                events,
                confirmations.inngest_ids,
                unconfirmed,
                ConfirmationReport(recorder, relay.confirmed),
            )
            supervisor.watch("confirmer", confirmer.run)
        supervisor.watch("relay", relay.run, hung_after_seconds=_HUNG_SECONDS)
        supervisor.watch("delivery", relay.sync_breaker)
        supervisor.watch("upkeep", lambda: keep_tidy(outbox, settings.retention_seconds))
        try:
            yield relay
        finally:
            await supervisor.stop("upkeep")
            await supervisor.stop("relay")
            await relay.stop()
            await supervisor.stop("delivery")
            if unconfirmed:
                await supervisor.stop("confirmer")
