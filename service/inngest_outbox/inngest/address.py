"""The address of Inngest: the SDK's reading of the INNGEST_* variables, and links to its pages.

The relay sends to the address that the SDK's client knows, and the worker connects with it. The
event key is part of the URL that httpx logs: a change must keep that logger quiet.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from inngest_outbox.config.destination import Destination, destination
from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import InngestAddress, plain

if TYPE_CHECKING:
    import inngest

APP_ID = "documents"
_DEV_EVENT_KEY = "NO_EVENT_KEY_SET"  # what the SDK itself sends where none is needed
_CLOUD = "https://app.inngest.com"
_ENVIRONMENT = "production"


def make_client(settings: Settings) -> inngest.Inngest:
    """The SDK's client, for one running loop. Makes no call.

    Its `event_key` is always set, its origins are absolute URLs, and `is_production` is false where
    events go to a dev server. The first call loads the SDK (0.1 s of processor time).
    """
    import inngest

    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    base = settings.inngest_base_url or settings.inngest_dev_url
    return inngest.Inngest(
        app_id=APP_ID,
        api_base_url=settings.inngest_api_base_url or base,
        event_api_base_url=settings.inngest_event_api_base_url or base,
        event_key=plain(settings.inngest_event_key) or _DEV_EVENT_KEY,
        signing_key=plain(settings.inngest_signing_key),
        env=settings.inngest_env,
        is_production=not settings.inngest_dev_mode,
        logger=logging.getLogger("inngest"),
    )


@functools.cache
def inngest_address(settings: Settings) -> InngestAddress:
    """The address that the settings and the environment give.

    Makes a client, unless the settings know the address.
    """
    if settings.known_inngest:
        return settings.known_inngest
    client = make_client(settings)
    return InngestAddress(
        event_api_origin=client.event_api_origin,
        api_origin=client.api_origin,
        event_key=client.event_key or _DEV_EVENT_KEY,
        environment=client.env,
    )


def event_link(settings: Settings) -> Callable[[str], str | None]:
    """The address of an event's page by its ULID, None where there is no such page."""
    return lambda ulid: _page(settings, "event?eventID=", "events/", ulid, None)


def run_link(settings: Settings) -> Callable[[str, str | None], str | None]:
    """The address of a run's page by its id and its event's environment, None without a page.

    The environment None is the service's own.
    """
    return lambda run_id, environment: _page(settings, "run?runID=", "runs/", run_id, environment)


def _page(
    settings: Settings, own: str, cloud: str, name: str, environment: str | None
) -> str | None:
    """The page `name` at Inngest: under `own` on a server of one's own, under `cloud` there."""
    kind, name = destination(settings), quote(name, safe="")
    if kind is Destination.FAKE:
        return None
    if kind is Destination.CLOUD:
        slug = quote(environment or settings.inngest_env or _ENVIRONMENT, safe="")
        return f"{_CLOUD}/env/{slug}/{cloud}{name}"
    origin = settings.inngest_ui_url or inngest_address(settings).event_api_origin
    return f"{origin.rstrip('/')}/{own}{name}"
