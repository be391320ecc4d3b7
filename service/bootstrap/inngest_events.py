"""Inngest's REST API, made from the configuration."""

from __future__ import annotations

import aiohttp

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
        origin=client.api_origin,
        signing_key=key.get_secret_value() if key and client.is_production else None,
        environment=client.env,
        timeout_seconds=timeout_seconds,
    )
