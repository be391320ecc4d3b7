"""Asking the neighbours whether they would serve us: Inngest and the bucket.

A probe stores nothing: Inngest is sent an empty list of events, the bucket is only looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from inngest_outbox.bootstrap.process import make_http
from inngest_outbox.config.destination import confirmation_mode
from inngest_outbox.config.settings import Settings
from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.address import inngest_address
from inngest_outbox.inngest.rest_api import make_rest_api
from inngest_outbox.inngest.sender import make_sender

_OK = 200
_KEY_REFUSED = (401, 403, 404)
_PROBE_SECONDS = 5.0
_LAST_ULID = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"


@dataclass(frozen=True, slots=True)
class Probe:
    """The answer of a neighbour. `ok` is None where it is not configured and was not asked."""

    ok: bool | None
    words: str


async def probe_inngest(settings: Settings) -> Probe:
    """Ask whether Inngest answers and takes the event key. Takes 10 s at most."""
    origin = inngest_address(settings).event_api_origin
    async with make_http(limit=1) as http:
        sender = make_sender(settings, http, timeout_seconds=_PROBE_SECONDS)
        answer = await sender.send(b"")
    if answer.status == _OK:
        return Probe(ok=True, words=f"{origin} answers and takes the event key")
    if answer.status in _KEY_REFUSED:
        return Probe(ok=False, words=f"{origin} refuses the event key (HTTP {answer.status})")
    said = f"HTTP {answer.status}" if answer.status else answer.words
    return Probe(ok=False, words=f"{origin} does not answer as Inngest does ({said})")


async def probe_confirmation(settings: Settings) -> Probe:
    """Ask Inngest which events it holds, where delivery waits for that. Takes 5 s."""
    mode = confirmation_mode(settings)
    async with make_http(limit=1) as http:
        events = make_rest_api(settings, http, timeout_seconds=_PROBE_SECONDS)
        if events is None:
            return Probe(ok=None, words=str(mode))
        try:
            await events.page(_LAST_ULID, 1)
        except InngestApiError as error:
            return Probe(ok=False if mode.on else None, words=f"{mode}; {error}")
    return Probe(ok=True, words=f"{mode}; Inngest says which events it holds")


async def probe_storage(settings: Settings) -> Probe:
    """Ask whether the bucket may be used. Takes 5 s, after the client has loaded."""
    if not settings.s3_bucket or not settings.s3_region:
        return Probe(ok=None, words=f"not configured: {', '.join(settings.missing_storage)}")
    wanted = settings.s3_bucket, settings.s3_region
    async with Bucket(*wanted, ask_seconds=_PROBE_SECONDS) as bucket:
        fault = await bucket.probe()
    return Probe(ok=fault is None, words=fault or "ok")
