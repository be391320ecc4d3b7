"""Inngest's REST API, made from the configuration."""

from __future__ import annotations

import aiohttp
import inngest

from service.bootstrap.inngest import make_client
from service.config.destination import confirmation_mode
from service.config.settings import Settings
from service.relay.inngest_events import InngestEvents


def make_inngest_events(
    settings: Settings, http: aiohttp.ClientSession, *, timeout_seconds: float
) -> InngestEvents | None:
    """Inngest's REST API, None where it can't be asked: it wants a signing key or a dev server."""
    if not confirmation_mode(settings).can_ask:
        return None
    client = make_client(settings)
    key = settings.inngest_signing_key
    return InngestEvents(
        http,
        origin=_origin(settings, client),
        signing_key=key.get_secret_value() if key else None,
        environment=client.env,
        timeout_seconds=timeout_seconds,
    )


def _origin(settings: Settings, client: inngest.Inngest) -> str:
    """Where the REST API is: beside the Event API when only that one's address is given."""
    elsewhere = settings.inngest_api_base_url or settings.inngest_base_url
    if settings.inngest_event_api_base_url and not elsewhere:
        return client.event_api_origin
    return client.api_origin
