"""Announcements of a running command on standard output: sentences, and the banner of `serve`.

They are for people, also where standard output is a file; with LOG_FORMAT=json they are JSON.
"""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

import msgspec

from inngest_outbox.config.destination import Destination, confirmation_mode, destination
from inngest_outbox.config.outbox_url import redacted_url
from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import parse_event_keys
from inngest_outbox.console.operations.explain import counted
from inngest_outbox.console.operations.views import PAUSED, delivery_view
from inngest_outbox.errors import ServiceError
from inngest_outbox.inngest.address import inngest_address
from inngest_outbox.observe.logs import timestamp
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.ports import Inspector

_encode = msgspec.json.Encoder().encode
_LABEL_WIDTH = 14


class Announcer:
    """Says sentences. `as_json` writes each as one line of JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def say(self, sentence: str, details: Mapping[str, str] | None = None) -> None:
        """Say a sentence, with `details` below it, a line each."""
        if self._as_json:
            head = {"event": "announcement", "message": sentence, "level": "info"}
            line = _encode({**head, **(details or {}), "timestamp": timestamp()}).decode()
        else:
            rows = [f"  {label:<{_LABEL_WIDTH}}{words}" for label, words in (details or {}).items()]
            line = "\n".join([sentence, *rows])
        # Without a reader the sentence is lost, as log lines are.
        with contextlib.suppress(OSError):
            if _has_room(sys.stdout):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()


def announcer_for(settings: Settings) -> Announcer:
    """The announcer for a service with these settings."""
    return Announcer(as_json=settings.log_format == "json")


@dataclass(frozen=True, slots=True)
class Standing:
    """`waiting` rows are not delivered, None where it is not known; `paused` is who and why."""

    waiting: int | None = None
    paused: str = ""


async def greet(
    announcer: Announcer, settings: Settings, url: str, sentence: str, inspector: Inspector
) -> None:
    """Say `sentence` and the banner of the service that listens at `url`."""
    inngest = inngest_address(settings).event_api_origin
    standing = await standing_of(inspector)
    announcer.say(sentence, banner(settings, url, inngest=inngest, standing=standing))


async def standing_of(inspector: Inspector) -> Standing:
    """The standing of an outbox, unknown where it can't be read now."""
    try:
        stats = await inspector.stats()
    except ServiceError:
        return Standing()
    waiting = stats.pending + stats.delivering + stats.sent
    delivery = delivery_view(stats.delivery)
    paused = delivery.reason if delivery.state == PAUSED else None
    return Standing(waiting, paused or "")


def banner(settings: Settings, url: str, *, inngest: str, standing: Standing) -> dict[str, str]:
    """The lines by their labels.

    `inngest` is where events go.
    """
    waiting, paused, operators = standing.waiting, standing.paused, settings.operator_emails
    return {
        "events go to": _destination(settings, inngest),
        **({"delivery": f"{printable(paused)}; `outbox resume` starts it again"} if paused else {}),
        "confirmation": str(confirmation_mode(settings)),
        "outbox": f"{redacted_url(settings.outbox_url)}{_waiting(waiting)}",
        "storage": _storage(settings),
        "sign in": _sign_in(settings, url),
        **_machines(settings, url),
        **_event_types(settings),
        **({"operators": ", ".join(operators)} if operators and settings.fake_inngest_url else {}),
        "pages": f"{'' if settings.production else f'{url}/, '}{url}/docs, {url}/outbox",
    }


def _waiting(count: int | None) -> str:
    if count is None:
        return ""
    return f", {counted(count, 'event')} {'waits' if count == 1 else 'wait'}"


def _destination(settings: Settings, inngest: str) -> str:
    kind = destination(settings)
    if kind is Destination.FAKE:
        return f"a fake Inngest, for development: {inngest}/fake-inngest/events shows them"
    return f"{inngest} ({kind.value})"


def _storage(settings: Settings) -> str:
    if settings.missing_storage:
        missing = " and ".join(settings.missing_storage)
        return f"missing: set {missing}; until then posts of documents are answered 503"
    return f"bucket {settings.s3_bucket} in {settings.s3_region}"


def _machines(settings: Settings, url: str) -> dict[str, str]:
    keys = parse_event_keys(one.get_secret_value() for one in settings.event_keys)
    names = ", ".join(sorted(set(keys.values())))
    return {"machines": f"{names}, at {url}/e/<event key>"} if names else {}


def _event_types(settings: Settings) -> dict[str, str]:
    file = settings.event_types_file
    return {"event types": f"those of {printable(file)} too"} if file else {}


def _sign_in(settings: Settings, url: str) -> str:
    ways = []
    if settings.oidc_issuer:
        ways.append(f"{url}/auth/login ({settings.oidc_issuer})")
    if settings.nextauth_secret or settings.auth_js_secrets or settings.nextauth_url:
        ways.append("cookies of next-auth")
    if settings.jwt_issuer:
        ways.append(f"tokens of {settings.jwt_issuer}")
    if settings.dev_login or (not settings.production and settings.loopback):
        ways.append(f"{url}/auth/dev-login (development)")
    return ", ".join(ways) or "no way: set OIDC_ISSUER, NEXTAUTH_SECRET or AUTH_SECRET"


def _has_room(stream: TextIO) -> bool:
    """True where a write of some lines does not wait for a reader that is stuck."""
    watched = select.poll()
    watched.register(stream, select.POLLOUT)
    return bool(watched.poll(0))
