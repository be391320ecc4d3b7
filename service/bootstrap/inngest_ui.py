"""Where people see an event and its runs in Inngest's own pages."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from service.bootstrap.inngest_address import inngest_address
from service.config.destination import Destination, destination
from service.config.settings import Settings

_CLOUD = "https://app.inngest.com"
_ENVIRONMENT = "production"


def event_link(settings: Settings) -> Callable[[str], str | None]:
    """Gives the address of an event's page by its ULID, None where there is no such page."""
    start = _start(settings)
    return lambda ulid: None if start is None else f"{start}{quote(ulid, safe='')}"


def _start(settings: Settings) -> str | None:
    kind = destination(settings)
    if kind is Destination.FAKE:
        return None
    if kind is Destination.CLOUD:
        return f"{_CLOUD}/env/{quote(settings.inngest_env or _ENVIRONMENT, safe='')}/events/"
    origin = settings.inngest_ui_url or inngest_address(settings).event_api_origin
    return f"{origin.rstrip('/')}/event?eventID="
