"""The Inngest SDK's client, made from the configuration.

The relay sends to the address that it knows, the worker connects with it. The event key is part of
the URL that httpx logs: a change must keep that logger quiet.
"""

from __future__ import annotations

import logging

import inngest

from service.config.settings import Settings
from service.config.values import plain

APP_ID = "documents"
_DEV_EVENT_KEY = "NO_EVENT_KEY_SET"  # what the SDK itself sends where none is needed


def make_client(settings: Settings) -> inngest.Inngest:
    """A client of its own, for one running loop.

    Its `event_key` is always set, its origins are absolute URLs, and `is_production` is false where
    events go to a dev server. Makes no call.
    """
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
