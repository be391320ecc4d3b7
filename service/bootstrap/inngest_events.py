"""Inngest's REST API, made from the configuration."""

from __future__ import annotations

import aiohttp

from service.bootstrap.inngest_address import inngest_address
from service.config.destination import confirmation_mode
from service.config.inngest_address import InngestAddress
from service.config.settings import Settings
from service.config.values import plain
from service.inngest.inngest_events import InngestEvents


def make_inngest_events(
    settings: Settings, http: aiohttp.ClientSession, *, timeout_seconds: float
) -> InngestEvents | None:
    """Inngest's REST API, None where it can't be asked: it wants a signing key or a dev server."""
    if not confirmation_mode(settings).can_ask:
        return None
    address = inngest_address(settings)
    return InngestEvents(
        http,
        origin=_origin(settings, address),
        signing_key=plain(settings.inngest_signing_key),
        environment=address.environment,
        timeout_seconds=timeout_seconds,
    )


def _origin(settings: Settings, address: InngestAddress) -> str:
    """Where the REST API is: beside the Event API when only that one's address is given."""
    elsewhere = settings.inngest_api_base_url or settings.inngest_base_url
    if settings.inngest_event_api_base_url and not elsewhere:
        return address.event_api_origin
    return address.api_origin
